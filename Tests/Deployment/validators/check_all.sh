#!/bin/sh
# check_all.sh
# Everything about the deployment that can be judged without a cloud: schemas, PromQL, gcloud's own parser, shell. Units: units.sh.
# Files are found by name, so a new one is judged too; exits non-zero if any check complains.
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
"$root/scripts/setup" deployment || exit 2
cd "$root" || exit 2
bin=$root/.venv/deployment/bin rc=0
each() { # each FIND-EXPRESSION -- COMMAND: runs COMMAND once with all files found, if any
  expr=$1; shift
  files=$(eval "find . \( -name .git -o -name .build -o -name .venv \) -prune -o -type f \( $expr \) -print" | sort)
  # shellcheck disable=SC2086
  [ -z "$files" ] || "$@" $files || rc=1
}
each '-name "cloudbuild*.y*ml"' "$here/check_cloudbuild.py"
each '-path "./etc/*" -name "service*.y*ml"' "$here/check_service.py"
each '-path "./etc/*" \( -path "*alert*" -o -path "*uptime*" -o -path "*dashboard*" -o -path "*metrics*" \) \( -name "*.json" -o -name "*.y*ml" \) ! -path "*prom*"' "$here/check_monitoring.py"
each '-path "*prom*" -name "*.y*ml" ! -name "*test*"' "$bin/promtool" check rules --lint=all --lint-fatal
each '-path "*prom*" -name "*test*.y*ml"' "$bin/promtool" test rules
each '-name "*.sh" -o -name "*.md" -o -name "cloudbuild*.y*ml"' "$here/check_shell.py"
each '-name Dockerfile -o -name "Dockerfile.*"' "$here/check_dockerfile.py"
each '-name "*.yaml" -o -name "*.yml"' "$bin/python" -m yamllint --strict -d '{extends: default, rules: {line-length: {max: 160}, document-start: disable, comments: disable}}'
exit $rc
