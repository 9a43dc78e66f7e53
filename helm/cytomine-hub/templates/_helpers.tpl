{{/* Prefix of all names; short, because Kubernetes ends names at 63 characters. */}}
{{- define "cytomine-hub.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels by which objects are selected: (list $ "component"). They must never change: selectors are immutable. */}}
{{- define "cytomine-hub.selector" -}}
app.kubernetes.io/name: cytomine-hub
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of an object: (list $ "component"). */}}
{{- define "cytomine-hub.labels" -}}
{{ include "cytomine-hub.selector" . }}
app.kubernetes.io/part-of: cytomine-hub
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of a pod: (list $ "component" extraLabels). No version: it would restart pods that did not change. */}}
{{- define "cytomine-hub.podLabels" -}}
{{ include "cytomine-hub.selector" . }}
app.kubernetes.io/part-of: cytomine-hub
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- with index . 2 }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels by which the notebooks' NetworkPolicies find them; the spawner sets them. */}}
{{- define "cytomine-hub.notebookSelector" -}}
app.kubernetes.io/component: singleuser-server
cytomine-spawner.org/hub: {{ .Release.Name }}
{{- end }}

{{/* An image's reference: (list $ .Values.hub.image). */}}
{{- define "cytomine-hub.image" -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default (index . 0).Chart.AppVersion -}}
{{- printf "%s%s%s" $image.name (hasPrefix "sha256:" $tag | ternary "@" ":") $tag -}}
{{- end }}

{{/* The chart's images that have a tag and no digest, as text. */}}
{{- define "cytomine-hub.unpinned" -}}
{{- $images := list .Values.hub.image .Values.proxy.image -}}
{{- if not .Values.singleuser.images }}{{ $images = append $images .Values.singleuser.image }}{{ end -}}
{{- if .Values.stacks.enabled }}{{ $images = append $images .Values.stacks.image }}{{ end -}}
{{- $found := list -}}
{{- range $images }}{{ $found = append $found (include "cytomine-hub.image" (list $ .)) }}{{ end -}}
{{- range .Values.singleuser.images }}{{ $found = append $found .image }}{{ end -}}
{{- $loose := list -}}
{{- range $found }}{{ if not (contains "@sha256:" .) }}{{ $loose = append $loose . }}{{ end }}{{ end -}}
{{- join ", " $loose -}}
{{- end }}

{{- define "cytomine-hub.serviceAccount" -}}
{{- if .Values.hub.serviceAccount.create -}}
{{ .Values.hub.serviceAccount.name | default (printf "%s-hub" (include "cytomine-hub.fullname" .)) }}
{{- else -}}
{{ .Values.hub.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Pods run as restricted Pod Security asks. */}}
{{- define "cytomine-hub.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "cytomine-hub.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods may run, and with which registry's credentials: (list $ .Values.hub). */}}
{{- define "cytomine-hub.placement" -}}
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1) }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The address that users type, without a slash at the end; empty if nobody said. */}}
{{- define "cytomine-hub.publicUrl" -}}
{{- if .Values.hub.publicUrl -}}
{{ .Values.hub.publicUrl | trimSuffix "/" }}
{{- else if and .Values.ingress.enabled .Values.ingress.host -}}
{{ printf "%s://%s" (ternary "https" "http" .Values.ingress.tls.enabled) .Values.ingress.host }}
{{- end }}
{{- end }}

{{/* Whether each user and each service has a host of its own: "true" or nothing. Also where an upgrade brought no value. */}}
{{- define "cytomine-hub.perUserHosts" -}}
{{- if ne (toString .Values.hub.perUserHosts) "false" -}}true{{- end -}}
{{- end }}

{{/* The hub's host, without a port. */}}
{{- define "cytomine-hub.host" -}}
{{- with include "cytomine-hub.publicUrl" . }}{{ (urlParse .).hostname }}{{ end -}}
{{- end }}

{{/* The origin of the page of stacks, as browsers know it: a host of its own, named as JupyterHub's hook does. */}}
{{- define "cytomine-hub.stacksOrigin" -}}
{{- $url := include "cytomine-hub.publicUrl" . }}
{{- if include "cytomine-hub.perUserHosts" . }}
{{- $parts := urlParse $url }}
{{- printf "%s://cytomine--service.%s" $parts.scheme $parts.host }}
{{- else }}
{{- $url }}
{{- end }}
{{- end }}

{{/* The hub, for the release's own pods. */}}
{{- define "cytomine-hub.hubUrl" -}}
http://{{ include "cytomine-hub.fullname" . }}-hub:8081
{{- end }}

{{/* The same for the pods of users: with its namespace where theirs is another. */}}
{{- define "cytomine-hub.hubUrlOfUsers" -}}
http://{{ include "cytomine-hub.fullname" . }}-hub{{ include "cytomine-hub.domainOfUsers" . }}:8081
{{- end }}

{{- define "cytomine-hub.proxyUrl" -}}
http://{{ include "cytomine-hub.fullname" . }}-proxy-public:{{ .Values.proxy.service.port }}
{{- end }}

{{/* The hub's Secret and the keys that are made for it. */}}
{{- define "cytomine-hub.secret" -}}
{{ .Values.secrets.existingSecret | default (printf "%s-secrets" (include "cytomine-hub.fullname" .)) }}
{{- end }}

{{- define "cytomine-hub.secretKeys" -}}
{{- $keys := list "cookie-secret" "crypt-key" "proxy-token" -}}
{{- range $name, $service := .Values.hub.services }}
{{- if not (hasKey $service "command") }}{{ $keys = append $keys (printf "service-token-%s" $name) }}{{ end }}
{{- end }}
{{- toJson $keys -}}
{{- end }}

{{/* The Secret with the stack service's token, which the hub knows too: one of its own, so that its pod has none of the hub's. */}}
{{- define "cytomine-hub.stacksSecret" -}}
{{ .Values.secrets.existingStacksSecret | default .Values.secrets.existingSecret | default (printf "%s-stacks-token" (include "cytomine-hub.fullname" .)) }}
{{- end }}

{{/* Whether the chart's Job makes it: "true" or nothing. */}}
{{- define "cytomine-hub.stacksSecretMade" -}}
{{- if and .Values.stacks.enabled (not .Values.secrets.existingSecret) (not .Values.secrets.existingStacksSecret) -}}true{{- end -}}
{{- end }}

{{/* Secrets that the administrator brings: file name to the Secret and its key. */}}
{{- define "cytomine-hub.ownSecrets" -}}
{{- $secret := include "cytomine-hub.secret" . -}}
{{- $own := dict -}}
{{- if eq .Values.authentication.type "lslogin" }}
{{- $login := .Values.lslogin }}
{{- $_ := set $own "oidc-client-secret" (ternary (dict "name" $login.clientSecretName "key" $login.clientSecretKey) (dict "name" $secret "key" "oidc-client-secret") (not (empty $login.clientSecretName))) }}
{{- end }}
{{- if eq .Values.hub.db.type "url" }}
{{- $url := .Values.hub.db.url }}
{{- $_ := set $own "database-url" (dict "name" ($url.secretName | default $secret) "key" $url.secretKey) }}
{{- end }}
{{- toJson $own -}}
{{- end }}

{{/* What must be said before anything is installed, each as one sentence. */}}
{{- define "cytomine-hub.check" -}}
{{- if and (eq .Values.authentication.type "lslogin") (not .Values.lslogin.clientId) }}
{{- fail "lslogin.clientId is not set: register the hub with LS Login and set lslogin.clientId and lslogin.clientSecretName, or set authentication.type to custom." }}
{{- end }}
{{- if and .Values.hub.serviceAccount (not .Values.hub.serviceAccount.create) (not .Values.hub.serviceAccount.name) }}
{{- fail "hub.serviceAccount.name is not set: name the account that you made, or let the chart make one with hub.serviceAccount.create." }}
{{- end }}
{{- if and .Values.ingress.tls.enabled (not .Values.ingress.host) .Values.ingress.enabled }}
{{- fail "ingress.host is not set: TLS needs the host name that the certificate is for." }}
{{- end }}
{{- if include "cytomine-hub.perUserHosts" . }}
{{- $host := include "cytomine-hub.host" . }}
{{- if not $host }}
{{- fail "hub.publicUrl is not set: each user has a host below the hub's (ada.hub.example.org), so the hub's must be known. Set hub.publicUrl or ingress.host, with a wildcard name in DNS (and in the certificate); for a trial, hub.perUserHosts can be set to false." }}
{{- end }}
{{- if or (regexMatch "^[0-9.]+$" $host) (contains ":" $host) }}
{{- fail (printf "hub.publicUrl: %s is no name that users' hosts can be below of (ada.hub.example.org). Give the hub a name, such as http://hub.localhost:8080 for a trial, or set hub.perUserHosts to false." $host) }}
{{- end }}
{{- if and .Values.stacks.enabled (hasSuffix (printf ".%s" $host) (urlParse (replace "{stack}" "stack" .Values.stacks.url)).hostname) }}
{{- fail (printf "stacks.url: %s is below the hub's host %s, where the users' hosts are. Give the stacks a domain of their own." .Values.stacks.url $host) }}
{{- end }}
{{- end }}
{{- if .Values.stacks.enabled }}
{{- if not .Values.stacks.url }}
{{- fail "stacks.url is not set: give the address of a stack, such as https://{stack}.stacks.example.org, whose wildcard name leads to the ingress." }}
{{- end }}
{{- if not (include "cytomine-hub.publicUrl" .) }}
{{- fail "hub.publicUrl is not set: browsers come from the stacks to the hub for the login, so its address must be known. Set hub.publicUrl or ingress.host." }}
{{- end }}
{{- if hasKey .Values.hub.services "cytomine" }}
{{- fail "hub.services.cytomine: with stacks.enabled this name is the chart's own; choose another one." }}
{{- end }}
{{- $names := list }}
{{- $placed := list }}
{{- range .Values.stacks.datasets }}
{{- $names = append $names .name }}
{{- if not .url }}{{ $placed = append $placed .name }}{{ end }}
{{- if and .secret (not .url) }}
{{- fail (printf "stacks.datasets: %s has a secret and no url, which says where the dataset is." .name) }}
{{- end }}
{{- end }}
{{- if ne (len $names) (len (uniq $names)) }}
{{- fail "stacks.datasets: a name is used more than once." }}
{{- end }}
{{- if and $placed (not .Values.stacks.datasetVolume) }}
{{- fail "stacks.datasetVolume is not set: say which volume holds the datasets of stacks.datasets, or give each a url." }}
{{- end }}
{{- end }}
{{- if gt (len .Release.Name) 40 }}
{{- fail (printf "The release's name %s is longer than 40 characters: choose a shorter one." .Release.Name) }}
{{- end }}
{{- range $name, $_ := .Values.hub.services }}
{{- if not (regexMatch "^[A-Za-z0-9][A-Za-z0-9._-]*$" $name) }}
{{- fail (printf "hub.services.%s: the name may hold letters, digits, dots, dashes and underscores." $name) }}
{{- end }}
{{- end }}
{{- end }}
