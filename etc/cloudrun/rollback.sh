#!/usr/bin/env bash
# rollback.sh
# Gives all traffic to an earlier revision: REVISION, or the newest good one before the one that serves now.
# Good: it became ready, and it is no candidate whose build failed (those keep their tag candidate-…).
#
#   etc/cloudrun/rollback.sh PROJECT [REVISION]
#
# The traffic is pinned then. The next build by cloudbuild.yaml moves it to its own revision; after a plain
# `gcloud run deploy` it is moved by: gcloud run services update-traffic panelin-api --region=us-central1 --to-latest
# REGION and SERVICE change the names (us-central1, panelin-api).
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '3,10s/^# \{0,1\}//p' "$0"; exit 0; }
project=${1:?usage: rollback.sh PROJECT [REVISION]}
revision=${2:-}
region=${REGION:-us-central1}
service=${SERVICE:-panelin-api}
common=(--project="$project" --region="$region")

described=$(gcloud run services describe "$service" "${common[@]}" --format=json)
listed=$(gcloud run revisions list --service="$service" "${common[@]}" --format=json)
# Prints the revision that serves now, and the one to go back to.
chosen=$(python3 - "$revision" 3<<<"$described" 4<<<"$listed" <<'PYTHON'
import json
import os
import sys

wanted = sys.argv[1]
service, revisions = (json.load(os.fdopen(number)) for number in (3, 4))
traffic = service["status"].get("traffic", [])
shares = {}
for target in traffic:
    shares[target["revisionName"]] = shares.get(target["revisionName"], 0) + target.get("percent", 0)
serving = max(shares, key=shares.get, default="none")
candidates = {target["revisionName"] for target in traffic if target.get("tag", "").startswith("candidate-")}


def name(revision):
    return revision["metadata"]["name"]


def born(revision):
    return revision["metadata"]["creationTimestamp"]


def is_ready(revision):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in revision["status"].get("conditions", []))


revisions.sort(key=born, reverse=True)
if wanted:
    found = next((r for r in revisions if name(r) == wanted), None)
    if found is None:
        sys.exit(f"cannot go back to {wanted}: no such revision; there are {', '.join(map(name, revisions)) or 'none'}")
    if not is_ready(found):
        sys.exit(f"cannot go back to {wanted}: it never became ready; name another")
else:
    now = next((born(r) for r in revisions if name(r) == serving), "9999")
    good = [r for r in revisions if born(r) < now and is_ready(r) and name(r) not in candidates]
    if not good:
        sys.exit(f"cannot go back: no good revision is older than {serving}; name one, or build anew")
    wanted = name(good[0])
print(serving, wanted)
PYTHON
)
read -r serving revision <<<"$chosen"
if [ "$serving" = "$revision" ]; then
    echo "$revision serves already"
    exit 0
fi
echo "moving all traffic of $service in $region from $serving to $revision"
gcloud run services update-traffic "$service" "${common[@]}" --to-revisions="$revision=100" --quiet
echo "$service is pinned to $revision until the next build moves it, or:"
echo "  gcloud run services update-traffic $service --project=$project --region=$region --to-latest"
