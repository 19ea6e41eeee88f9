{{- define "istiod.name" -}}
istiod{{ with .Values.revision }}-{{ . }}{{ end }}
{{- end -}}

{{- define "istiod.selector" -}}
app: istiod
istio.io/rev: {{ .Values.revision | default "default" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
