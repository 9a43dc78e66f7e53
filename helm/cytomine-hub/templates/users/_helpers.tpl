{{/* The namespace of notebooks and stacks. Also where an upgrade brought no value (--reuse-values). */}}
{{- define "cytomine-hub.usersNamespace" -}}
{{- dig "users" "namespace" "" .Values.AsMap | default (printf "%s-users" .Release.Namespace) -}}
{{- end }}

{{/* Whether it is another one than the hub's: "true" or nothing. */}}
{{- define "cytomine-hub.apart" -}}
{{- if ne (include "cytomine-hub.usersNamespace" .) .Release.Namespace -}}true{{- end -}}
{{- end }}

{{/* What follows the name of a Service of the release where pods of users call it. Nothing where all are in one namespace: what
     stacks and notebooks were started with stays as it is. */}}
{{- define "cytomine-hub.domainOfUsers" -}}
{{- if include "cytomine-hub.apart" . }}.{{ .Release.Namespace }}.svc{{ end -}}
{{- end }}

{{/* Whether the chart makes it: "true" or nothing. */}}
{{- define "cytomine-hub.usersNamespaceMade" -}}
{{- if and (include "cytomine-hub.apart" .) (dig "users" "createNamespace" true .Values.AsMap) -}}true{{- end -}}
{{- end }}

{{/* Whether nobody said where users shall be: what an earlier release left is then looked for. "true" or nothing. */}}
{{- define "cytomine-hub.usersNamespaceGuessed" -}}
{{- if not (dig "users" "namespace" "" .Values.AsMap) -}}true{{- end -}}
{{- end }}

{{/* What users have in the hub's own namespace, as a few words; nothing without a cluster, or where that is their namespace. */}}
{{- define "cytomine-hub.leftBehind" -}}
{{- if include "cytomine-hub.apart" . }}
{{- $stacks := 0 }}{{ $volumes := 0 }}{{ $notebooks := 0 }}
{{- if .Capabilities.APIVersions.Has "cytomine-spawner.org/v1alpha1/CytomineStack" }}
{{- $stacks = len ((lookup "cytomine-spawner.org/v1alpha1" "CytomineStack" .Release.Namespace "").items | default list) }}
{{- end }}
{{- range (lookup "v1" "PersistentVolumeClaim" .Release.Namespace "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if or (eq (toString (index $labels "cytomine-spawner.org/hub")) $.Release.Name) (eq (toString (index $labels "app.kubernetes.io/managed-by")) "cytomine-stacks") }}
{{- $volumes = add $volumes 1 }}
{{- end }}
{{- end }}
{{- range (lookup "v1" "Pod" .Release.Namespace "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if eq (toString (index $labels "cytomine-spawner.org/hub")) $.Release.Name }}{{ $notebooks = add $notebooks 1 }}{{ end }}
{{- end }}
{{- $words := list }}
{{- range list (list $stacks "stacks") (list $volumes "volumes of users") (list $notebooks "notebooks") }}
{{- if gt (int (first .)) 0 }}{{ $words = append $words (printf "%s (%d)" (last .) (int (first .))) }}{{ end }}
{{- end }}
{{- join ", " $words -}}
{{- end }}
{{- end }}

{{/* What must be said of it before anything is installed, each as one sentence. */}}
{{- define "cytomine-hub.checkUsers" -}}
{{- $name := include "cytomine-hub.usersNamespace" . }}
{{- if gt (len $name) 63 }}
{{- fail (printf "users.namespace: %s is longer than 63 characters; give the namespace of notebooks and stacks another name." $name) }}
{{- end }}
{{- if include "cytomine-hub.usersNamespaceGuessed" . }}
{{- with include "cytomine-hub.leftBehind" . | trim }}
{{- fail (printf "users.namespace is not set, and the namespace %s of the hub holds %s from when all was in one namespace: in the new one, %s, nobody would find them. Set users.namespace to %s to leave all where it is; docs/administrators says how to move it." $.Release.Namespace . $name $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- if include "cytomine-hub.usersNamespaceMade" . }}
{{- with lookup "v1" "Namespace" "" $name }}
{{- $notes := .metadata.annotations | default dict }}
{{- if or (ne (toString (index $notes "meta.helm.sh/release-name")) $.Release.Name) (ne (toString (index $notes "meta.helm.sh/release-namespace")) $.Release.Namespace) }}
{{- fail (printf "users.namespace: the namespace %s is there already and is not this release's. Set users.createNamespace to false to use it, or users.namespace to another name." $name) }}
{{- end }}
{{- end }}
{{- if eq (toString (dig "users" "podSecurity" "restricted" .Values.AsMap)) "restricted" }}
{{- $allowed := list "name" "configMap" "csi" "downwardAPI" "emptyDir" "ephemeral" "persistentVolumeClaim" "projected" "secret" }}
{{- range $key, $_ := .Values.stacks.datasetVolume }}
{{- if not (has $key $allowed) }}
{{- fail (printf "stacks.datasetVolume: the Pod Security Standard restricted, which users.podSecurity sets, forbids pods a volume %s. Make a PersistentVolume of it and name its claim (persistentVolumeClaim), or set users.podSecurity to baseline." $key) }}
{{- end }}
{{- end }}
{{- range .Values.singleuser.extraVolumes }}
{{- range $key, $_ := . }}
{{- if not (has $key $allowed) }}
{{- fail (printf "singleuser.extraVolumes: the Pod Security Standard restricted, which users.podSecurity sets, forbids pods a volume %s. Make a PersistentVolume of it and name its claim (persistentVolumeClaim), or set users.podSecurity to baseline." $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What notebooks and stacks name and therefore must be in their namespace, as text. */}}
{{- define "cytomine-hub.usersNeed" -}}
{{- $needs := list }}
{{- range .Values.imagePullSecrets }}{{ $needs = append $needs (printf "the Secret %s" .name) }}{{ end }}
{{- range .Values.singleuser.extraEnv }}
{{- if kindIs "map" . }}
{{- with dig "valueFrom" "secretKeyRef" "name" "" . }}{{ $needs = append $needs (printf "the Secret %s" .) }}{{ end }}
{{- with dig "valueFrom" "configMapKeyRef" "name" "" . }}{{ $needs = append $needs (printf "the ConfigMap %s" .) }}{{ end }}
{{- end }}
{{- end }}
{{- range .Values.singleuser.extraVolumes }}
{{- with dig "persistentVolumeClaim" "claimName" "" . }}{{ $needs = append $needs (printf "the claim %s" .) }}{{ end }}
{{- with dig "secret" "secretName" "" . }}{{ $needs = append $needs (printf "the Secret %s" .) }}{{ end }}
{{- with dig "configMap" "name" "" . }}{{ $needs = append $needs (printf "the ConfigMap %s" .) }}{{ end }}
{{- end }}
{{- if .Values.stacks.enabled }}
{{- with dig "persistentVolumeClaim" "claimName" "" .Values.stacks.datasetVolume }}{{ $needs = append $needs (printf "the claim %s" .) }}{{ end }}
{{- range .Values.stacks.datasets }}{{ with .secret }}{{ $needs = append $needs (printf "the Secret %s" .) }}{{ end }}{{ end }}
{{- with .Values.stacks.ingress.tlsSecretName }}{{ $needs = append $needs (printf "the Secret %s (there and here)" .) }}{{ end }}
{{- end }}
{{- join ", " (uniq $needs) -}}
{{- end }}
