# debian-lib.sh
# Root file systems made from Debian packages alone, kept between runs. Source lib.sh first.
# Their cache may be removed at any time; the next run builds it again.
# shellcheck shell=bash
#
#   debian_rootfs SUITE PACKAGES(comma list) [MMDEBSTRAP-OPTION...]
#                          prints the path of a cached root file system that nobody may change
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
        rm -rf --one-file-system "$dir" "$dir.tmp"
        mmdebstrap --quiet --variant=minbase --format=directory ${packages:+--include="$packages"} \
            --aptopt='Acquire::Check-Valid-Until "false"' "$@" "$suite" "$dir.tmp" \
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main" >&2
        touch "$dir.tmp/.complete"
        mv "$dir.tmp" "$dir"
    fi
    flock -u 8
    exec 8>&-
    echo "$dir"
}
