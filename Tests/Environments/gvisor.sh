#!/usr/bin/env bash
# gvisor.sh
# panelind as PID 1 under gVisor, where pidfd, clone3 and /proc/*/task/*/children are missing (Cloud Run's first
# generation): it serves, restarts after a crash, sweeps what a worker left, and stops with 0. Read gvisor-lib.sh first.
#
#   sudo Tests/Environments/gvisor.sh          PANELIND_BIN_DIR: where the release build is, if not in .build/release
# shellcheck disable=SC1091,SC2015,SC2016,SC2034
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$ENV_DIR/gvisor-lib.sh"

need_packages gcc libc6-dev curl jq python3
gv_prepare
binaries=${PANELIND_BIN_DIR:-$ROOT/.build/release}
[ -x "$binaries/panelind" ] && [ -x "$binaries/scripted-worker" ] || "$ROOT/scripts/build" release
[ -x "$binaries/panelind" ] || die "$binaries/panelind is not built"

work=$(mktemp -d)
defer 'rm -rf --one-file-system "$work"'
defer 'if [ "$FAILED" -gt 0 ]; then tail -n 40 "$work"/*.log >&2; fi'

image() {
    with_libraries "$binaries/panelind" "$1/rootfs"
    with_libraries "$binaries/scripted-worker" "$1/rootfs"
    mkdir -p "$1/rootfs/etc"
    printf 'root:x:0:0::/:/none\nagent:x:1000:1000::/:/none\n' >"$1/rootfs/etc/passwd"
    printf 'root:x:0:\nagent:x:1000:\n' >"$1/rootfs/etc/group"
}

get() { curl -fsS --max-time 5 --noproxy '*' "http://127.0.0.1:$1$2"; }
# event NAME [JQ-CONDITION] : whether the current log has such a record.
event() { jq -es --arg name "$1" "any(.[]; .event == \$name and (${2:-true}))" "$log" >/dev/null; }
generation_is() { [ "$(get "$sidecar" /ready | jq .generation)" = "$1" ]; }

# begin NAME SETTING... -- WORKER-STEP... : panelind as PID 1 in a sandbox of its own, in the background.
begin() {
    local settings=() setting dir
    name=$1-$$
    dir=$work/$1
    log=$work/$1.log
    shift
    port=$(free_port)
    sidecar=$(free_port)
    while [ "$1" != -- ]; do settings+=(--set "$1"); shift; done
    shift
    image "$dir"
    gv_bundle "$dir" 1000 PORT="$port" K_SERVICE=agent K_REVISION=agent-00001 -- \
        /panelind run --set control.path=none --set "sidecar.listen=127.0.0.1:$sidecar" \
        "${settings[@]}" -- /scripted-worker "$@"
    gv_run "$name" "$dir" >"$log" 2>&1 &
    runner=$!
    defer "gv delete -force $name >/dev/null 2>&1"
}

# stop WITHIN-SECONDS : SIGTERM to PID 1, which must end with 0 in time.
stop() {
    local start=$SECONDS status=0
    gv_signal "$name" TERM
    wait "$runner" || status=$?
    expect "SIGTERM ends PID 1 with 0" 0 "$status"
    [ $((SECONDS - start)) -le "$1" ] && ok "within $1 s" || bad "it took $((SECONDS - start)) s"
    expect "the log ends with panelind_stopped" panelind_stopped "$(tail -n 1 "$log" | jq -r .event)"
}

say "what this kernel has not: $(runsc --version | head -1), $GV_PLATFORM"
cat >"$work/missing.c" <<'C'
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    printf("pidfd_open %s\n", syscall(SYS_pidfd_open, getpid(), 0) < 0 ? "no" : "yes");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    printf("children %s\n", access(path, R_OK) ? "no" : "yes");
}
C
mkdir -p "$work/missing/rootfs"
gcc -static -o "$work/missing/rootfs/missing" "$work/missing.c"
gv_bundle "$work/missing" 1000 -- /missing
note "$(gv_run "missing-$$" "$work/missing" 2>&1 | paste -sd' ')"

say "direct mode: serves, restarts, sweeps"
begin direct restart.delay=100ms stop.budget=6s stop.delay=0s -- \
    listen env setsid-child begin ignore TERM tag left-behind end
check "/ready on loopback" retry 60 get "$sidecar" /ready
check "the worker answers" get "$port" /
expect "panelind is PID 1" 1 "$(jq -s 'map(select(.event == "panelind_started"))[0].pid' "$log")"
expect "the revision is known" '"agent-00001"' "$(get "$sidecar" /health | jq .revision)"
get "$port" /crash >/dev/null 2>&1 || true
check "a crash brings the next worker" retry 60 generation_is 2
check "the crash is named" event worker_exited '.generation == 1 and .cause == "signal"'
check "what it left was killed before" event worker_killed_survivors '.generation == 1'
check "the next worker answers" get "$port" /
stop 7
check "the end was requested" event worker_exited '.generation == 2 and .cause == "requested"'
check "what ignored TERM was killed" event worker_killed_survivors '.generation == 2'
if event worker_survivors_left; then bad "survivors were left"; else ok "no survivor was left"; fi

say "socket mode: nothing is refused while the worker is away"
begin socket serve.mode=socket "serve.listen=127.0.0.1:\${PORT}" restart.delay=1s restart.jitter=0 -- \
    listen activated on TERM exit 0
check "/ready on loopback" retry 60 get "$sidecar" /ready
get "$port" /crash >/dev/null 2>&1 || true
check "a request waits for the next worker" curl -fsS --max-time 60 --noproxy '*' "http://127.0.0.1:$port/pid"
check "generation 2 is ready" retry 60 generation_is 2
stop 7

say "by notifications, and the probe command"
begin notify probe.readiness.notify=true -- notify READY=1 listen env
check "READY=1 is heard" retry 60 get "$sidecar" /ready
gv exec "$name" /panelind probe "http://127.0.0.1:$sidecar/ready" >/dev/null 2>&1 && ok "panelind probe" || bad "panelind probe"
stop 7

finish
