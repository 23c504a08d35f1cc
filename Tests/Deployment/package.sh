#!/usr/bin/env bash
# package.sh
# The package as a file: the same twice, without an error of lintian's, complete, for Debian 12's libraries; and what
# make install puts below a prefix. Read scripts/package and scripts/install first.
#
#   PANELIND_BIN_DIR   the build, if not .build/release
# shellcheck disable=SC1091,SC2015,SC2016,SC2034
set -euo pipefail
. "$(dirname "$0")/../Environments/lib.sh"
need_packages binutils dpkg-dev lintian mandoc man-db python3 bash-completion zsh fish

binaries=${PANELIND_BIN_DIR:-$ROOT/.build/release}
work=$(mktemp -d)
defer 'rm -rf --one-file-system "$work"'
export BINARY=$binaries/panelind

say "make deb"
deb=$("$ROOT/scripts/package" "$work/one")
again=$(umask 077; TZ=Asia/Tokyo "$ROOT/scripts/package" "$work/two")
expect "the same sources give the same bytes" "$(sha256sum <"$deb")" "$(sha256sum <"$again")"
expect "lintian finds no error" '' "$(lintian --fail-on error "$deb" 2>/dev/null | grep '^E:' || true)"
expect "the configuration is the administrator's" /etc/panelind/panelind.yaml "$(dpkg-deb -I "$deb" conffiles)"
# bookworm has glibc 2.36.
needs=$(dpkg-deb -f "$deb" Depends | grep -o 'libc6 (>= [0-9.]*' | grep -o '[0-9.]*$')
check "Debian 12's libraries will do ($needs)" dpkg --compare-versions "$needs" le 2.36
dpkg-deb -x "$deb" "$work/root"
check "it says what is inside" python3 -c "
import gzip, json
document = json.load(gzip.open('$work/root/usr/share/doc/panelind/panelind.spdx.json.gz'))
assert document['spdxVersion'] == 'SPDX-2.3' and {'swift-nio', 'libyaml'} <= {p['name'] for p in document['packages']}"
expect "it does not need libsystemd to start" '' "$(objdump -p "$work/root/usr/bin/panelind" | grep 'NEEDED.*systemd' || true)"

say "make install"
DESTDIR=$work/local "$ROOT/scripts/install"
check "the units start the installed program" grep -q '^ExecStart=/usr/local/bin/panelind run' \
    "$work/local/usr/local/lib/systemd/system/panelind.service"
echo 'worker: { command: [/bin/true] }' >"$work/local/etc/panelind/panelind.yaml"
DESTDIR=$work/local "$ROOT/scripts/install"
check "a configuration that is there stays" grep -q /bin/true "$work/local/etc/panelind/panelind.yaml"

say "manual"
pages=$work/root/usr/share/man
for command in $("$BINARY" --help | sed -n '/^SUBCOMMANDS/,$s/^  \([a-z][a-z]*\) .*/\1/p'); do
    check "panelind-$command(1)" test -s "$pages/man1/panelind-$command.1.gz"
    for option in $("$BINARY" help "$command" | grep -o '^  --[a-z-]*'); do
        check "panelind-$command(1) has $option" grep -qF -- "$option" <(man -l "$pages/man1/panelind-$command.1.gz")
    done
done
settings=$(man -l "$pages/man5/panelind.yaml.5.gz")
missing=$(sed -n 's/^| `\([a-zA-Z.]*\)` |.*/\1/p' "$ROOT/docs/settings.md" | while read -r key; do
    grep -qF -- "$key" <<<"$settings" || echo "$key"
done)
expect "panelind.yaml(5) has every setting" '' "$missing"
for page in "$pages"/man*/*.gz; do
    expect "mandoc has nothing to say of $(basename "$page" .gz)" '' "$(zcat "$page" | mandoc -T lint -W warning || true)"
done

say "completions"
check "bash" bash -c ". '$work/root/usr/share/bash-completion/completions/panelind' && complete -p panelind"
check "zsh" zsh -fc "fpath=('$work/root/usr/share/zsh/vendor-completions' \$fpath); autoload -U compinit; compinit -u -d '$work/zcompdump'; (( \$+_comps[panelind] ))"
check "fish" fish --no-config -c "source '$work/root/usr/share/fish/vendor_completions.d/panelind.fish'; complete -C 'panelind ' | string match -q 'run*'"

say "examples"
for example in "$ROOT"/etc/systemd/examples/*.yaml; do
    # Only the worker is not here.
    sed -e 's,/srv/agent/\(\.venv/\)\?bin/[a-z]*,/bin/true,' -e 's,/srv/agent,/,' "$example" >"$work/example.yaml"
    said=$("$BINARY" check --config "$work/example.yaml" --set platform=systemd --set "serve.listen=unix:$work/s" \
        --set sidecar.listen=none --set control.path=none 2>&1 >/dev/null) || said="refused: $said"
    expect "check accepts $(basename "$example")" '' "$said"
done
finish
