# systemd-lib.sh
# A real systemd as PID 1, in systemd-nspawn, without systemd or dbus on this machine. Source lib.sh and debian-lib.sh first.
# The container has a pure cgroup2 tree; where this machine's is hybrid, that tree lacks the controllers of memory, CPU
# and pids (MemoryMax= and its like do nothing, cgroup.kill and Delegate= work): machine.sh has them.
#
#   sd_prepare [SUITE]      mounts a throw-away overlay over the cached root file system; copy files into "$SD_ROOT"
#   sd_boot                 boots it and waits until the boot has ended
#   sd_exec COMMAND...      runs a command inside
#   sd_net COMMAND...       runs a command of this machine in its network
#   sd_stop                 powers it off (also done when the script exits)
# shellcheck shell=bash disable=SC2016,SC2034,SC2119,SC2120

SD_PACKAGES=systemd,systemd-sysv,dbus,libsystemd0,procps
SD_ROOT='' SD_PID='' SD_LEADER='' SD_NAME=''

sd_prepare() {
    local suite=${1:-trixie} base
    need_root
    need_packages systemd-container
    base=$(debian_rootfs "$suite" "$SD_PACKAGES")
    SD_NAME=panelind-$suite-$$
    SD_WORK=$(mktemp -d "$TESTBED_CACHE/run.XXXXXX")
    SD_ROOT=$SD_WORK/root
    mkdir "$SD_WORK/upper" "$SD_WORK/work" "$SD_ROOT"
    defer 'umount "$SD_ROOT" 2>/dev/null; rm -rf --one-file-system "$SD_WORK"'
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$SD_WORK/upper,workdir=$SD_WORK/work" "$SD_ROOT"
    rm -f "$SD_ROOT/.complete" "$SD_ROOT/etc/hostname"
    # A first boot would ask questions and write presets; this is not one.
    echo 6d6163686f6e6500000000000000beef >"$SD_ROOT/etc/machine-id"
    defer sd_stop
}

# Every hierarchy systemd cares about: cgroup2, and on hybrid hosts name=systemd.
sd_cgroup_mounts() {
    if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then echo /sys/fs/cgroup
    else printf '%s\n' /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; fi
}

sd_boot() {
    local m start
    start=$(date +%s%N)
    (
        # A cgroup of our own, so that two test beds can run side by side.
        for m in $(sd_cgroup_mounts); do
            mkdir -p "$m/$SD_NAME"
            echo "$BASHPID" >"$m/$SD_NAME/cgroup.procs"
        done
        # --register=no --keep-unit: nspawn asks nobody on this machine.
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec systemd-nspawn --quiet --directory="$SD_ROOT" \
            --boot --register=no --keep-unit --machine="$SD_NAME" --hostname=panelind \
            --private-network --console=pipe --link-journal=no "$@" \
            </dev/null >"$SD_WORK/console.log" 2>&1
    ) &
    SD_PID=$!
    retry 10 sd_find_leader || { cat "$SD_WORK/console.log" >&2; die "systemd-nspawn did not start"; }
    retry 30 sd_booted || { cat "$SD_WORK/console.log" >&2; die "systemd did not finish booting"; }
    note "booted systemd $(sd_exec systemctl --version | awk 'NR==1 {print $3}') in $((($(date +%s%N) - start) / 1000000)) ms"
}

# nspawn's one direct child is the container's PID 1.
sd_find_leader() {
    SD_LEADER=$(cat "/proc/$SD_PID/task/$SD_PID/children" 2>/dev/null)
    SD_LEADER=${SD_LEADER%% *}
    [ -n "$SD_LEADER" ] && [ "$(cat "/proc/$SD_LEADER/comm")" = systemd ]
}
sd_booted() {
    case $(sd_exec systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) return 1 ;; esac
}
sd_exec() {
    nsenter --all --target "$SD_LEADER" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LC_ALL=C.UTF-8 \
        SYSTEMD_PAGER= SYSTEMD_COLORS=0 "$@"
}
sd_net() { nsenter --net --target "$SD_LEADER" "$@"; }

sd_stop() {
    local m d
    [ -n "$SD_PID" ] || return 0
    # SIGRTMIN+4 to PID 1 is "systemctl poweroff"; TERM to nspawn is the fallback.
    kill -s RTMIN+4 "$SD_LEADER" 2>/dev/null
    retry 15 sd_gone || { kill -TERM "$SD_PID"; retry 5 sd_gone || kill -KILL "$SD_PID" "$SD_LEADER"; }
    wait "$SD_PID" 2>/dev/null
    SD_PID=''
    for m in $(sd_cgroup_mounts); do
        # Deepest first; only ever below the directory made by sd_boot.
        [ -d "$m/$SD_NAME" ] || continue
        find "$m/$SD_NAME" -depth -type d 2>/dev/null | while read -r d; do rmdir "$d" 2>/dev/null; done
    done
    return 0
}
# Gone, or a zombie that only waits to be reaped below.
sd_gone() { ! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$SD_PID/status" 2>/dev/null; }
