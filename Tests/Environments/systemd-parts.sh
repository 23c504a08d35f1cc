# systemd-parts.sh
# What systemd.sh shows, a function for each sentence. $suite, $mode and $version are set, the system is booted.
# Read systemd-words.sh first.
# shellcheck shell=bash disable=SC2015,SC2016,SC2154

part_install() {
    say "install"
    check "dpkg installs it" sd_exec dpkg -i /root/panelind.deb
    expect "nothing is enabled" disabled "$(sd_exec systemctl is-enabled panelind.service || true)"
    expect "nothing runs" inactive "$(unit ActiveState)"
    expect "it is configured, with no trigger left" 'ii ' "$(sd_exec dpkg-query -W -f '${db:Status-Abbrev}' panelind)"
    # Another unit's faults are not ours to judge.
    expect "systemd-analyze verify has nothing to say" '' "$(sd_exec systemd-analyze verify --recursive-errors=no \
        --man=no panelind.service panelind@api.service panelind.socket 2>&1 || true)"
    check "the exposure is 2.0 at most" sd_exec systemd-analyze security --threshold=20 panelind.service
    note "$(sd_exec systemd-analyze security panelind.service | sed -n 's/.*Overall exposure level[^:]*: //p')"
    if [ "$version" -ge 253 ]; then type=notify-reload; else type=notify; fi
    expect "the type is $type" "$type" "$(unit Type)"
    expect "the instances' too" "$type" "$(unit Type panelind@api.service)"
    # As apt does it when systemd is upgraded.
    sd_exec rm -rf /usr/lib/systemd/system/panelind.service.d
    sd_exec dpkg-trigger --by-package=systemd /usr/lib/systemd/systemd
    sd_exec dpkg --configure --pending >/dev/null
    expect "another systemd chooses the type again" "$type" "$(unit Type)"
    expect "the program runs" "$(sd_exec dpkg-query -W -f '${Version}' panelind)" "$(sd_exec panelind --version)"
    check "every command has its page" sd_exec sh -c 'cd /usr/share/man && test -e man5/panelind.yaml.5.gz &&
        panelind --help | sed -n "/^SUBCOMMANDS/,\$s/^  \([a-z][a-z]*\) .*/\1/p" | while read -r c; do
            test -e "man1/panelind-$c.1.gz" || exit 1; done'
    check "bash completes" sd_exec bash -c '. /usr/share/bash-completion/completions/panelind && complete -p panelind'
}

part_unconfigured() {
    say "not configured"
    expect "without a worker it does not start" 1 "$(quietly sd_exec systemctl start panelind.service && echo 0 || echo 1)"
    expect "that is a configuration error" 78 "$(unit ExecMainStatus)"
    expect "which is not tried again" 'failed 0' "$(unit ActiveState) $(unit NRestarts)"
    expect "systemctl status says why" '*worker.command*' "$(sd_exec systemctl status panelind.service || true)"
}

part_start() {
    say "start"
    drop_in 'LoadCredential=api-key:/etc/agent.key'
    configure "$(worker boot 1s)" '  secrets: { API_KEY: "${CREDENTIALS_DIRECTORY}/api-key" }'
    sd_exec systemctl start panelind.service &
    local start=$!
    retry 10 unit_is ActiveState activating || true
    expect "while the worker boots the unit is activating" activating "$(unit ActiveState)"
    check "with a status that says so" retry 5 unit_is StatusText '*is starting*'
    wait "$start" && ok "start returns" || bad "start failed"
    expect "when the worker is ready" true "$(health | jq '.state == "ready"')"
    expect "and the unit is active" active "$(unit ActiveState)"
    expect "systemctl status tells the worker's state" '*Status: "*ready*"*' "$(sd_exec systemctl status panelind.service)"
    note "status: $(unit StatusText)"
    expect "requests are answered" 200 "$(sd_net curl -s -o /dev/null -w '%{http_code}' --noproxy '*' http://127.0.0.1:8080/pid)"
    expect "the worker has the credential, as a user that exists only while it runs" s3cret "$(ask '/env?API_KEY')"
    expect "who is not root" '[1-9]*' "$(sd_exec ps -o uid= -p "$(ask /pid)" | tr -d ' ')"
    if sd_exec sh -c 'grep -qs "s3cre[t]" /proc/*/cmdline'; then bad "the secret is on a command line"; else ok "no command line has it"; fi
    expect "systemd's own watchdog is not the worker's" 404 \
        "$(sd_net curl -s -o /dev/null -w '%{http_code}' --noproxy '*' 'http://127.0.0.1:8080/env?WATCHDOG_USEC')"
    expect "nor is its notification socket" '404 or another' "$(case $(ask '/env?NOTIFY_SOCKET') in
        */systemd/notify*) echo systemd ;; *) echo '404 or another' ;; esac)"
    expect "root asks it for its state" '*ready*' "$(sd_exec panelind status 2>&1 || true)"
    local seen
    seen=$(sd_exec sh -c 'systemctl status panelind.service; systemctl show panelind.service; journalctl --no-pager --all
        panelind status --json; panelind why; panelind logs
        tr "\0" "\n" <"/proc/$(systemctl show -P MainPID panelind.service)/environ"' 2>&1 || true)
    [[ $seen == *CREDENTIALS_DIRECTORY=* ]] && ok "panelind's environment names where the secret is" || bad "there is no credential"
    [[ $seen != *s3cret* ]] && ok "status, journal, control and environment do not have it" || bad "the secret can be seen"

    # Only EXTEND_TIMEOUT_USEC can save this start: a first start has its startup deadline, whatever TimeoutStartSec= says.
    configure "$(worker boot 5s)"
    drop_in TimeoutStartSec=2s
    tell restart
    expect "a start that takes longer than TimeoutStartSec= succeeds within the startup deadline" 'active running' \
        "$(unit ActiveState) $(unit SubState)"
    drop_in
}

part_journal() {
    say "journal"
    mark
    configure "$(worker print '<3>as an error' print '<7>for debuggers' print-text \
        'Traceback (most recent call last):' print-text '  File api.py, line 1, in quote' print-text 'ValueError: no such panel')"
    tell restart
    retry 5 logged '.PANELIND_EVENT == "worker_ready"' || true
    check "an event can be filtered by" logged '.PANELIND_EVENT == "worker_ready" and .PANELIND_GENERATION == "1"'
    expect "journalctl finds it by its fields" '*ready*' "$(sd_exec journalctl -q --no-pager -o cat _PID="$(main_pid)" \
        PANELIND_EVENT=worker_ready PANELIND_GENERATION=1)"
    check "the worker's lines carry stream and generation" logged \
        '.MESSAGE == "as an error" and .PANELIND_STREAM == "stdout" and .PANELIND_GENERATION == "1"'
    check "prefixes become priorities" logged '.MESSAGE == "as an error" and .PRIORITY == "3"'
    check "each its own" logged '.MESSAGE == "for debuggers" and .PRIORITY == "7"'
    retry 5 logged '(.MESSAGE | tostring | test("ValueError"))' || true
    check "a traceback is one entry" logged \
        '(.MESSAGE | tostring | test("^Traceback(.|\n)*ValueError: no such panel$")) and .PRIORITY == "3"'
    check "entries are the unit's" logged '._SYSTEMD_UNIT == "panelind.service" and .PANELIND_EVENT == "panelind_started"'

    # More than a datagram holds; and a journal that takes nothing, which is not the worker's to wait for.
    mark
    configure "$(worker print 1 lines bytes 900000)" 'log: { lineLimit: 1MiB }'
    tell restart
    check "a line of 900,000 bytes is one entry" retry 10 logged '(.MESSAGE | tostring | length) >= 900000'
    configure "$(worker every 5ms print 20 lines bytes 1000)" 'log: { buffer: 1MiB }'
    drop_in LogRateLimitIntervalSec=0
    tell restart
    local journald
    journald=$(sd_exec systemctl show -P MainPID systemd-journald.service)
    sd_exec kill -STOP "$journald"
    sleep 3
    expect "with a journal that has stopped the worker answers" '[0-9]*' "$(ask /pid)"
    sd_exec kill -CONT "$journald"
    check "what was lost meanwhile is counted" retry 20 logged '.PANELIND_EVENT == "log_dropped"'
    expect "panelind is well" 'active 0' "$(unit ActiveState) $(unit NRestarts)"
    tell stop
}

part_reload() {
    say "reload"
    # On 252 the command of the unit asks; from 253 on a signal and the notification.
    local before
    configure "$(worker)"
    drop_in
    tell start
    before=$(main_pid)
    mark
    begin_load
    expect "a reload under load returns" 0 "$(quietly reload && echo 0 || echo $?)"
    expect "when the next worker serves" true "$(health | jq '.state == "ready" and .generation == 2')"
    end_load "no request failed"
    expect "panelind is the same" "$before" "$(main_pid)"
    expect "and active" active "$(unit ActiveState)"

    configure '[/srv/agent/worker' '  no'
    local begin=$SECONDS
    quietly reload || true
    [ $((SECONDS - begin)) -le 10 ] && ok "a reload of a bad configuration ends" || bad "it took $((SECONDS - begin)) s"
    expect "and changes nothing" true "$(health | jq '.state == "ready" and .generation == 2')"
    retry 5 unit_is ActiveState active || true
    expect "the unit is active" 'active running' "$(unit ActiveState) $(unit SubState)"
    retry 5 logged '.PANELIND_EVENT == "config_rejected"' || true
    check "the journal has the reason" logged '.PANELIND_EVENT == "config_rejected"'
}

part_harmless() {
    say "daemon-reload"
    local before
    before="$(main_pid) $(generation) $(unit NRestarts)"
    begin_load
    sd_exec systemctl daemon-reload
    sd_exec systemctl daemon-reexec
    sleep 1
    end_load "nobody noticed"
    expect "nothing was restarted" "$before" "$(main_pid) $(generation) $(unit NRestarts)"
    expect "still active" 'active running' "$(unit ActiveState) $(unit SubState)"
    expect "the status is kept" '*ready*' "$(unit StatusText)"
}

part_watchdogs() {
    say "watchdogs"
    local before
    configure "$(worker tag first-life)"
    drop_in WatchdogSec=2s TimeoutAbortSec=2s
    tell restart
    sleep 5
    expect "a healthy panelind is left alone" 0 "$(unit NRestarts)"
    before=$(ask /pid)
    configure "$(worker tag second-life)"
    sd_exec kill -STOP "$(main_pid)"
    retry 20 unit_is NRestarts 1 || true
    expect "a stopped panelind is restarted by systemd" 1 "$(unit NRestarts)"
    check "it serves again" retry 20 ready_as 1
    check "the old worker is gone" none_left first-life
    expect "another worker answers" yes "$([ "$(ask /pid)" != "$before" ] && echo yes)"
    retry 5 unit_is ActiveState active || true

    # The worker that stops to say WATCHDOG=1 is panelind's to restart: the unit lives on.
    mark
    before=$(main_pid)
    configure "$(worker watchdog every 200ms for 1s)" '  watchdog: 700ms' 'restart: { delay: 100ms }'
    tell restart
    retry 20 logged '.PANELIND_EVENT == "worker_exited" and (.PANELIND_CAUSE == "watchdog" or (.MESSAGE | test("watchdog")))' || true
    check "a worker that misses its watchdog is ended" logged \
        '.PANELIND_EVENT == "worker_exited" and (.PANELIND_CAUSE == "watchdog" or (.MESSAGE | test("watchdog")))'
    check "and started again" retry 20 logged '.PANELIND_EVENT == "worker_ready" and .PANELIND_GENERATION == "2"'
    expect "the unit lives on" 'active 0' "$(unit ActiveState) $(unit NRestarts)"
    drop_in
}

part_killed() {
    say "kill -9"
    configure "$(worker setsid-child begin ignore TERM tag first-life end fork-orphans 3 begin ignore TERM tag first-life end)"
    tell restart
    local before
    before=$(main_pid)
    check "the worker has a tree" retry 10 some_left first-life
    configure "$(worker tag second-life)"
    sd_exec kill -KILL "$before"
    retry 10 unit_is NRestarts 1 || true
    retry 10 ready_as 1 || true
    check "nothing of the old tree is left" retry 10 none_left first-life
    expect "systemd started panelind again" 1 "$(unit NRestarts)"
    check "which serves" retry 10 ready_as 1
    tell stop
    expect "after a stop the control group is empty" '' "$(unit ControlGroup | grep -v '^$' |
        while read -r g; do sd_exec cat "/sys/fs/cgroup$g/cgroup.procs" 2>/dev/null || true; done)"

    # Without a next panelind that could sweep: what is left is systemd's to end, and its group is empty.
    configure "$(worker setsid-child begin ignore TERM tag first-life end)"
    drop_in Restart=no
    tell start
    local group
    group=$(unit ControlGroup)
    sd_exec kill -KILL "$(main_pid)"
    retry 10 unit_is ActiveState failed || true
    expect "kill -9 of panelind for good is a failure" 'failed signal' "$(unit ActiveState) $(unit Result)"
    expect "that leaves nothing in the control group" '/?* none' \
        "$group $(sd_exec sh -c "cat /sys/fs/cgroup$group/cgroup.procs 2>/dev/null | grep . || echo none")"
    check "and no process" none_left first-life
    sd_exec systemctl reset-failed panelind.service
    drop_in
}

part_stop() {
    say "stop"
    local begin answer
    configure "$(worker)" 'stop: { budget: 14s, drain: 9s }'
    # Less than the drain takes: only EXTEND_TIMEOUT_USEC can save the request.
    drop_in TimeoutStopSec=3s
    tell start
    ask '/slow?ms=6000' >"$SD_WORK/slow" 2>&1 &
    answer=$!
    sleep 0.5
    begin=$SECONDS
    expect "a stop with a request in flight succeeds" 0 "$(quietly sd_exec systemctl stop panelind.service && echo 0 || echo $?)"
    wait "$answer" && ok "the request was answered" || bad "the request was lost: $(cat "$SD_WORK/slow")"
    [ $((SECONDS - begin)) -le 14 ] && ok "within the budget ($((SECONDS - begin)) s)" || bad "it took $((SECONDS - begin)) s"
    expect "and cleanly" 'inactive success' "$(unit ActiveState) $(unit Result)"

    # A worker that will not leave is killed at the end of the grace, and that is a clean stop too.
    configure '[/srv/agent/worker, ignore, TERM, notify, READY=1]' 'serve: { mode: direct }' 'stop: { budget: 3s }'
    drop_in
    tell start
    begin=$SECONDS
    quietly sd_exec systemctl stop panelind.service || true
    [ $((SECONDS - begin)) -le 4 ] && ok "a worker that ignores TERM ends within the budget" || bad "it took $((SECONDS - begin)) s"
    expect "that is success" success "$(unit Result)"
}

part_never_ready() {
    say "never ready"
    tell stop
    mark
    configure '[/srv/agent/worker, print, "no database here", sleep, 60m]' \
        'serve: { mode: direct }' 'probe: { startup: { deadline: 2s }, readiness: { notify: true } }' 'restart: { limit: 0 }'
    drop_in Restart=no
    expect "start fails" 1 "$(quietly sd_exec systemctl start panelind.service && echo 0 || echo 1)"
    expect "panelind gave up" '70 exit-code' "$(unit ExecMainStatus) $(unit Result)"
    local status
    status=$(sd_exec systemctl status panelind.service || true)
    expect "systemctl status has the reason" '*not ready within*' "$status"
    note "status: $(unit StatusText)"

    # Tried again and again, until systemd has waited long enough.
    configure '[/srv/agent/worker, exit, "9"]' 'serve: { mode: direct }' 'restart: { maxDelay: 500ms }' \
        'probe: { startup: { deadline: 1s } }' 'stop: { budget: 2s }'
    drop_in Restart=no TimeoutStartSec=4s
    expect "start fails where the worker never comes" 1 "$(quietly sd_exec systemctl start panelind.service && echo 0 || echo 1)"
    expect "for its time is over" timeout "$(unit Result)"
    expect "systemctl status has that reason too" '*; before: *exit 9*' "$(unit StatusText)"
    sd_exec systemctl reset-failed panelind.service
    drop_in
}

part_exits() {
    say "exit codes"
    # refused : a start that must fail, told as the unit's state, panelind's code and the number of restarts.
    refused() {
        quietly sd_exec systemctl start panelind.service && echo started
        echo "$(unit ActiveState) $(unit ExecMainStatus) $(unit NRestarts)"
        sd_exec systemctl reset-failed panelind.service
    }
    tell stop
    configure '[/srv/agent/none]' 'serve: { mode: direct }'
    expect "a command that does not exist is not tried again" 'failed 127 0' "$(refused)"
    echo words >"$SD_ROOT/srv/agent/words"
    configure '[/srv/agent/words]' 'serve: { mode: direct }'
    expect "nor one that cannot be executed" 'failed 126 0' "$(refused)"
    configure '[/srv/agent/worker' '  no'
    expect "nor a configuration that cannot be read" 'failed 78 0' "$(refused)"
    drop_in ExecStart= 'ExecStart=/usr/bin/panelind run --nonsense'
    expect "nor a wrong usage" 'failed 64 0' "$(refused)"

    configure '[/srv/agent/worker, exit, "9"]' 'serve: { mode: direct }' 'restart: { limit: 0 }'
    drop_in RestartSec=100ms
    sd_exec systemctl start --no-block panelind.service
    check "giving up (70) is tried again, and again" retry 20 unit_is NRestarts '[3-9]*'
    quietly sd_exec systemctl stop panelind.service || true

    # Once ready the unit stays active while panelind brings the next worker, and says so.
    configure "$(worker)" 'restart: { delay: 3s, jitter: 0 }'
    drop_in
    sd_exec systemctl reset-failed panelind.service 2>/dev/null || true
    tell start
    sd_exec kill -SEGV "$(ask /pid)"
    check "after a crash the status says what happened" retry 5 unit_is StatusText '*SIG*'
    note "status: $(unit StatusText)"
    expect "the unit stays active" 'active 0' "$(unit ActiveState) $(unit NRestarts)"
    check "and the next worker serves" retry 10 ready_as 2
    tell stop
}

part_sockets() {
    say "socket activation"
    local before
    tell stop
    configure "$(worker boot 500ms)"
    sd_exec systemctl start panelind.socket
    expect "nothing runs before the first connection" inactive "$(unit ActiveState)"
    expect "which is answered" '[0-9]*' "$(ask /pid)"
    expect "and has started it" active "$(unit ActiveState)"
    before=$(main_pid)
    begin_load
    for _ in 1 2 3 4; do tell restart; done
    end_load "four restarts of panelind under load fail no request"
    expect "panelind is another" yes "$([ "$(main_pid)" != "$before" ] && echo yes)"
    begin_load
    before=$(main_pid)
    # The requests in flight die with a KILL; nobody may be refused.
    sd_exec kill -KILL "$before"
    retry 20 unit_is NRestarts 1 || true
    retry 20 ready_as 1 || true
    touch "$SD_WORK/stop"
    wait "$LOAD" || true
    expect "kill -9 of panelind refuses nobody" 0 "$(jq '[.failed[] | select(test("refused"))] | length' "$SD_WORK/load.json")"
    sd_exec systemctl stop panelind.socket panelind.service
}

part_instances() {
    say "instances"
    sed 's/^worker:/serve: { listen: "127.0.0.1:9001" }\nsidecar: { listen: "127.0.0.1:9101" }\nworker:/' \
        "$SD_ROOT/etc/panelind/panelind.yaml" >"$SD_ROOT/etc/panelind/api.yaml"
    sed 's/9\([01]\)01/9\102/' "$SD_ROOT/etc/panelind/api.yaml" >"$SD_ROOT/etc/panelind/web.yaml"
    check "two start" sd_exec systemctl start panelind@api.service panelind@web.service
    expect "each serves" '[0-9]* [0-9]*' "$(ask /pid 9001) $(ask /pid 9002)"
    expect "as users of their own" 2 "$(sd_exec ps -o user= -p "$(ask /pid 9001),$(ask /pid 9002)" | sort -u | wc -l)"
    check "and stop" sd_exec systemctl stop panelind@api.service panelind@web.service
}

part_upgrade() {
    say "upgrade"
    local before
    sd_exec systemctl enable -q --now panelind.socket panelind.service
    before=$(main_pid)
    begin_load
    check "the package is installed again" sd_exec dpkg -i --force-confold /root/panelind.deb
    end_load "under load, with the socket, nobody is refused"
    expect "the new panelind runs" yes "$([ "$(main_pid)" != "$before" ] && echo yes)"
    expect "the configuration is kept" '*/srv/agent/worker*' "$(cat "$SD_ROOT/etc/panelind/panelind.yaml")"
}

part_purge() {
    say "purge"
    drop_in 'LoadCredential=api-key:/etc/agent.key'
    check "dpkg purges it while it runs" sd_exec dpkg --purge panelind
    expect "nothing runs" '' "$(processes /srv/agent/worker)$(processes /usr/bin/panelind)"
    expect "no unit is left" '' "$(sd_exec systemctl list-units --all --no-legend 'panelind*')"
    expect "no file is left" '' "$(sd_exec find / -xdev \( -path /proc -o -path /sys -o -path /var/lib/dpkg \
        -o -path /root/panelind.deb -o -path /var/log \) -prune -o -iname '*panelind*' -print | paste -sd' ')"
    expect "nor in /run" '' "$(sd_exec find /run -iname '*panelind*' ! -path '/run/systemd/*' | paste -sd' ')"
    expect "the system is well" running "$(sd_exec systemctl is-system-running || true)"
}
