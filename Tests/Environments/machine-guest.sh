#!/bin/bash
# machine-guest.sh
# Runs inside the machine that machine.sh boots; every line that begins with "guest:" is read outside.
# Nothing is here but Debian's base system: no curl, no jq.
# shellcheck disable=SC2053  # the second is a pattern
is() { if [[ $3 == $2 ]]; then echo "guest: ok $1"; else echo "guest: FAIL $1: wanted '$2', got '$3'"; fi; }
unit() { systemctl show -P "$1" panelind.service; }
journal() { journalctl -u panelind.service -o json --no-pager; }
# until_logged SECONDS PATTERN : waits for an entry of the unit.
until_logged() {
    local end=$((SECONDS + $1))
    until journal | grep -q -- "$2"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.5
    done
}

echo "guest: info kernel $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"
systemctl start panelind.service
is "panelind is ready in a machine of its own" active "$(unit ActiveState)"
before=$(unit MainPID)
group=/sys/fs/cgroup$(unit ControlGroup)
is "the limit of memory is the unit's" 134217728 "$(cat "$group/memory.max")"
until_logged 40 '"PANELIND_EVENT":"worker_exited"'
exited=$(journal | grep '"PANELIND_EVENT":"worker_exited"' | head -1)
is "a worker that the kernel kills for memory is named so" '*oom*' "$exited"
is "with the signal" '*SIGKILL*' "$exited"
until_logged 40 '"PANELIND_EVENT":"worker_ready".*"PANELIND_GENERATION":"2"\|"PANELIND_GENERATION":"2".*"PANELIND_EVENT":"worker_ready"'
is "the next worker is ready" 0 "$?"
is "panelind was not killed with it" "$before" "$(unit MainPID)"
is "and the unit lives on" 'active 0' "$(unit ActiveState) $(unit NRestarts)"
# The worker's own command line has the word too.
is "the new worker and its child are all that is left" 2 "$(pgrep -fc 'tag bystander')"

# The tasks: a worker that forks without end meets the limit, and panelind still stops in time.
sed -i 's/notify, READY=1.*/fork-bomb, "100", notify, READY=1]/' /etc/panelind/panelind.yaml
systemctl restart panelind.service
is "it starts beside a fork bomb" active "$(unit ActiveState)"
is "which has no more than the limit" yes "$([ "$(cat "$group/pids.current")" -le 40 ] && echo yes)"
begin=$SECONDS
systemctl stop panelind.service
is "and stops within its budget" yes "$([ $((SECONDS - begin)) -le 26 ] && echo yes)"
is "cleanly" success "$(unit Result)"
is "nothing is left" '' "$(pgrep -f /srv/agent/worker)"
echo "guest: end after $(cut -d' ' -f1 /proc/uptime) s"
systemctl --no-block poweroff
