#!/usr/bin/env bash
# units.sh
# The units as files: systemd-analyze has nothing to say of them, their exposure is at most 2.0, and the instances' unit
# says what the plain one says. No running systemd is needed. Read etc/systemd/panelind.service first.
# shellcheck disable=SC1091,SC2015,SC2016,SC2034,SC2153
set -euo pipefail
. "$(dirname "$0")/../Environments/lib.sh"
command -v systemd-analyze >/dev/null || need_packages systemd

root=$(mktemp -d)
defer 'rm -rf --one-file-system "$root"'
mkdir -p "$root/etc/systemd/system" "$root/usr/lib/systemd" "$root/usr/bin"
cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/"
cp "$ROOT"/etc/systemd/*.service "$ROOT"/etc/systemd/*.socket "$root/etc/systemd/system/"
# A stub, so that only the units are judged.
cp /bin/true "$root/usr/bin/panelind"

# analyzed UNIT : what systemd-analyze says of it, which should be nothing.
analyzed() {
    systemd-analyze --root="$root" verify --man=no --recursive-errors=no "$1" 2>&1 | sed "s|$root/etc/systemd/system/||" || true
}
for unit in panelind.service panelind.socket panelind@api.service; do
    expect "systemd-analyze verify $unit" '' "$(analyzed "$unit")"
done
# The check can fail.
sed 's/^Restart=.*/Restart=sometimes/' "$ROOT/etc/systemd/panelind.service" >"$root/etc/systemd/system/wrong.service"
expect "a wrong value would be seen" '*restart*sometimes*' "$(analyzed wrong.service)"

for unit in panelind.service panelind@.service; do
    check "$unit: exposure at most 2.0" systemd-analyze security --offline=true --no-pager --threshold=20 "$ROOT/etc/systemd/$unit"
done

# said FILE : what the unit says, without comments and blank lines.
said() { grep -v -e '^#' -e '^$' "$1"; }
# has UNIT KEY VALUE : the unit says just this.
has() { expect "$1: $2=$3" "$2=$3" "$(said "$ROOT/etc/systemd/$1" | grep "^$2=")"; }
has panelind.service Type notify
has panelind.service Restart on-failure
has panelind.service StartLimitIntervalSec 0
has panelind.service RestartPreventExitStatus '64 78 126 127'
has panelind.service KillMode mixed
has panelind.service Delegate yes
has panelind.service DynamicUser yes
check "panelind.service: RestartSec= and WatchdogSec=" grep -c '^RestartSec=[0-9]\|^WatchdogSec=[0-9]' "$ROOT/etc/systemd/panelind.service"
budget=$(sed -n 's/^| `stop.budget` |[^|]*| `\([0-9]*\)s`.*/\1/p' "$ROOT/docs/settings.md")
stop=$(said "$ROOT/etc/systemd/panelind.service" | sed -n 's/^TimeoutStopSec=\([0-9]*\)s$/\1/p')
check "panelind.service: TimeoutStopSec=${stop}s is more than the budget of ${budget}s" test "${stop:-0}" -gt "${budget:-1000}"
expect "notify-reload is a drop-in for systemd 253 and later" 'Type=notify-reload' \
    "$(said "$ROOT/etc/systemd/panelind.service.d/notify-reload.conf" | grep '^Type=')"

plain=$(said "$ROOT/etc/systemd/panelind.service" | sed -e 's/supervisor of one HTTP worker/supervisor of the worker %i/' \
    -e 's|/etc/panelind/panelind.yaml|/etc/panelind/%i.yaml|' -e 's/^\(RuntimeDirectory\|User\)=panelind$/&-%i/')
expect "panelind@.service says the same" same "$(diff <(echo "$plain") <(said "$ROOT/etc/systemd/panelind@.service") && echo same)"
finish
