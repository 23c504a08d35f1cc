# debian-lib.sh
# Root file systems made from Debian packages alone, kept between runs. Source lib.sh first.
# Their cache may be removed at any time; the next run builds it again.
# shellcheck shell=bash
#
#   debian_rootfs SUITE PACKAGES(comma list) [MMDEBSTRAP-OPTION...]
#                          prints the path of a cached root file system that nobody may change
#   debian_tree DIRECTORY SUITE PACKAGES [MMDEBSTRAP-OPTION...]
#                          makes one, in a directory that is not there yet
#   debian_kernel          prints the path of a cached kernel for a virtual machine
#   PANELIND_TESTBED_CACHE where they are (default /var/tmp/panelind-testbeds)
#   PANELIND_DEBIAN_MIRROR the package source; by default the one that apt already uses

TESTBED_CACHE=${PANELIND_TESTBED_CACHE:-/var/tmp/panelind-testbeds}
mkdir -p "$TESTBED_CACHE"

debian_mirror() {
    if [ -n "${PANELIND_DEBIAN_MIRROR:-}" ]; then echo "$PANELIND_DEBIAN_MIRROR"; return; fi
    local m
    m=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
    [ -n "$m" ] || m=$(awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) {print $i; exit}}' \
        /etc/apt/sources.list 2>/dev/null || true)
    [ -n "$m" ] || die "no Debian package source found; set PANELIND_DEBIAN_MIRROR"
    echo "$m"
}

# A mirror that does not answer for a moment is asked again.
debian_tree() {
    local directory=$1 suite=$2 packages=$3 try
    shift 3
    for try in 1 2 3; do
        [ "$try" = 1 ] || { say "once more"; sleep 10; }
        rm -rf --one-file-system "$directory"
        if mmdebstrap --quiet --variant=minbase --format=directory ${packages:+--include="$packages"} \
            --aptopt='Acquire::Check-Valid-Until "false"' "$@" "$suite" "$directory" \
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main"; then
            return 0
        fi
    done
    rm -rf --one-file-system "$directory"
    die "cannot make a root file system of $suite: mmdebstrap failed three times, see above"
}

debian_kernel() {
    local kernel=$TESTBED_CACHE/vmlinuz-cloud package work try
    if [ ! -e "$kernel" ]; then
        say "fetching the kernel" >&2
        work=$(mktemp -d "$TESTBED_CACHE/kernel.XXXXXX")
        for try in 1 2 3; do
            # A fresh machine has no package lists, or old ones.
            [ "$try" = 1 ] || apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null 2>&1 || true
            package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}')
            if [ -n "$package" ] && (cd "$work" && apt-get -q download "$package" >/dev/null 2>&1); then break; fi
        done
        for package in "$work"/*.deb; do
            dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work" ./boot || die "cannot get a kernel from Debian"
        done
        cp "$work"/boot/vmlinuz-* "$kernel.tmp"
        mv "$kernel.tmp" "$kernel"
        rm -rf --one-file-system "$work"
    fi
    echo "$kernel"
}

# The directory's name carries a hash of what was asked for: another list builds another one.
debian_rootfs() {
    local suite=$1 packages=$2 key dir
    shift 2
    need_packages mmdebstrap >&2
    key=$(printf '%s\n' "$suite" "$packages" "$@" | sha256sum | cut -c1-10)
    dir=$TESTBED_CACHE/rootfs-$suite-$key
    exec 8>"$TESTBED_CACHE/rootfs.lock"
    flock 8
    if [ ! -e "$dir/.complete" ]; then
        say "building $dir (about 20 s)" >&2
        rm -rf --one-file-system "$dir"
        debian_tree "$dir.tmp" "$suite" "$packages" "$@" >&2
        touch "$dir.tmp/.complete"
        mv "$dir.tmp" "$dir"
    fi
    flock -u 8
    exec 8>&-
    echo "$dir"
}
