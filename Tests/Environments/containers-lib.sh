# containers-lib.sh
# podman and buildah without a daemon and without an image registry: base images are made from Debian packages, under the
# names an unchanged Dockerfile uses. For tests only, never to ship. Source lib.sh and debian-lib.sh first.
#
#   ct_prepare            installs the tools, points them at storage of our own
#   ct_images NAME...     makes local stand-ins for python, swift
#   ct_build ARGS...      `buildah bud` with what a Swift build needs mounted in
#
# Why these settings:
#   runc, not crun        crun 1.8 refuses hybrid cgroups that have a controller on the version 2 side
#   cgroupfs, k8s-file    the defaults want systemd and journald on the host
#   default_ulimits       podman as root asks for limits above the host's own, which a machine without CAP_SYS_RESOURCE
#                         cannot give
# What the base images are made of is kept in $PANELIND_TESTBED_CACHE (default /var/tmp/panelind-testbeds); it may be
# removed at any time, the next run makes it again.
# shellcheck shell=bash disable=SC2016,SC2034,SC2119,SC2120

CT_CACHE=$TESTBED_CACHE
CT_HOME=$CT_CACHE/containers

ct_prepare() {
    need_root
    need_packages podman buildah runc slirp4netns netavark iptables catatonit mmdebstrap
    mkdir -p "$CT_HOME"
    cat >"$CT_HOME/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$CT_HOME/storage"
runroot = "$CT_HOME/run"
CONF
    cat >"$CT_HOME/containers.conf" <<CONF
[containers]
default_ulimits = []
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
    export CONTAINERS_STORAGE_CONF=$CT_HOME/storage.conf CONTAINERS_CONF=$CT_HOME/containers.conf
    export BUILDAH_RUNTIME=runc
}

# ct_import IMAGE SUITE PACKAGES [CHANGE...] : a root file system as an image of one layer. Extra files come from
# the directory $CT_EXTRA, when set. A label holds a hash of the request: the image is made again only when that changes.
ct_import() {
    local image=$1 suite=$2 packages=$3 key tree c
    shift 3
    key=$(printf '%s\n' "$suite" "$packages" "$@" "$(ct_extra_hash)" | sha256sum | cut -c1-16)
    if [ "$(podman image inspect -f '{{index .Labels "panelind.testbed"}}' "$image" 2>/dev/null)" = "$key" ]; then
        note "$image is there"
        return
    fi
    say "making $image"
    tree=$(mktemp -d "$CT_CACHE/image.XXXXXX")
    defer "rm -rf --one-file-system '$tree'"
    debian_tree "$tree/root" "$suite" "$packages" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*'
    [ -z "${CT_EXTRA:-}" ] || cp -a "$CT_EXTRA/." "$tree/root/"
    local changes=(--change "LABEL panelind.testbed=$key")
    for c; do changes+=(--change "$c"); done
    tar -C "$tree/root" -c . | podman import --quiet "${changes[@]}" - "$image" >/dev/null
    rm -rf --one-file-system "$tree"
}
ct_extra_hash() { [ -z "${CT_EXTRA:-}" ] || (cd "$CT_EXTRA" && find . -type f -exec sha256sum {} + -o -type l -print | sort); }

ct_images() {
    local name
    exec 9>"$CT_HOME/images.lock"
    flock 9
    for name; do "ct_image_$name"; done
    flock -u 9
    exec 9>&-
}

ct_image_python() {
    local extra
    extra=$(mktemp -d "$CT_CACHE/extra.XXXXXX")
    defer "rm -rf '$extra'"
    # The official image has its python below /usr/local, and a pip that may install beside it.
    mkdir -p "$extra/usr/local/bin"
    ln -s /usr/bin/python3 "$extra/usr/local/bin/python3"
    ln -s /usr/bin/python3 "$extra/usr/local/bin/python"
    CT_EXTRA=$extra ct_import docker.io/library/python:3.11-slim bookworm \
        ca-certificates,python3-minimal,libpython3-stdlib,python3-pip,python3-venv 'CMD ["python3"]'
}

# The toolchain itself (3.3 GB) is not copied: the image only expects it where this machine has it, and ct_build mounts it
# there. The same goes for a package mirror; the image carries the machine's git URL rewriting, so that `swift build` in an
# unchanged Dockerfile finds its packages.
ct_toolchain() { dirname "$(dirname "$(dirname "$(readlink -f "$(command -v swift)")")")"; }
ct_rewrites() { git config --system --get-regexp '^url\..*\.insteadof$' || true; }
ct_mirrors() { ct_rewrites | sed -nE 's#^url\.(/[^ ]*[^/ ])/?\.insteadof .*#\1#p' | sort -u; }

ct_image_swift() {
    local extra dir
    extra=$(mktemp -d "$CT_CACHE/extra.XXXXXX")
    defer "rm -rf '$extra'"
    mkdir -p "$extra/etc"
    for dir in $(ct_toolchain) $(ct_mirrors); do mkdir -p "$extra$dir"; done
    ct_rewrites | while read -r key value; do git config --file "$extra/etc/gitconfig" --add "$key" "$value"; done
    git config --file "$extra/etc/gitconfig" --add safe.directory '*'
    CT_EXTRA=$extra ct_import docker.io/library/swift:6.3-bookworm bookworm \
        ca-certificates,binutils-gold,gcc,git,libc6-dev,libcurl4,libedit2,libncurses6,libpython3.11,libsqlite3-0,libstdc++-12-dev,libxml2,libz3-4,pkg-config,tzdata,zlib1g-dev \
        "ENV PATH=$(ct_toolchain)/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" 'CMD ["bash"]'
}

# Layers are kept as the build cache, unless asked otherwise. `--pull-never`: an image that ct_images did not make is an
# error, not a download. `--format docker`: the other one has no HEALTHCHECK.
ct_build() {
    local mounts=() d
    # The last one: so that pip in a RUN trusts what this machine trusts.
    for d in $(ct_toolchain) $(ct_mirrors) /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e "$d" ] || mounts+=(--volume "$d:$d:ro")
    done
    buildah bud --layers --force-rm --pull-never --format docker --isolation chroot --network host "${mounts[@]}" "$@"
}
