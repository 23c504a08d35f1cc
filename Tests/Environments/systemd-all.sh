#!/usr/bin/env bash
# systemd-all.sh
# One package in every environment with a systemd: 257 and 252 side by side, a worker that inherits the socket, then a whole machine.
# Read systemd.sh and machine.sh for what they show.
#
#   sudo Tests/Environments/systemd-all.sh     PANELIND_BIN_DIR: the build, if not .build/release
# shellcheck disable=SC1091,SC2015,SC2016,SC2034
set -euo pipefail
. "$(dirname "$0")/lib.sh"

need_packages binutils dpkg-dev python3
binaries=${PANELIND_BIN_DIR:-$ROOT/.build/release}
work=$(mktemp -d)
defer 'rm -rf --one-file-system "$work"'
PANELIND_DEB=$(BINARY="$binaries/panelind" "$ROOT/scripts/package" "$work")
export PANELIND_DEB

"$ENV_DIR/systemd.sh" bookworm >"$work/bookworm.log" 2>&1 &
other=$!
"$ENV_DIR/systemd.sh" trixie || bad "systemd.sh trixie"
wait "$other" || bad "systemd.sh bookworm"
cat "$work/bookworm.log"
PANELIND_TEST_MODE=socket "$ENV_DIR/systemd.sh" trixie start reload sockets || bad "systemd.sh trixie in socket mode"
"$ENV_DIR/machine.sh" || bad "machine.sh"
finish
