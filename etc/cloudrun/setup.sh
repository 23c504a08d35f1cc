#!/usr/bin/env bash
# setup.sh
# Makes what cloudbuild.yaml and the service need in a Google Cloud project, once: APIs, image repository, service accounts
# with the least they need, the secret. Run it again at any time: what is there stays.
#
#   printf %s "$API_KEY" | etc/cloudrun/setup.sh PROJECT
#
# The value of the secret comes from standard input, or is asked for on a terminal; it is read only while there is none.
# REGION, SERVICE, REPOSITORY and SECRET change the names (us-central1, panelin-api, panelin, panelin-api-key).
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '3,9s/^# \{0,1\}//p' "$0"; exit 0; }
project=${1:?usage: setup.sh PROJECT}
region=${REGION:-us-central1}
service=${SERVICE:-panelin-api}
repository=${REPOSITORY:-panelin}
secret=${SECRET:-panelin-api-key}
domain=$project.iam.gserviceaccount.com
common=(--project="$project" --quiet)
cd "$(dirname "$0")/../.."

say() { printf '== %s\n' "$*"; }

# Whether a thing exists. Why it could not be seen is said by the command that then makes it.
has() { "$@" "${common[@]}" >/dev/null 2>&1; }

# A new account is not known everywhere at once: what refers to it may have to be said again.
bind() {
    local try
    for try in 1 2 3 4 5; do
        if "$@" "${common[@]}" >/dev/null; then return 0; fi
        [ "$try" = 5 ] || { echo "trying again" >&2; sleep "${RETRY_SECONDS:-5}"; }
    done
    return 1
}

account() {
    if has gcloud iam service-accounts describe "$1@$domain"; then
        say "service account $1 is there"
    else
        say "making service account $1: $2"
        gcloud iam service-accounts create "$1" --display-name="$2" "${common[@]}"
    fi
}

say "enabling the APIs in $project"
# Before anything that uses them.
gcloud services enable run.googleapis.com cloudbuild.googleapis.com artifactregistry.googleapis.com \
    secretmanager.googleapis.com iam.googleapis.com iamcredentials.googleapis.com monitoring.googleapis.com \
    logging.googleapis.com "${common[@]}"

if has gcloud artifacts repositories describe "$repository" --location="$region"; then
    say "image repository $repository is there"
else
    say "making image repository $repository in $region"
    gcloud artifacts repositories create "$repository" --repository-format=docker --location="$region" \
        --description="Images of $service" "${common[@]}"
fi
say "old images go after 30 days; the newest 20 stay, so that a rollback finds its own"
gcloud artifacts repositories set-cleanup-policies "$repository" --location="$region" \
    --policy=etc/cloudrun/cleanup-policy.json --no-dry-run "${common[@]}" >/dev/null

account "$service" "Runs the service"
account panelin-deployer "Builds and deploys it"
account panelin-smoke "Asks a new revision before it gets traffic"

say "the deployer may push images, deploy as the runtime account, write logs, read what a build uploads"
bind gcloud artifacts repositories add-iam-policy-binding "$repository" --location="$region" \
    --member="serviceAccount:panelin-deployer@$domain" --role=roles/artifactregistry.writer
bind gcloud iam service-accounts add-iam-policy-binding "$service@$domain" \
    --member="serviceAccount:panelin-deployer@$domain" --role=roles/iam.serviceAccountUser
for role in roles/run.developer roles/logging.logWriter; do
    bind gcloud projects add-iam-policy-binding "$project" --condition=None \
        --member="serviceAccount:panelin-deployer@$domain" --role="$role"
done
# Where `gcloud builds submit` puts the sources.
if ! has gcloud storage buckets describe "gs://${project}_cloudbuild"; then
    gcloud storage buckets create "gs://${project}_cloudbuild" --location="$region" --uniform-bucket-level-access \
        "${common[@]}"
fi
bind gcloud storage buckets add-iam-policy-binding "gs://${project}_cloudbuild" \
    --member="serviceAccount:panelin-deployer@$domain" --role=roles/storage.objectViewer

say "the smoke test may call services, and only the deployer may speak for it"
# On the project: the service does not exist before its first deployment, and the deployer may not say who calls it.
bind gcloud projects add-iam-policy-binding "$project" --condition=None \
    --member="serviceAccount:panelin-smoke@$domain" --role=roles/run.invoker
bind gcloud iam service-accounts add-iam-policy-binding "panelin-smoke@$domain" \
    --member="serviceAccount:panelin-deployer@$domain" --role=roles/iam.serviceAccountOpenIdTokenCreator

if has gcloud secrets describe "$secret"; then
    say "secret $secret is there"
else
    say "making secret $secret"
    gcloud secrets create "$secret" --replication-policy=automatic "${common[@]}"
fi
say "the runtime account may read $secret, and nothing else in the project"
bind gcloud secrets add-iam-policy-binding "$secret" \
    --member="serviceAccount:$service@$domain" --role=roles/secretmanager.secretAccessor
versions=$(gcloud secrets versions list "$secret" --filter=state=ENABLED --limit=1 --format='value(name)' "${common[@]}")
if [ -n "$versions" ]; then
    say "$secret has a value already; docs/runbook.md says how to rotate it"
else
    if [ -t 0 ]; then
        read -rsp "Value of $secret (not shown): " value
        echo
    else
        # Newlines at the end are dropped, as panelind would.
        value=$(cat)
    fi
    [ -n "$value" ] || {
        echo "cannot store $secret: nothing on standard input; printf %s VALUE | etc/cloudrun/setup.sh $project" >&2
        exit 1
    }
    say "storing the value of $secret"
    # From standard input to standard input: never an argument, never a file.
    printf %s "$value" | gcloud secrets versions add "$secret" --data-file=- "${common[@]}"
fi

say "done. Next: gcloud builds submit --project=$project --config=cloudbuild.yaml ."
