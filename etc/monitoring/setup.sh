#!/usr/bin/env bash
# setup.sh
# Makes the alerts, log-based metrics, dashboard and uptime check of panelin-api, or brings them up to date.
# Run it after the first deployment: the uptime check wants the address of the service.
#
#   etc/monitoring/setup.sh PROJECT [CHANNEL...]
#
# CHANNEL: who is told, as gcloud beta monitoring channels list --format='value(name)' prints it. Alerts that exist keep
# theirs. REGION and SERVICE change the names (us-central1, panelin-api); the service's name is also in the files.
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0; }
project=${1:?usage: setup.sh PROJECT [CHANNEL...]}
shift
region=${REGION:-us-central1}
service=${SERVICE:-panelin-api}
common=(--project="$project" --quiet)
cd "$(dirname "$0")/../.."

say() { printf '== %s\n' "$*"; }
named() { sed -n 's/^\(name\|displayName\): *//p' "$1" | head -n 1; }

for file in etc/monitoring/metrics/*.yaml; do
    metric=$(named "$file")
    if gcloud logging metrics describe "$metric" "${common[@]}" >/dev/null 2>&1; then
        say "updating the metric $metric"
        gcloud logging metrics update "$metric" --config-from-file="$file" "${common[@]}"
    else
        say "making the metric $metric"
        gcloud logging metrics create "$metric" --config-from-file="$file" "${common[@]}"
    fi
done

channels=()
for channel; do channels+=(--notification-channels="$channel"); done
for file in etc/monitoring/alerts/*.yaml; do
    alert=$(named "$file")
    policy=$(gcloud alpha monitoring policies list --filter="displayName=\"$alert\"" --format='value(name)' "${common[@]}")
    if [ -n "$policy" ]; then
        say "updating the alert $alert"
        # The file replaces the policy; its channels are given back.
        told=$(gcloud alpha monitoring policies describe "$policy" --format='value[delimiter=","](notificationChannels)' \
            "${common[@]}")
        gcloud alpha monitoring policies update "$policy" --policy-from-file="$file" \
            --set-notification-channels="$told" "${common[@]}"
    else
        say "making the alert $alert"
        gcloud alpha monitoring policies create --policy-from-file="$file" "${channels[@]}" "${common[@]}"
    fi
done

dashboard=$(gcloud monitoring dashboards list --filter="displayName=\"$service\"" --format='value(name)' "${common[@]}")
if [ -n "$dashboard" ]; then
    say "the dashboard $service is there; delete it to have it made anew"
else
    say "making the dashboard $service"
    gcloud monitoring dashboards create --config-from-file=etc/monitoring/dashboards/panelin-api.json "${common[@]}"
fi

check=$(gcloud monitoring uptime list-configs --filter="displayName=\"$service\"" --format='value(name)' "${common[@]}")
if [ -n "$check" ]; then
    say "the uptime check $service is there"
else
    url=$(gcloud run services describe "$service" --region="$region" --format='value(status.url)' "${common[@]}")
    number=$(gcloud projects describe "$project" --format='value(projectNumber)')
    say "letting Monitoring's own account call $service"
    gcloud beta services identity create --service=monitoring.googleapis.com "${common[@]}"
    gcloud run services add-iam-policy-binding "$service" --region="$region" --role=roles/run.invoker \
        --member="serviceAccount:service-$number@gcp-sa-monitoring-notification.iam.gserviceaccount.com" "${common[@]}" \
        >/dev/null
    say "making the uptime check of $url/ready"
    # Every five minutes: a service that scales to zero is woken by each question.
    gcloud monitoring uptime create "$service" --resource-type=uptime-url \
        --resource-labels="host=${url#https://},project_id=$project" \
        --protocol=https --path=/ready --period=5 --timeout=10 \
        --status-classes=2xx --validate-ssl=true --service-agent-auth=oidc-token "${common[@]}"
fi
say "done"
