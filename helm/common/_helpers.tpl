{{/* The image: a whole reference in `image`, or HUB/NAME:TAG. */}}
{{- define "ambit.image" -}}
{{- $global := .Values.global | default dict -}}
{{- $image := .Values.image | default "ambit" -}}
{{- if contains "/" $image -}}
{{- $image -}}
{{- else -}}
{{- $hub := .Values.hub | default $global.hub -}}
{{- $tag := .Values.tag | default $global.tag | default .Chart.AppVersion -}}
{{- with $hub }}{{ . }}/{{ end -}}{{ $image }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/* What is common to every pod: how the image is fetched. */}}
{{- define "ambit.pullPolicy" -}}
{{- .Values.imagePullPolicy | default (.Values.global | default dict).imagePullPolicy | default "IfNotPresent" -}}
{{- end -}}
{{- define "ambit.pullSecrets" -}}
{{- with .Values.imagePullSecrets | default (.Values.global | default dict).imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where istiod is. */}}
{{- define "ambit.istioNamespace" -}}
{{- .Values.istioNamespace | default (.Values.global | default dict).istioNamespace | default .Release.Namespace -}}
{{- end -}}

{{/* What the profile says, for all that was not set. */}}
{{- define "ambit.profile" -}}
{{- $name := .Values.profile | default (.Values.global | default dict).profile | default "default" -}}
{{- $profiles := .Files.Get "files/profiles.yaml" | fromYaml -}}
{{- if not (hasKey $profiles $name) -}}
{{- fail (printf "profile %q: there are %s" $name (keys $profiles | sortAlpha | join ", ")) -}}
{{- end -}}
{{- get $profiles $name | toYaml -}}
{{- end -}}

{{/* Log settings. */}}
{{- define "ambit.logEnv" -}}
{{- $global := .Values.global | default dict -}}
- name: RUST_LOG
  value: {{ .Values.logLevel | default $global.logLevel | default "info" | quote }}
- name: LOG_FORMAT
  value: {{ ternary "json" "plain" (or .Values.logAsJson $global.logAsJson | default false) | quote }}
{{- end -}}

{{/* Settings by name, as users give them. */}}
{{- define "ambit.env" -}}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "ambit.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: ambit
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Where pods may run. */}}
{{- define "ambit.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "ambit.networkPolicy" -}}
{{- if (((.Values.global | default dict).networkPolicy | default dict).enabled) | default false }}true{{ end -}}
{{- end -}}
