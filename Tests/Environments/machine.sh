#!/usr/bin/env bash
# machine.sh
# The package on a whole machine: Debian's kernel and systemd in qemu, where the control groups have every controller. A
# worker that the kernel kills for memory is named so, and panelind lives on; limits of tasks and memory hold. Emulated,
# so that it runs where /dev/kvm does not. Read systemd-lib.sh first.
#
#   sudo Tests/Environments/machine.sh [SECONDS]     time limit of the guest, 240
#   PANELIND_BIN_DIR   the build, if not .build/release      PANELIND_DEB   the package, if it is made already
# shellcheck disable=SC1091,SC2015,SC2016,SC2034
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$ENV_DIR/debian-lib.sh"
. "$ENV_DIR/systemd-lib.sh"

limit=${1:-240}
need_packages qemu-system-x86 cpio binutils dpkg-dev python3
binaries=${PANELIND_BIN_DIR:-$ROOT/.build/release}
[ -x "$binaries/panelind" ] && [ -x "$binaries/scripted-worker" ] || "$ROOT/scripts/build" release
sd_prepare trixie # the root file system; nothing is booted in nspawn here

kernel=$(debian_kernel)
deb=${PANELIND_DEB:-$(BINARY="$binaries/panelind" "$ROOT/scripts/package" "$SD_WORK")}
cp "$deb" "$SD_ROOT/panelind.deb"
check "the package installs where systemd does not run" chroot "$SD_ROOT" dpkg -i /panelind.deb
rm "$SD_ROOT/panelind.deb"
install -D -m 755 "$binaries/scripted-worker" "$SD_ROOT/srv/agent/worker"
strip "$SD_ROOT/srv/agent/worker"
mkdir -p "$SD_ROOT/etc/systemd/system/panelind.service.d" "$SD_ROOT/etc/systemd/system/multi-user.target.wants"
printf '[Service]\nMemoryMax=128M\nMemorySwapMax=0\nTasksMax=40\n' >"$SD_ROOT/etc/systemd/system/panelind.service.d/test.conf"
# Emulated, the first start takes seconds; it grows after it was ready, and the next generation does the same.
cat >"$SD_ROOT/etc/panelind/panelind.yaml" <<'YAML'
worker:
  command: [/srv/agent/worker, listen, fd, "{fd}", on, TERM, exit, "0", child, begin, tag, bystander, end,
            notify, READY=1, allocate-after, 8s, 300MiB]
probe: { readiness: { notify: true } }
restart: { delay: 1s }
YAML
install -m 755 "$ENV_DIR/machine-guest.sh" "$SD_ROOT/usr/local/bin/guest"
cat >"$SD_ROOT/etc/systemd/system/guest.service" <<'UNIT'
[Service]
Type=exec
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/usr/local/bin/guest
UNIT
ln -sf ../guest.service "$SD_ROOT/etc/systemd/system/multi-user.target.wants/guest.service"
ln -sf /dev/null "$SD_ROOT/etc/systemd/system/systemd-modules-load.service" # no modules in the guest

# The root file system itself is the initramfs: no disk, and no module that would drive one.
say "booting in qemu"
(cd "$SD_ROOT" && find . -xdev | cpio -o -H newc --quiet) >"$SD_WORK/root.cpio"
start=$SECONDS
timeout "$limit" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1280 \
    -nodefaults -no-user-config -nographic -serial stdio -no-reboot \
    -kernel "$kernel" -initrd "$SD_WORK/root.cpio" \
    -append 'console=ttyS0 quiet panic=-1 rdinit=/lib/systemd/systemd systemd.show_status=0 systemd.unit=multi-user.target' \
    </dev/null >"$SD_WORK/serial.log" 2>&1 || bad "qemu ended with status $?"
note "the machine ran for $((SECONDS - start)) s"
lines=$(tr -d '\r' <"$SD_WORK/serial.log" | grep -ao 'guest: .*' || true)
while read -r _ kind text; do
    case $kind in ok) ok "$text" ;; FAIL) bad "$text" ;; *) note "$kind $text" ;; esac
done <<<"$lines"
[[ $lines == *'guest: end'* ]] || { tail -n 40 "$SD_WORK/serial.log" >&2; bad "the guest did not get to the end"; }
finish
