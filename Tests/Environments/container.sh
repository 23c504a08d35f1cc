#!/usr/bin/env bash
# container.sh
# The unchanged Dockerfile, built from a clean clone and run as Cloud Run runs it: PID 1, no root, read-only, 512 MiB, one CPU,
# no capabilities, a random $PORT; then frozen and thawed, out of memory, and under gVisor. Read containers-lib.sh first.
#
#   sudo Tests/Environments/container.sh [build]      build: the images only
# shellcheck disable=SC1091,SC2015,SC2016,SC2034
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$ENV_DIR/debian-lib.sh"
. "$ENV_DIR/containers-lib.sh"

need_packages curl jq python3 git util-linux procps iproute2
ct_prepare
work=$(mktemp -d)
# An OOM kill leaves an empty file `oom` in the working directory of whoever started the container.
cd "$work"
defer 'rm -rf --one-file-system "$work"'
canary=canary-$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')

# -- the images

# What lies about in a working copy must not end up in a layer.
clone() {
    git clone --quiet "$ROOT" "$work/clone"
    mkdir -p "$work/clone/secrets"
    for file in .env Examples/agent/.env Sources/.env secrets/panelin-api-key key.pem; do
        echo "$canary" >"$work/clone/$file"
    done
}

build() {
    local target=$1 log=$work/build.log start=$SECONDS
    shift
    if ! ct_build "$@" -t "localhost/$target:test" "$work/clone" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "the image $target does not build"
    fi
    ok "$target is built in $((SECONDS - start)) s, $(podman image inspect -f '{{.Size}}' "localhost/$target:test" | awk '{printf "%.0f MB", $1 / 1e6}')"
}

say "building from a clean clone"
ct_images swift python
clone
build panelind --target panelind
build panelin-api --build-arg REVISION=0123abcd
# Layers of earlier sources; today's are kept, as the cache of the next build.
podman image prune --force --filter until=24h >/dev/null || true
if [ "${1:-}" = build ]; then finish; exit; fi

agent=localhost/panelin-api:test
inspect() { podman image inspect -f "$1" "$agent"; }
expect "the image runs as nobody in particular" 65532:65532 "$(inspect '{{.Config.User}}')"
expect "panelind is the entry point, without a shell" /usr/local/bin/panelind "$(inspect '{{json .Config.Entrypoint}}' | jq -r 'join(" ")')"
expect "the health check is panelind's own" '*CMD /usr/local/bin/panelind probe*' "$(inspect '{{.HealthCheck.Test}}')"
expect "the labels say what it is made from" 0123abcd "$(inspect '{{index .Labels "org.opencontainers.image.revision"}}')"
version=$(sed -n 's/.*"\([0-9.]*\)".*/\1/p' "$ROOT/Sources/PanelindRuntime/Version.swift")
expect "and its version" "$version" "$(inspect '{{index .Labels "org.opencontainers.image.version"}}')"
size=$(podman run --rm --pull=never --network none --no-healthcheck --entrypoint /usr/bin/stat "$agent" -c %s /usr/local/bin/panelind)
check "panelind adds $((size / 1000000)) MB, at most 25" test "$size" -le 25000000
podman save --quiet --format docker-archive "$agent" >"$work/image.tar"
check "the layers can be searched" grep -aq 'Quoting agent for insulated panels' "$work/image.tar"
! grep -aq "$canary" "$work/image.tar" && ok "no layer holds what lay about in the working copy" || bad "a layer holds a secret"
rm -f "$work/image.tar"
alone() { podman run --rm --pull=never --network none localhost/panelind:test "$@"; }
expect "panelind alone can be run" "$version" "$(alone --version)"
alone run -- uvicorn api:app --uds '{socket}' 2>"$work/alone" && bad "it ran without Python" || expect "without Python: 127" 127 $?
expect "and says why" '*no command uvicorn in PATH; install it*' "$(cat "$work/alone")"

# -- containers as Cloud Run runs them, each in a network of its own

# begin NAME PODMAN-OPTION... [-- ARGUMENT...] : starts one; sets `name`, `pid`, `port`.
begin() {
    local options=()
    name=$1-$$
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
    [ $# -eq 0 ] || shift
    port=$((20000 + RANDOM % 20000))
    defer "podman rm -f -t 0 $name >/dev/null 2>&1"
    podman run --detach --pull=never --no-healthcheck --name "$name" --network none \
        --memory 512m --cpus 1 --security-opt no-new-privileges --cap-drop all --read-only --tmpfs /tmp \
        --env PORT="$port" --env K_SERVICE=panelin-api --env K_REVISION=panelin-api-00042-abc \
        --env K_CONFIGURATION=panelin-api "${options[@]}" "$agent" "$@" >/dev/null
    pid=$(podman inspect -f '{{.State.Pid}}' "$name")
}
inside() { nsenter --net --target "$pid" "$@"; }
get() { inside curl -fsS --max-time 5 --noproxy '*' "http://127.0.0.1:$port$1" "${@:2}"; }
ready() { retry 60 get /ready && overhead; }
# What panelind adds to the worker's own start, in ms: from its first record to ready, less what uvicorn took to listen.
overhead() {
    records | jq -s 'def at: .time | (.[:19] + "Z" | fromdate) * 1000 + (.[19:23] | tonumber * 1000);
        def first(f): map(select(f))[0] | at;
        first(.event == "worker_ready") - first(.event == "panelind_started")
        - (first(.message | contains("Uvicorn running")) - first(.event == "worker_started")) | round' >>"$work/overheads"
}
quote() {
    get /quotes -H 'content-type: application/json' "$@" \
        -d '{"product_id":"ISOPANEL_EPS_50mm","length_m":6,"width_m":10,"discount_percent":5}' | jq .total_usd
}
# The records of the container's log so far, those of panelind with their event.
records() { podman logs "$name" 2>&1 | jq -Rc 'fromjson? // empty'; }
event() { records | jq -es --arg name "$1" "any(.[]; .event == \$name and (${2:-true}))" >/dev/null; }
generation() { get /ready | jq .generation; }
# uvicorn, as the host sees it: the child of PID 1.
worker() { pgrep -P "$pid" | head -n 1; }
stop() {
    local start took
    start=$(date +%s%N)
    podman stop -t 10 "$name" >/dev/null
    took=$((($(date +%s%N) - start) / 1000000))
    expect "SIGTERM ends it with 0 (after $took ms)" 0 "$(podman inspect -f '{{.State.ExitCode}}' "$name")"
    check "within 9 s" test "$took" -lt 9000
    expect "its log ends with panelind_stopped" panelind_stopped "$(records | tail -n 1 | jq -r .event)"
}

say "frozen: every process is stopped for 30 s while a platform asks"
begin frozen --env PANELIND_PROBE_LIVENESS='{http: /health, period: 1s, timeout: 1s, failures: 2}'
check "/ready" ready
frozen=$name frozen_pid=$pid frozen_port=$port frozen_worker=$(worker)
everyone() { cat "/sys/fs/cgroup/systemd$(sed -n 's/^.*name=systemd://p' "/proc/$frozen_pid/cgroup")/cgroup.procs" 2>/dev/null \
    || cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$frozen_pid/cgroup")/cgroup.procs"; }
# shellcheck disable=SC2046
kill -STOP $(everyone)
frozen_since=$SECONDS
# The platform's own question every 10 s, unanswered: it must not become an answer to a question of later.
(while kill -0 "$frozen_pid" 2>/dev/null && [ $((SECONDS - frozen_since)) -lt 30 ]; do
    nsenter --net --target "$frozen_pid" curl -sS --max-time 1 --noproxy '*' "http://127.0.0.1:$frozen_port/health" || true
    sleep 1
done) >/dev/null 2>&1 &
asker=$!

say "as Cloud Run runs it"
begin plain
check "/ready on \$PORT" ready
expect "the answer names the revision" panelin-api-00042-abc "$(get /ready | jq -r .revision)"
expect "/health" ok "$(get /health | jq -r .status)"
expect "a quote" 2988.05 "$(quote)"
expect "panelind is PID 1" 1 "$(awk '/^NSpid/ {print $NF}' "/proc/$pid/status")"
expect "it is panelind" panelind "$(cat "/proc/$pid/comm")"
expect "no root" 65532 "$(awk '/^Uid/ {print $2}' "/proc/$pid/status")"
expect "no new privileges" 1 "$(awk '/^NoNewPrivs/ {print $2}' "/proc/$pid/status")"
expect "no capabilities" 0000000000000000 "$(awk '/^CapBnd/ {print $2}' "/proc/$pid/status")"
within() { podman exec "$name" sh -c "$1" 2>/dev/null || true; }
expect "512 MiB" 536870912 "$(within 'cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes')"
expect "one CPU" '100000 100000' "$(within 'cat /sys/fs/cgroup/cpu.max || (cd /sys/fs/cgroup/cpu && paste -d" " cpu.cfs_quota_us cpu.cfs_period_us)')"
expect "nothing can be written beside /tmp" read-only "$(within 'touch /srv/agent/x && echo written || echo read-only')"
check "the health check of the image" podman exec "$name" /usr/local/bin/panelind probe http://127.0.0.1:8081/ready

say "kill -9 of uvicorn under load"
cat >"$work/load.py" <<'PYTHON'
import collections, http.client, sys, threading, time
port, seconds = int(sys.argv[1]), float(sys.argv[2])
end, seen, lock = time.monotonic() + seconds, collections.Counter(), threading.Lock()
def ask():
    while time.monotonic() < end:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/products")
            answer = connection.getresponse()
            answer.read()
            what = str(answer.status)
        except Exception as error:
            what = type(error).__name__
        finally:
            connection.close()
        with lock:
            seen[what] += 1
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(" ".join(f"{what}:{count}" for what, count in sorted(seen.items())))
PYTHON
inside python3 "$work/load.py" "$port" 6 >"$work/load" &
load=$!
sleep 1
kill -9 "$(worker)"
wait "$load"
note "answers: $(cat "$work/load")"
# What was under way at that moment may be lost where its answer had begun: one for each of the four clients at most.
lost=$(tr ' ' '\n' <"$work/load" | awk -F: '$1 != 200 {n += $2} END {print n + 0}')
check "at most the four requests under way were lost" test "$lost" -le 4
check "nobody was refused" awk '/Refused/ {exit 1}' "$work/load"
expect "the next worker serves" 2 "$(generation)"
check "and the log says how the first ended" event worker_exited '.generation == 1 and .exit_signal == "SIGKILL"'

stop
begin slow --env AGENT_TESTING=1 --volume "$ROOT/Examples/agent/testing.py:/srv/agent/testing.py:ro"
say "SIGTERM during a slow request"
check "/ready" ready
get '/slow?seconds=3' >"$work/slow" 2>&1 &
slow=$!
# Of the clients on $PORT only this one stays.
in_flight() { [ "$(awk -v port=":$(printf %04X "$port")" '$2 ~ port "$" && $4 == "01"' "/proc/$pid/net/tcp" | wc -l)" = 1 ]; }
check "the request is under way" retry 5 in_flight
stop
wait "$slow" && ok "the request was answered" || bad "the request was lost: $(cat "$work/slow")"

say "no port, and ports that are none"
begin empty --env PORT=
port=8080
check "PORT='': 8080" ready
stop
for given in 0 70000 http; do
    said=$(podman run --rm --pull=never --no-healthcheck --network none --read-only --env PORT="$given" "$agent" 2>&1) && code=0 || code=$?
    expect "PORT='$given': 78, with its name" '78 *PORT*' "$code $said"
done

say "secrets"
printf '%s\n' "$canary" >"$work/panelin-api-key"
chmod 644 "$work/panelin-api-key"
secret=(--env PANELIND_WORKER_SECRETS='{PANELIN_API_KEY: /secrets/panelin-api-key}'
    --env PANELIND_WORKER_REQUIRED_ENVIRONMENT='[PANELIN_API_KEY]')
begin secret "${secret[@]}" --volume "$work/panelin-api-key:/secrets/panelin-api-key:ro"
check "/ready" ready
check "the worker has it, without its newline" grep -qzx "PANELIN_API_KEY=$canary" "/proc/$(worker)/environ"
quote >/dev/null 2>&1 && bad "a quote without the key" || ok "no quote without the key"
expect "a quote with the key" 2988.05 "$(quote -H "X-API-Key: $canary")"
get /quotes -H "X-API-Key: $canary" -d '{' >/dev/null 2>&1 || true
kill -9 "$(worker)"
retry 30 event worker_exited
seen=$(podman logs "$name" 2>&1; cat "/proc/$pid/environ" "/proc/$pid/cmdline" | tr '\0' '\n'; get /health; get /ready 2>&1; podman inspect "$name")
[[ $seen != *"$canary"* ]] && ok "it is in no log, status, command line or environment of panelind" || bad "the secret can be seen"
stop
begin without "${secret[@]}"
podman wait "$name" >/dev/null
expect "without the volume: 78" 78 "$(podman inspect -f '{{.State.ExitCode}}' "$name")"
expect "and it says which file" '*PANELIN_API_KEY: cannot read /secrets/panelin-api-key: no such file*' "$(podman logs "$name" 2>&1)"

say "the worker runs out of memory"
cat >"$work/hog.py" <<'PYTHON'
held = []
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/eat":
        held.append(bytearray(600 << 20))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
PYTHON
begin hog --volume "$work/hog.py:/srv/agent/hog.py:ro" -- run -- uvicorn hog:app --uds '{socket}'
check "/ready" ready
get /eat -X POST >/dev/null 2>&1 && bad "the request that ate was answered" || ok "the request that ate is lost"
retry 30 event worker_exited '.cause == "oom"' && ok "the cause is oom" || bad "the cause is not oom"
check "the next worker serves" retry 30 get /anything
check "panelind is the same" kill -0 "$pid"
stop

say "a read-only root without any tmpfs"
begin bare --read-only-tmpfs=false --tmpfs /none
check "/ready" ready
stop

say "adding panelind to the start"
note "so many ms each time: $(paste -sd' ' "$work/overheads")"
check "half of the starts cost at most 100 ms" test "$(sort -n "$work/overheads" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}')" -le 100
check "none more than 200 ms" test "$(sort -n "$work/overheads" | tail -n 1)" -le 200

say "thawed"
while [ $((SECONDS - frozen_since)) -lt 30 ]; do sleep 0.2; done
# shellcheck disable=SC2046
kill -CONT $(name=$frozen everyone)
wait "$asker" || true
name=$frozen pid=$frozen_pid port=$frozen_port
check "/ready answers again" retry 5 get /ready
# Two more questions of the liveness probe, one a second.
sleep 2.5
expect "the worker is the same" "$frozen_worker" "$(worker)"
expect "nothing was restarted" 0 "$(get /ready | jq .restarts)"
check "the gap was noticed" event clock_gap
stop

say "under gVisor (Cloud Run's first generation)"
need_packages runsc
# Debian's runsc knows neither hybrid cgroups nor networks of its own; without cgroups there is no limit of memory either.
pod() { podman --runtime /usr/bin/runsc --runtime-flag platform=ptrace --runtime-flag network=host --runtime-flag ignore-cgroups "$@"; }
name=gvisor-$$ port=$(free_port)
defer "podman rm -f -t 0 $name >/dev/null 2>&1"
pod run --detach --pull=never --no-healthcheck --name "$name" --network host --security-opt no-new-privileges \
    --cap-drop all --read-only --tmpfs /tmp --env PORT="$port" --env K_SERVICE=panelin-api \
    --env K_REVISION=panelin-api-00042-abc --env PANELIND_SIDECAR_LISTEN="127.0.0.1:$(free_port)" \
    --env AGENT_TESTING=1 --volume "$ROOT/Examples/agent/testing.py:/srv/agent/testing.py:ro" \
    "${secret[@]}" --volume "$work/panelin-api-key:/secrets/panelin-api-key:ro" "$agent" >/dev/null
inside() { "$@"; }
check "/ready" retry 60 get /ready
expect "the answer names the revision" panelin-api-00042-abc "$(get /ready | jq -r .revision)"
expect "a quote with the key" 2988.05 "$(quote -H "X-API-Key: $canary")"
inside python3 "$work/load.py" "$port" 6 >"$work/load" &
load=$!
sleep 1
# The host does not see what runs in there; panelind says who the worker is.
first=$(records | jq -s 'map(select(.event == "worker_started"))[0].pid')
check "kill -9 of uvicorn under load" pod exec "$name" python -c "import os; os.kill($first, 9)"
wait "$load"
note "answers: $(cat "$work/load")"
lost=$(tr ' ' '\n' <"$work/load" | awk -F: '$1 != 200 {n += $2} END {print n + 0}')
check "at most the four requests under way were lost" test "$lost" -le 4
check "nobody was refused" awk '/Refused/ {exit 1}' "$work/load"
expect "the next worker serves" 2 "$(generation)"
get '/slow?seconds=2' >"$work/slow" 2>&1 &
slow=$!
# Of the clients on $PORT only this one stays; the connections are the sandbox's, in this machine's network.
check "a slow request is under way" retry 5 sh -c "ss -Htn state established 'sport = :$port' | grep -q ."
stop
wait "$slow" && ok "the request was answered" || bad "the request was lost: $(cat "$work/slow")"
[[ $(records) != *"$canary"* ]] && ok "no record has the secret" || bad "the secret can be seen"

finish
