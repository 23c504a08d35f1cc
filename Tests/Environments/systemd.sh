#!/usr/bin/env bash
# systemd.sh
# The package under a real systemd as PID 1: installed, configured, started, reloaded and restarted under load, hung,
# killed, activated by its socket, upgraded, purged. Read systemd-lib.sh and etc/systemd/panelind.service first.
#
#   sudo Tests/Environments/systemd.sh [trixie|bookworm [PART]...]     systemd 257 or 252; PART as in systemd-parts.sh
#   PANELIND_BIN_DIR   the build, if not .build/release      PANELIND_DEB   the package, if it is made already
#   PANELIND_TEST_MODE front (default) or socket             PANELIND_TEST_KEEP=1 waits at the end, for a look inside
# shellcheck disable=SC1091,SC2015,SC2016,SC2034
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$ENV_DIR/debian-lib.sh"
. "$ENV_DIR/systemd-lib.sh"

suite=${1:-trixie}
mode=${PANELIND_TEST_MODE:-front}
need_packages binutils dpkg-dev curl jq python3
binaries=${PANELIND_BIN_DIR:-$ROOT/.build/release}
[ -x "$binaries/panelind" ] && [ -x "$binaries/scripted-worker" ] || "$ROOT/scripts/build" release
sd_prepare "$suite"
deb=${PANELIND_DEB:-$(BINARY="$binaries/panelind" "$ROOT/scripts/package" "$SD_WORK")}
cp "$deb" "$SD_ROOT/root/panelind.deb"
install -D -m 755 "$binaries/scripted-worker" "$SD_ROOT/srv/agent/worker"
(umask 077; echo s3cret >"$SD_ROOT/etc/agent.key")
defer 'if [ "$FAILED" -gt 0 ]; then sd_exec journalctl --no-pager -n 80 -o short-monotonic -u "panelind*" >&2; fi'
. "$ENV_DIR/systemd-words.sh"
. "$ENV_DIR/systemd-parts.sh"

exec 3>&1
say "systemd of $suite, $mode mode"
sd_boot
version=$(sd_exec systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')

shift || true
[ $# -gt 0 ] || set -- unconfigured start journal reload harmless watchdogs killed stop never_ready exits sockets instances upgrade
part_install
for part; do "part_$part"; done
[ -z "${PANELIND_TEST_KEEP:-}" ] || { note "inside: nsenter --all --target $SD_LEADER bash"; read -r _; }
part_purge
finish
