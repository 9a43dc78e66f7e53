{{/* Names are resolved by the cluster's DNS, and by nobody else: a name would carry data out. */}}
{{- define "cytomine-hub.egressDns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dnsPeers | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{/* Any address but those of the clouds' metadata services, which hand out the node's credentials. */}}
{{- define "cytomine-hub.egressAnywhere" -}}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    {{- if .Values.networkPolicy.ipv6 }}
    - ipBlock: {cidr: "::/0", except: ["fe80::/10", "fd00:ec2::254/128"]}
    {{- end }}
{{- end }}

{{/* The namespaces: of the hub, and of the notebooks and stacks. Kubernetes itself gives each this label. */}}
{{- define "cytomine-hub.inRelease" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
{{- end }}

{{- define "cytomine-hub.inUsers" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ include "cytomine-hub.usersNamespace" . }}}}
{{- end }}

{{/* A part of the hub as a peer: (list $ "component"). */}}
{{- define "cytomine-hub.peer" -}}
- {{ include "cytomine-hub.inRelease" (index . 0) }}
  podSelector:
    matchLabels:
      {{- include "cytomine-hub.selector" . | nindent 6 }}
{{- end }}

{{- define "cytomine-hub.notebookPeer" -}}
- {{ include "cytomine-hub.inUsers" . }}
  podSelector:
    matchLabels:
      {{- include "cytomine-hub.notebookSelector" . | nindent 6 }}
{{- end }}

{{/* The pods of the users' stacks. */}}
{{- define "cytomine-hub.stackPeer" -}}
- {{ include "cytomine-hub.inUsers" . }}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: cytomine
      app.kubernetes.io/managed-by: cytomine-stacks
{{- end }}
