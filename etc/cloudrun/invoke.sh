#!/usr/bin/env bash
# invoke.sh
# Calls the private service with your identity: it must have roles/run.invoker on the service.
#
#   etc/cloudrun/invoke.sh PROJECT /ready
#   etc/cloudrun/invoke.sh PROJECT /quotes --json '{"product_id":"ISOPANEL_EPS_50mm","length_m":6,"width_m":10}'
#
# What follows the path goes to curl. With INVOKE_AS=ACCOUNT the token is that service account's.
# REGION and SERVICE change the names (us-central1, panelin-api).
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0; }
project=${1:?usage: invoke.sh PROJECT PATH [CURL-OPTION...]}
path=${2:?usage: invoke.sh PROJECT PATH [CURL-OPTION...]}
shift 2
region=${REGION:-us-central1}
service=${SERVICE:-panelin-api}

url=$(gcloud run services describe "$service" --project="$project" --region="$region" --format='value(status.url)')
if [ -n "${INVOKE_AS:-}" ]; then
    token=$(gcloud auth print-identity-token --impersonate-service-account="$INVOKE_AS" --audiences="$url")
else
    token=$(gcloud auth print-identity-token)
fi
# The token goes through standard input: an argument could be read by others.
printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl --config - --silent --show-error --fail-with-body "$@" "$url$path"
echo
