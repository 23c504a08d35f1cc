# systemd-words.sh
# What systemd-parts.sh asks the booted system with: the unit, its worker, its journal, clients. Read systemd-lib.sh first.
# Source it behind systemd-lib.sh; $mode, $type and $CURSOR are those of the run.
# shellcheck shell=bash disable=SC2015,SC2016,SC2154

unit() { sd_exec systemctl show -P "$1" "${2:-panelind.service}" 2>/dev/null || true; }
# shellcheck disable=SC2053  # $2 is a pattern
unit_is() { [[ $(unit "$1") == $2 ]]; }
ask() { sd_net curl -sS --max-time 30 --noproxy '*' "http://127.0.0.1:${2:-8080}$1"; }
health() { sd_net curl -sS --max-time 10 --noproxy '*' http://127.0.0.1:8081/ready; }
generation() { health | jq .generation; }
ready_as() { health | jq -e ".state == \"ready\" and .generation == $1" >/dev/null; }
# quietly COMMAND... : as it is, but for what systemctl says of a job that failed.
quietly() { "$@" >/dev/null 2>&1; }

# mark, since : the journal of the unit from the last mark on, one JSON object a line.
mark() { CURSOR=$(sd_exec journalctl -q -n 1 -o json --no-pager | jq -r .__CURSOR); }
since() { sd_exec journalctl -q --all --after-cursor="$CURSOR" -u "${1:-panelind.service}" -o json --no-pager; }
logged() { since | jq -es "any(.[]; $1)" >/dev/null; }

# worker STEP... : the command of a worker that serves in this run's mode and drains when it is told to end.
worker() {
    local listen='unix, "{socket}"' steps=''
    [ "$mode" = front ] || listen='fd, "{fd}"'
    if [ $# -gt 0 ]; then steps=$(printf ', "%s"' "$@"); fi
    printf '[/srv/agent/worker%s, listen, %s, "on", TERM, begin, drain, exit, "0", end, notify, READY=1]' \
        "$steps" "$listen"
}

# configure COMMAND [LINE]... : /etc/panelind/panelind.yaml.
configure() {
    {
        printf 'worker:\n  command: %s\n' "$1"
        shift
        if [ $# -gt 0 ]; then printf '%s\n' "$@"; fi
    } >"$SD_ROOT/etc/panelind/panelind.yaml"
}

# drop_in [LINE]... : what an administrator adds by systemctl edit; none takes it away.
drop_in() {
    local directory=$SD_ROOT/etc/systemd/system/panelind.service.d
    rm -rf "$directory"
    if [ $# -gt 0 ]; then
        mkdir -p "$directory"
        printf '%s\n' '[Service]' "$@" >"$directory/test.conf"
    fi
    sd_exec systemctl daemon-reload
}

# begin_load [PATH] [PORT], end_load DESCRIPTION : clients from outside, all the time; not one request may fail.
begin_load() {
    rm -f "$SD_WORK/stop" "$SD_WORK/stop.begun" "$SD_WORK/load.json"
    sd_net python3 "$ENV_DIR/load.py" "127.0.0.1:${2:-8080}" "${1:-/pid}" "$SD_WORK/stop" "$SD_WORK/load.json" &
    LOAD=$!
    retry 30 test -e "$SD_WORK/stop.begun" || bad "the clients got no answer"
}
end_load() {
    sleep 0.3
    touch "$SD_WORK/stop"
    wait "$LOAD" || true
    local result
    result=$(jq -c '{requests, failed: (.failed | length), unfinished, kinds: (.failed | unique)}' "$SD_WORK/load.json")
    if jq -e '.requests > 20 and (.failed | length) == 0 and .unfinished == 0' "$SD_WORK/load.json" >/dev/null; then
        ok "$1 ($result)"
    else
        bad "$1: $result"
    fi
}

# processes PATTERN : pids inside whose command line has it.
processes() { sd_exec pgrep -f -- "$1" || true; }
some_left() { [ -n "$(processes "$1")" ]; }
none_left() { [ -z "$(processes "$1")" ]; }
# systemctl VERB that must succeed for the rest to make sense.
tell() { sd_exec systemctl "$1" panelind.service || bad "systemctl $1 failed: $(sd_exec systemctl status -n 5 panelind.service)"; }
# reload : as the administrator does. Before the control socket was made there was no `panelind reload`, which 252 needs.
reload() {
    if [ "$type" = notify-reload ] || sd_exec panelind --help | grep -q '^  reload '; then
        sd_exec systemctl reload panelind.service
        return
    fi
    note "this build has no panelind reload: SIGHUP instead" >&3
    sd_exec systemctl kill --kill-whom=main --signal=HUP panelind.service
    sleep 2
}
main_pid() { unit MainPID; }
