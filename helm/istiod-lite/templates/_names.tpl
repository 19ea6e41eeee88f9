{{- define "istiod.name" -}}
istiod{{ with .Values.revision }}-{{ . }}{{ end }}
{{- end -}}

{{/* The webhook's configuration, under Istio's name for it; nothing where it is switched off. */}}
{{- define "istiod.validator" -}}
{{- if dig "configValidation" true (.Values.global | default dict) -}}
istio-validator{{ with .Values.revision }}-{{ . }}{{ end }}-{{ .Release.Namespace }}
{{- end -}}
{{- end -}}

{{- define "istiod.selector" -}}
app: istiod
istio.io/rev: {{ .Values.revision | default "default" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
