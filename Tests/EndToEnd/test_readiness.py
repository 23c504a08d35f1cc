# test_readiness.py
# When a worker counts as ready: what it tells by itself, what it is asked, and what is implied (CONTRACT section 4).
# Read harness/daemon.py first.

import json
import os
import signal
import socket
import time

import pytest

from harness import environment_of, free_port, is_alive, wait_until
from harness.oracle import Oracle

NOTIFY = {"probe.readiness.notify": True}


def goes(directory):
    """A file that lets the script go on, and its step."""
    file = directory / "go"
    return file, f"wait-file {file}"


# -- a descriptor


@pytest.mark.case("C38")
def test_a_newline_in_the_descriptor_is_ready(panelind):
    daemon = panelind(["ready-fd 4"], {"probe.readiness.fd": 4})
    daemon.ready()


@pytest.mark.case("C38")
@pytest.mark.parametrize("steps", [["write-fd 4 almost"], ["ready-fd-close 4"], ["write-fd 4 x", "ready-fd-close 4"], []])
def test_without_a_newline_the_startup_deadline_ends_it(panelind, steps):
    daemon = panelind(steps, {"probe.readiness.fd": 4, "probe.startup.deadline": "400ms", "restart.delay": "50ms"})
    exited = daemon.wait_event("worker_exited")
    assert exited["cause"] == "startup_deadline"
    assert exited["uptime_seconds"] >= 0.4
    assert exited["restart_in_seconds"] > 0
    daemon.wait_event("worker_started", generation=2)
    assert not daemon.events("worker_ready")


@pytest.mark.case("C38")
def test_what_follows_the_newline_is_ignored(panelind):
    script = "echo >&4; echo more >&4; printf x >&4; exec 4>&-; echo written; exec sleep 1000"
    daemon = panelind(command=["sh", "-c", script], settings={"probe.readiness.fd": 4})
    daemon.ready()
    daemon.wait_message("written")
    daemon.stop()
    assert len(daemon.events("worker_ready")) == 1
    assert not daemon.events("worker_unready")


# -- notifications


@pytest.mark.case("C39")
def test_ready_by_the_worker_itself(panelind, tmp_path):
    file, go = goes(tmp_path)
    daemon = panelind([go, "notify READY=1"], NOTIFY, sidecar=True)
    daemon.worker()
    wait_until(lambda: daemon.get("/ready").status == 503, "503 before READY=1")
    file.touch()
    daemon.ready()
    assert daemon.get("/ready").status == 200


@pytest.mark.case("C39")
def test_ready_by_a_child_of_the_worker(panelind, placement):
    daemon = panelind(["notify-from-child READY=1"], NOTIFY, placement=placement)
    daemon.ready()


@pytest.mark.case("C39")
def test_ready_by_a_stranger_is_refused(panelind, tmp_path):
    file, go = goes(tmp_path)
    daemon = panelind([go, "notify READY=1"], NOTIFY)
    path = environment_of(daemon.worker())[b"NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"READY=1", path)
    daemon.wait_event("notification_ignored")
    assert not daemon.events("worker_ready")
    file.touch()
    daemon.ready()


@pytest.mark.case("C39")
def test_the_notifications_decide_from_the_first_ready_on(panelind, tmp_path):
    """Without a probe, in direct mode: STOPPING=1 after READY=1 is not ready, another READY=1 is."""
    file, go = goes(tmp_path)
    daemon = panelind(["notify READY=1", "barrier", "notify STOPPING=1", go, "notify READY=1"], sidecar=True)
    daemon.ready()
    unready = daemon.wait_event("worker_unready")
    assert unready["generation"] == 1
    body = json.loads(daemon.get("/ready").body)
    assert (body["state"], body["reason"]) == ("unready", "worker_unready")
    file.touch()
    daemon.wait_event("worker_ready", count=2)


@pytest.mark.case("C39")
def test_reloading_is_not_ready_until_ready_again(panelind, tmp_path):
    file, go = goes(tmp_path)
    daemon = panelind(["notify READY=1", "barrier", r"notify 'RELOADING=1\nMONOTONIC_USEC=1'", go, "notify READY=1"])
    daemon.wait_event("worker_unready")
    file.touch()
    daemon.wait_event("worker_ready", count=2)


@pytest.mark.case("C39")
def test_a_given_probe_decides_alone(panelind):
    """READY=1 says nothing where probe.readiness asks by HTTP."""
    with Oracle([503]) as oracle:
        daemon = panelind(["notify READY=1", "barrier", "print told"], {"probe.readiness.http": oracle.url + "/r"})
        daemon.wait_message("told")
        oracle.wait_asked(3)
        assert not daemon.events("worker_ready")
        oracle.then(204)
        daemon.ready()


@pytest.mark.case("C39")
def test_a_barrier_is_answered(panelind):
    daemon = panelind(["notify READY=1", "barrier", "print through"], NOTIFY)
    daemon.wait_message("through")
    daemon.ready()


@pytest.mark.case("C39")
def test_the_socket_of_an_outer_systemd_is_not_handed_on(panelind, tmp_path):
    outer = {
        "NOTIFY_SOCKET": str(tmp_path / "outer"), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x",
    }
    daemon = panelind([f"dump-state {tmp_path}/state", "notify READY=1"], NOTIFY, environment=outer)
    daemon.ready()
    state = json.loads((tmp_path / "state").read_text())
    assert state["environment"]["NOTIFY_SOCKET"] not in ("", outer["NOTIFY_SOCKET"])
    names = set(state["environment_names"])
    assert not names & {"WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}


def test_a_later_generation_must_tell_again(panelind, tmp_path):
    daemon = panelind(["notify READY=1"], {**NOTIFY, "restart.delay": "50ms"})
    daemon.ready()
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(generation=2)


# -- deadlines and the watchdog


@pytest.mark.case("C39")
def test_a_worker_that_asks_for_time_gets_it(panelind):
    daemon = panelind(
        ["notify EXTEND_TIMEOUT_USEC=20000000", "boot 1200ms", "notify READY=1"],
        {**NOTIFY, "probe.startup.deadline": "600ms"})
    assert daemon.ready()["after_seconds"] > 0.6
    assert not daemon.events("worker_exited")


@pytest.mark.case("C39")
def test_the_time_it_asked_for_ends_too(panelind):
    daemon = panelind(["notify EXTEND_TIMEOUT_USEC=900000"], {**NOTIFY, "probe.startup.deadline": "300ms"})
    exited = daemon.wait_event("worker_exited")
    assert exited["cause"] == "startup_deadline"
    assert 0.85 <= exited["uptime_seconds"] < 10


@pytest.mark.case("C39")
def test_a_missed_watchdog_is_abrt(panelind):
    daemon = panelind(
        ["notify READY=1", "watchdog every 100ms for 1s"], {"worker.watchdog": "500ms", "restart.delay": "100ms"})
    exited = daemon.wait_event("worker_exited")
    assert (exited["cause"], exited["exit_signal"]) == ("watchdog", "SIGABRT")
    assert exited["uptime_seconds"] >= 1.2
    daemon.ready(generation=2)


@pytest.mark.case("C39")
def test_two_seconds_after_abrt_comes_kill(panelind):
    daemon = panelind(
        ["on ABRT print aborted", "notify READY=1"], {"worker.watchdog": "300ms", "restart.delay": "100ms"})
    daemon.wait_message("aborted")
    exited = daemon.wait_event("worker_exited")
    assert (exited["cause"], exited["exit_signal"]) == ("watchdog", "SIGKILL")
    assert 2.2 <= exited["uptime_seconds"] < 8


@pytest.mark.case("C39")
def test_the_worker_can_trigger_the_watchdog(panelind):
    daemon = panelind(["notify READY=1", "barrier", "notify WATCHDOG=trigger"], {"worker.watchdog": "1m"})
    exited = daemon.wait_event("worker_exited")
    assert (exited["cause"], exited["exit_signal"]) == ("watchdog", "SIGABRT")


def test_the_watchdog_is_told_to_the_worker(panelind, tmp_path):
    daemon = panelind([f"dump-state {tmp_path}/state", "notify READY=1"], {"worker.watchdog": "30s"})
    pid = daemon.worker()
    daemon.ready()
    environment = json.loads((tmp_path / "state").read_text())["environment"]
    assert environment["WATCHDOG_USEC"] == "30000000"
    assert environment["WATCHDOG_PID"] == str(pid)


@pytest.mark.case("C46")
def test_the_startup_deadline_is_a_failed_start(panelind):
    daemon = panelind(
        ["listen env", "health 503"],
        {"probe.readiness.http": "/ready", "probe.startup.deadline": "700ms", "restart.delay": "50ms"},
        environment={"PORT": free_port()})
    exited = daemon.wait_event("worker_exited")
    assert exited["cause"] == "startup_deadline"
    assert 0.7 <= exited["uptime_seconds"] < 10
    daemon.wait_event("worker_exited", generation=2)


@pytest.mark.case("C40")
def test_a_death_during_the_wait_is_seen_at_once(panelind):
    """The research wants 50 ms; here a second, for loaded machines. The probe's timeout is a minute."""
    with Oracle(["hang"]) as oracle:
        daemon = panelind(
            [], {"probe.readiness.http": oracle.url, "probe.readiness.timeout": "1m", "restart.delay": "20s"})
        oracle.wait_asked(1)
        pid = daemon.worker()
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        daemon.wait_event("worker_exited")
        assert time.monotonic() - begin < 1
        wait_until(lambda: oracle.asked[0].left, "the probe's connection is closed")


# -- implied readiness


def test_direct_mode_is_ready_when_the_port_accepts(panelind, tmp_path):
    file, go = goes(tmp_path)
    port = free_port()
    daemon = panelind(["print up", go, "listen env"], environment={"PORT": port}, sidecar=True)
    daemon.wait_message("up")
    assert daemon.get("/ready").status == 503
    file.touch()
    daemon.ready()


def test_direct_mode_without_port_is_ready_after_a_second_of_life(panelind):
    daemon = panelind([])
    assert 1 <= daemon.ready()["after_seconds"] < 5


def test_a_death_in_the_first_second_was_never_ready(panelind):
    daemon = panelind(["exit-after 500ms 0"], {"restart.delay": "50ms"})
    exited = daemon.wait_event("worker_exited")
    assert exited["exit_code"] == 0
    assert exited["restart_in_seconds"] > 0, "an end before ready is a failure, whatever the code"
    daemon.wait_event("worker_exited", generation=2)
    assert not daemon.events("worker_ready")


@pytest.mark.parametrize("status", [200, 404, 401, 302])
def test_socket_mode_is_ready_below_500(panelind, status):
    port = free_port()
    daemon = panelind(["listen activated", f"health {status}"], {
        "serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}"})
    daemon.ready()


def test_socket_mode_is_not_ready_with_5xx_or_silence(panelind, tmp_path):
    file = tmp_path / "status"
    file.write_text("503")
    port = free_port()
    daemon = panelind(["listen activated", f"health status-file {file}"], {
        "serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}", "log.level": "debug"}, sidecar=True)
    daemon.wait_event("probe_failed", count=2)
    assert json.loads(daemon.get("/ready").body)["state"] == "starting"
    file.write_text("200")
    daemon.ready()


def test_socket_mode_asks_the_path_it_was_told(panelind):
    port = free_port()
    daemon = panelind(["listen activated", "health 503"], {
        "serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}", "serve.readyPath": "/health", "serve.healthPath": "none"})
    daemon.ready()


# -- probes


PROBE = {"probe.readiness.period": "100ms"}


@pytest.mark.case("C47")
def test_a_redirect_passes_and_is_not_followed(panelind):
    with Oracle([(302, ["Location: /elsewhere"])]) as oracle:
        daemon = panelind([], {"probe.readiness.http": oracle.url + "/ready?x=1"})
        daemon.ready()
        assert {one.path for one in oracle.asked} == {"/ready?x=1"}
        head = oracle.asked[0].head
        assert head.startswith("GET ") and "\r\nHost: 127.0.0.1" in head and "panelind" in head


@pytest.mark.parametrize("status", [400, 404, 500, 101])
def test_what_is_not_200_to_399_fails(panelind, status):
    with Oracle([status]) as oracle:
        daemon = panelind([], {"probe.readiness.http": oracle.url, "log.level": "debug"})
        failed = daemon.wait_event("probe_failed", count=2)
        assert (failed["probe"], failed["generation"]) == ("readiness", 1)
        assert str(status) in failed["reason"] or status == 101
        assert not daemon.events("worker_ready")


def test_a_100_before_the_answer_is_passed_over(panelind):
    with Oracle([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]) as oracle:
        panelind([], {"probe.readiness.http": oracle.url}).ready()


@pytest.mark.parametrize("answer", ["close", b"220 mail.example ESMTP\r\n", b"HTTP/2 200\r\n\r\n"])
def test_what_is_no_answer_fails(panelind, answer):
    with Oracle([answer]) as oracle:
        daemon = panelind([], {"probe.readiness.http": oracle.url, "log.level": "debug"})
        daemon.wait_event("probe_failed", count=2)
        assert not daemon.events("worker_ready")


@pytest.mark.case("C41")
def test_two_failures_and_a_success_change_nothing_three_failures_do_once(panelind):
    with Oracle([200]) as oracle:
        daemon = panelind([], {**PROBE, "probe.readiness.http": oracle.url}, sidecar=True)
        daemon.ready()
        oracle.then(503, 503, 200, 503, 503, 200)
        before = len(oracle.asked)
        oracle.wait_asked(before + 8)
        assert not daemon.events("worker_unready")
        oracle.then(503)
        daemon.wait_event("worker_unready")
        assert daemon.get("/ready").status == 503
        assert daemon.get("/health").status == 200
        # It is asked on, and never restarted for it [kube 9649].
        oracle.wait_asked(len(oracle.asked) + 6)
        assert len(daemon.events("worker_unready")) == 1
        assert not daemon.events("worker_exited")
        oracle.then(200)
        daemon.wait_event("worker_ready", count=2)
        assert daemon.get("/ready").status == 200
        body = json.loads(daemon.get("/ready").body)
        assert (body["generation"], body["restarts"]) == (1, 0)


@pytest.mark.case("C41")
def test_successes_says_how_many_make_ready(panelind):
    with Oracle([200, 200, 503, 200, 200, 200]) as oracle:
        daemon = panelind([], {**PROBE, "probe.readiness.http": oracle.url, "probe.readiness.successes": 3})
        daemon.ready()
        assert len(oracle.asked) >= 6


@pytest.mark.case("C42")
def test_a_hung_probe_counts_at_its_timeout_and_is_dropped(panelind):
    with Oracle([200]) as oracle:
        daemon = panelind(
            [], {**PROBE, "probe.readiness.http": oracle.url, "probe.readiness.timeout": "300ms",
                 "probe.readiness.failures": 2})
        daemon.ready()
        oracle.then("hang")
        daemon.wait_event("worker_unready")
        failed = daemon.events("probe_failed")
        assert [one["consecutive"] for one in failed[:2]] == [1, 2]
        wait_until(lambda: len(oracle.asked) > 4 and oracle.asked[-2].left, "hung probes are closed")
        hung = [one for one in oracle.asked if one.left]
        assert all(0.25 <= one.left - one.began < 5 for one in hung)
        # One begins when the one before is over, not earlier: the oracle may see the close a moment after the next.
        begins = [one.began for one in oracle.asked[-len(hung) - 1:]]
        assert all(later - earlier >= 0.25 for earlier, later in zip(begins, begins[1:])), "probes overlapped"


@pytest.mark.case("C42")
def test_a_hung_command_is_killed_with_what_it_started(panelind, tmp_path):
    script = tmp_path / "probe.sh"
    script.write_text(f"echo $$ >>{tmp_path}/pids\nsleep 1000 & echo $! >>{tmp_path}/pids\nwait\n")
    daemon = panelind([], {
        "probe.readiness.exec": ["sh", str(script)], "probe.readiness.timeout": "400ms", "log.level": "debug"})

    def pids():
        file = tmp_path / "pids"
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    daemon.wait_event("probe_failed", count=1)
    first = pids()[:2]
    wait_until(lambda: not any(map(is_alive, first)), "the probe's processes are gone")
    daemon.wait_event("probe_failed", count=3)
    # Only the newest may live.
    assert len([pid for pid in pids() if is_alive(pid)]) <= 2
    assert not daemon.events("worker_exited")


def test_an_exec_probe_decides_by_its_code(panelind, tmp_path):
    file = tmp_path / "ok"
    daemon = panelind([], {
        "probe.readiness.exec": ["test", "-e", str(file)], "probe.readiness.period": "200ms", "log.level": "debug"})
    failed = daemon.wait_event("probe_failed")
    assert "exit 1" in failed["reason"]
    file.touch()
    daemon.ready()
    file.unlink()
    daemon.wait_event("worker_unready")


def test_an_exec_probe_sees_the_workers_environment_and_no_secret_socket(panelind, tmp_path):
    """It runs as the worker does: its variables, its directory."""
    directory = tmp_path / "work"
    directory.mkdir()
    daemon = panelind([], {
        "worker.environment": {"TEST_NAME": "value"}, "worker.directory": str(directory),
        "probe.readiness.exec": ["sh", "-c", f"env >{tmp_path}/env; pwd >>{tmp_path}/env"]})
    daemon.ready()
    text = (tmp_path / "env").read_text()
    assert "TEST_NAME=value" in text
    assert text.rstrip().endswith(str(directory))


def test_a_command_that_is_not_there_is_refused_before_anything_starts(panelind):
    daemon = panelind([], {"probe.readiness.exec": ["/no/such/probe"]})
    assert daemon.wait() == 78
    assert "probe.readiness.exec" in daemon.stderr


def test_a_tcp_probe(panelind, tmp_path):
    file, go = goes(tmp_path)
    port = free_port()
    daemon = panelind([go, f"listen {port}"], {
        "probe.readiness.tcp": f"127.0.0.1:{port}", "log.level": "debug"})
    failed = daemon.wait_event("probe_failed", count=2)
    assert "refused" in failed["reason"]
    file.touch()
    daemon.ready()


def test_a_line_of_output_can_end_the_startup(panelind, tmp_path):
    file, go = goes(tmp_path)
    daemon = panelind(["print 'almost listening'", go, "print 'INFO: listening on 8080'"], {
        "probe.startup.log": "listening on [0-9]+$"})
    daemon.wait_message("almost listening")
    assert not daemon.events("worker_ready")
    file.touch()
    daemon.ready()


def test_the_expression_is_searched_in_standard_error_too(panelind):
    daemon = panelind(["print 'Started reloader' to stderr"], {"probe.startup.log": "^Started "})
    daemon.ready()


def test_readiness_waits_for_the_startup_probe(panelind, tmp_path):
    with Oracle([200]) as readiness, Oracle([503]) as startup:
        daemon = panelind([], {
            "probe.readiness.http": readiness.url, "probe.startup.http": startup.url})
        startup.wait_asked(3)
        assert not readiness.asked
        startup.then(200)
        daemon.ready()
        asked = len(startup.asked)
        readiness.wait_asked(1)
        assert len(startup.asked) == asked, "a startup probe that passed is not asked again"


@pytest.mark.case("C46")
def test_liveness_waits_for_first_ready_and_restarts(panelind, tmp_path):
    file, go = goes(tmp_path)
    with Oracle([503, 503, 200, 503]) as oracle:
        daemon = panelind([go, "notify READY=1"], {
            **NOTIFY, "probe.liveness.http": oracle.url, "probe.liveness.period": "100ms", "restart.delay": "100ms"},
            sidecar=True)
        daemon.worker()
        assert not oracle.asked
        file.touch()
        ready = daemon.ready()
        assert ready
        exited = daemon.wait_event("worker_exited")
        assert exited["cause"] == "liveness"
        assert exited["restart_in_seconds"] > 0, "a liveness failure counts as a failure"
        # Two failures and a success, then three.
        assert len(oracle.asked) == 6
        oracle.then(200)
        daemon.ready(generation=2)
        assert daemon.health()["restarts"] == 1


@pytest.mark.case("C46")
def test_a_liveness_kill_uses_the_stop_signal_and_the_grace(panelind, tmp_path):
    with Oracle([503]) as oracle:
        daemon = panelind(["on TERM print 'asked to leave'", "notify READY=1"], {
            **NOTIFY, "probe.liveness.http": oracle.url, "probe.liveness.period": "100ms", "stop.grace": "700ms",
            "restart.delay": "10s"})
        exited = daemon.wait_event("worker_exited")
        assert (exited["cause"], exited["exit_signal"]) == ("liveness", "SIGKILL")
        assert "asked to leave" in exited["last_output"]


@pytest.mark.case("C48", "C44")
def test_the_sidecar_outlives_the_worker(panelind):
    """Without a probe, in backoff: /health 200, /ready 503 with Retry-After. Pebble says 200; CONTRACT decides."""
    daemon = panelind(["exit-after 100ms 7"], {"restart.delay": "20s", "restart.jitter": 0}, sidecar=True)
    daemon.wait_event("worker_backoff")
    health, ready = daemon.get("/health"), daemon.get("/ready")
    assert (health.status, ready.status) == (200, 503)
    assert 1 <= int(ready.headers["retry-after"]) <= 20
    assert json.loads(ready.body)["reason"] == "worker_backoff"
