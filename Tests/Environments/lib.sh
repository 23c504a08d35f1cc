# lib.sh
# Shared by the tests in other environments: saying what was seen, waiting with a bound, undoing at the end.
# Source it after `set -euo pipefail`; the tests themselves are the executable files beside it.
# shellcheck shell=bash disable=SC2034

ENV_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$ENV_DIR/../.." && pwd)
FAILED=0

say()  { printf '== %s\n' "$*"; }
ok()   { printf 'ok    %s\n' "$*"; }
bad()  { printf 'FAIL  %s\n' "$*" >&2; FAILED=$((FAILED + 1)); }
note() { printf '      %s\n' "$*"; }
die()  { printf 'FATAL %s\n' "$*" >&2; exit 1; }

# check DESCRIPTION COMMAND... : runs it, records the outcome, never aborts.
check() {
    local what=$1 out
    shift
    if out=$("$@" 2>&1); then ok "$what"; else bad "$what${out:+: $out}"; fi
}

# expect DESCRIPTION WANTED ACTUAL : WANTED is a shell pattern.
expect() {
    # shellcheck disable=SC2053  # the pattern is meant to be one
    if [[ $3 == $2 ]]; then ok "$1"; else bad "$1: wanted '$2', got '$3'"; fi
}

# retry SECONDS COMMAND... : polls every 100 ms until it succeeds.
retry() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

finish() {
    if [ "$FAILED" -gt 0 ]; then die "$FAILED check(s) failed"; fi
    say "all checks passed in ${SECONDS}s"
}

# defer COMMAND-STRING : runs at exit, the last one first; each is best effort.
DEFERRED=()
defer() { DEFERRED=("$1" "${DEFERRED[@]}"); }
run_deferred() {
    local rc=$? c
    set +e
    for c in "${DEFERRED[@]}"; do eval "$c"; done
    exit "$rc"
}
trap run_deferred EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

need_root() { [ "$(id -u)" = 0 ] || die "run this as root (namespaces, mounts, cgroups)"; }

# need_packages NAME... : installs what is missing. Another apt run on the same machine can leave dpkg between two
# states for a moment, so it tries a few times.
need_packages() {
    local missing=() p try log
    for p; do dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    log=$(mktemp)
    for try in 1 2 3 4 5; do
        # Indexes may be absent on a fresh machine: refresh from the second try on.
        [ "$try" = 1 ] || apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null 2>&1 || true
        if DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
            install --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
            rm -f "$log"
            return 0
        fi
        sleep 3
    done
    tail -n 20 "$log" >&2
    die "could not install ${missing[*]}"
}

# free_port : a port on loopback that nobody has now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# with_libraries PROGRAM ROOTFS : copies a program and the shared libraries it names, as a small image would have them.
with_libraries() {
    local lib
    install -D -m 755 "$1" "$2/$(basename "$1")"
    ldd "$1" | grep -o '/[^ ]*' | while read -r lib; do
        [ -e "$2$lib" ] || install -D -m 755 "$(readlink -f "$lib")" "$2$lib"
    done
}
