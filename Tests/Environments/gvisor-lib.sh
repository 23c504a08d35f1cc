# gvisor-lib.sh
# gVisor's runsc as a stand-in for Cloud Run's first generation. Source lib.sh first.
# Only the ptrace platform: Debian 12's runsc (December 2022) has no systrap, and its kvm hangs on some machines.
# shellcheck shell=bash disable=SC2016,SC2034
#
#   gv_prepare                     installs runsc
#   gv_bundle DIR UID ENV... -- PROGRAM ARG...
#                                  writes DIR/config.json for the root file system in DIR/rootfs (the program is PID 1)
#   gv_run NAME DIR                runs it in the foreground
#   gv_signal NAME SIGNAL          e.g. gv_signal NAME TERM
#
# GV_NETWORK=host shares the machine's loopback. This runsc then returns EAGAIN from read(2) on an accepted blocking
# socket: programs under test must poll first.

GV_PLATFORM=${PANELIND_RUNSC_PLATFORM:-ptrace}
GV_NETWORK=${GV_NETWORK:-host}

gv_prepare() {
    need_root
    need_packages runsc jq
    GV_STATE=$(mktemp -d)
    defer 'rm -rf --one-file-system "$GV_STATE"'
}

gv_bundle() {
    local dir=$1 uid=$2 env=()
    shift 2
    while [ "$1" != -- ]; do env+=("$1"); shift; done
    shift
    mkdir -p "$dir"/rootfs/{proc,dev,sys,tmp,etc,run}
    # Host networking means: no network namespace of its own.
    jq -n --argjson uid "$uid" --arg network "$GV_NETWORK" \
        --argjson env "$(printf '%s\n' PATH=/usr/local/bin:/usr/bin:/bin "${env[@]}" | jq -R . | jq -s .)" \
        --argjson args "$(printf '%s\n' "$@" | jq -R . | jq -s .)" '{
      ociVersion: "1.0.0",
      process: {user: {uid: $uid, gid: $uid}, args: $args, env: $env, cwd: "/", capabilities: {}, noNewPrivileges: true},
      root: {path: "rootfs", readonly: true},
      hostname: "gvisor",
      mounts: [
        {destination: "/proc", type: "proc", source: "proc"},
        {destination: "/dev", type: "tmpfs", source: "tmpfs"},
        {destination: "/sys", type: "sysfs", source: "sysfs"},
        {destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["mode=1777"]}],
      linux: {namespaces: ([{type: "pid"}, {type: "ipc"}, {type: "uts"}, {type: "mount"}]
        + (if $network == "host" then [] else [{type: "network"}] end))}
    }' >"$dir/config.json"
}

# --ignore-cgroups: this runsc knows no hybrid hierarchy.
gv() { runsc --root "$GV_STATE" --platform "$GV_PLATFORM" --network "$GV_NETWORK" --ignore-cgroups "$@"; }
gv_run() { gv run --bundle "$2" "$1" </dev/null; }
gv_signal() { gv kill "$1" "$2"; }
