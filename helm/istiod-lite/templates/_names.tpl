{{/* Beside upstream's istiod it has another name, and no label by which istiod's Service would find it. */}}
{{- define "istiod.app" -}}
istiod{{ if .Values.waypointsOnly }}-lite{{ end }}
{{- end -}}

{{- define "istiod.name" -}}
{{ include "istiod.app" . }}{{ with .Values.revision }}-{{ . }}{{ end }}
{{- end -}}

{{/* The webhook's configuration, under Istio's name for it; nothing where it is switched off. */}}
{{- define "istiod.validator" -}}
{{- if and (dig "configValidation" true (.Values.global | default dict)) (not .Values.waypointsOnly) -}}
istio-validator{{ with .Values.revision }}-{{ . }}{{ end }}-{{ .Release.Namespace }}
{{- end -}}
{{- end -}}

{{- define "istiod.selector" -}}
app: {{ include "istiod.app" . }}
istio.io/rev: {{ .Values.revision | default "default" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
