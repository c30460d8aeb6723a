{{- define "sluice.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sluice.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* The settings. `./check` hands what this gives to `sluice config check`. */}}
{{- define "sluice.settings" -}}
[tenant]
id = {{ .Values.settings.tenant.id | quote }}
base_url = {{ .Values.settings.tenant.baseUrl | quote }}

[listen]
fhir = "0.0.0.0:8443"
admin = "0.0.0.0:9464"
drain_timeout = "{{ .Values.drainSeconds }}s"
{{- if .Values.operator.tokenSecret }}
operator_token_sha256_file = "/etc/sluice/operator/token.sha256"
{{- end }}

[listen.tls]
cert_file = "/etc/sluice/tls/tls.crt"
key_file = "/etc/sluice/tls/tls.key"
{{- if .Values.tls.clientCaSecret }}
client_ca_file = "/etc/sluice/client-ca/ca.crt"
{{- end }}

[keys]
dir = "/etc/sluice/keys"
group_readable = true

[store]
dir = "/var/lib/sluice/store"
keystore_dir = "/var/lib/sluice-keystore/keys"
spool_dir = "/var/spool/sluice"

{{- /* A table can stand only once in TOML: what is said of the ledger in `extra` replaces this. */}}
{{- if not (regexMatch "(?m)^\\[ledger\\]" .Values.settings.extra) }}

[ledger]
dir = "/var/lib/sluice/ledger"
{{- end }}
{{- with .Values.settings.extra }}

{{ . | trim }}
{{- end }}
{{- end }}
