# test_restarts.py
# What follows an end: backoff, its reset, giving up, and starts that fail: CONTRACT section 2, restart.*. C27 to C37.
# Gaps are measured by the workers' own clock, which is monotonic; the upper bounds allow for a slow machine.

import os
import resource
import signal
import subprocess
import threading
import time

import pytest

from harness import free_port, is_alive, scripted_worker, wait_until

FLAT = {"restart.jitter": 0, "restart.factor": 1}


def starts(path):
    """The instants, in seconds, at which workers wrote `record starts s`."""
    return [int(line.split()[1]) / 1e9 for line in path.read_text().splitlines()] if path.exists() else []


def gaps(path):
    times = starts(path)
    return [later - earlier for earlier, later in zip(times, times[1:])]


@pytest.mark.case("C27")
def test_the_backoff_doubles_up_to_its_cap(panelind, placement):
    wanted = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    daemon = panelind(
        ["record starts s", "exit 1"],
        {"restart.delay": "100ms", "restart.maxDelay": "1s", "restart.jitter": 0, "restart.limit": 6},
        placement=placement,
    )
    assert daemon.wait(60) == 70
    measured = gaps(daemon.directory / "starts")
    assert [event["delay_seconds"] for event in daemon.events("worker_backoff")] == wanted
    assert [event["restart_in_seconds"] for event in daemon.events("worker_exited")] == [*wanted, None]
    assert len(measured) == 6
    for delay, gap in zip(wanted, measured):
        assert delay <= gap < delay + 0.8, measured


@pytest.mark.case("C27")
def test_jitter_spreads_every_wait_within_its_bounds(panelind):
    daemon = panelind(
        ["exit 1"], {"restart.delay": "50ms", "restart.factor": 1, "restart.jitter": 0.2, "restart.limit": 20}
    )
    assert daemon.wait(60) == 70
    delays = [event["delay_seconds"] for event in daemon.events("worker_backoff")]
    assert len(delays) == 20
    assert all(0.04 <= delay <= 0.06 for delay in delays), delays
    assert len(set(delays)) > 10
    assert min(delays) < 0.05 < max(delays)


def test_two_daemons_do_not_wait_alike(panelind):
    settings = {"restart.delay": "50ms", "restart.factor": 1, "restart.limit": 5}
    both = [panelind(["exit 1"], settings) for _ in range(2)]
    waits = []
    for daemon in both:
        assert daemon.wait() == 70
        waits.append([event["delay_seconds"] for event in daemon.events("worker_backoff")])
    assert waits[0] != waits[1]


def until_calm(then):
    """Fails at once while there is no file `calm`; with it, obeys the steps."""
    calm = " ".join(f"'{word}'" for word in scripted_worker(*then))
    return ["sh", "-c", f"test -e calm || exit 1; exec {calm}"]


@pytest.mark.case("C28")
def test_the_count_returns_to_zero_after_the_reset_time(panelind):
    daemon = panelind(
        command=until_calm(["listen env", "wait-file go", "exit 1"]),
        settings={
            "restart.delay": "50ms",
            "restart.maxDelay": "400ms",
            "restart.jitter": 0,
            "restart.resetAfter": "700ms",
        },
        environment={"PORT": free_port()},
    )
    daemon.wait_event("worker_backoff", delay_seconds=0.4)
    (daemon.directory / "calm").touch()
    ready = daemon.wait_event("worker_ready")
    time.sleep(1.0)
    (daemon.directory / "go").touch()
    exited = daemon.wait_event("worker_exited", generation=ready["generation"])
    assert exited["restart_in_seconds"] == 0.05
    daemon.stop()


@pytest.mark.case("C29")
def test_just_before_the_reset_time_the_count_goes_on(panelind):
    daemon = panelind(
        command=until_calm(["listen env", "wait-file go", "exit 1"]),
        settings={
            "restart.delay": "50ms",
            "restart.maxDelay": "400ms",
            "restart.jitter": 0,
            "restart.resetAfter": "60s",
        },
        environment={"PORT": free_port()},
    )
    daemon.wait_event("worker_backoff", delay_seconds=0.4)
    (daemon.directory / "calm").touch()
    ready = daemon.wait_event("worker_ready")
    (daemon.directory / "go").touch()
    exited = daemon.wait_event("worker_exited", generation=ready["generation"])
    assert exited["restart_in_seconds"] == 0.4
    daemon.stop()


def test_the_first_failure_after_ten_seconds_ready_waits_nothing(panelind):
    daemon = panelind(
        ["record starts s", "listen env", "wait-file go", "exit 1"],
        {"restart.delay": "5s"},
        environment={"PORT": free_port()},
    )
    daemon.ready()
    time.sleep(10.2)
    (daemon.directory / "go").touch()
    exited = daemon.wait_event("worker_exited", generation=1)
    assert exited["restart_in_seconds"] == 0
    # The second of the count waits, however long its worker was ready.
    second = daemon.wait_event("worker_exited", generation=2)
    assert second["restart_in_seconds"] >= 5
    assert daemon.events("worker_backoff", generation=1) == []
    daemon.stop()


def test_a_first_failure_before_ten_seconds_ready_waits(panelind):
    daemon = panelind(
        ["listen env", "wait-file go", "exit 1"],
        {"restart.delay": "100ms", "restart.jitter": 0},
        environment={"PORT": free_port()},
    )
    daemon.ready()
    (daemon.directory / "go").touch()
    assert daemon.wait_event("worker_exited")["restart_in_seconds"] == 0.1
    daemon.stop()


@pytest.mark.case("C30")
def test_a_stop_during_the_backoff_is_immediate(panelind, placement):
    daemon = panelind(["exit 1"], {"restart.delay": "30s"}, sidecar=True, placement=placement)
    daemon.wait_event("worker_backoff")
    wait_until(lambda: daemon.health()["state"] == "backoff", "backoff")
    assert daemon.health()["reason"] == "worker_backoff"
    assert daemon.stop() == 0
    assert daemon.took < 1.5
    assert len(daemon.events("worker_started")) == 1
    assert daemon.events("panelind_stopped")[0]["exit_code"] == 0


@pytest.mark.case("C31")
def test_a_stop_of_a_flapping_worker_never_starts_another(panelind):
    for _ in range(12):
        daemon = panelind(["sleep 3ms", "exit 1"], {"restart.delay": "2ms", **FLAT})
        daemon.wait_event("worker_started", count=5)
        assert daemon.stop() == 0
        names = [event["event"] for event in daemon.events()]
        assert names[-1] == "panelind_stopped"
        asked = names.index("drain_begin") if "drain_begin" in names else len(names)
        assert "worker_started" not in names[asked:]
        assert daemon.survivors() == []


@pytest.mark.case("C31")
def test_a_worker_that_crashes_in_its_grace_is_not_replaced(panelind, placement):
    daemon = panelind(
        ["on TERM signal-self SEGV"], {"worker.limits.core": 0, "restart.delay": "1ms"}, placement=placement
    )
    daemon.ready()
    assert daemon.stop() == 0
    assert len(daemon.events("worker_started")) == 1
    assert daemon.events("worker_exited")[0]["cause"] == "requested"


@pytest.mark.case("C32")
def test_the_limit_is_named_when_it_is_reached(panelind):
    daemon = panelind(
        ["exit 1"], {"restart.delay": "5ms", **FLAT, "restart.limit": 3, "restart.onGiveUp": "hold"}, sidecar=True
    )
    failed = daemon.wait_event("worker_failed")
    assert failed["severity"] == "CRITICAL"
    assert "3" in failed["because"] and "restart.limit" in failed["because"]
    assert len(daemon.events("worker_started")) == 4
    assert daemon.health()["state"] == "failed"
    assert daemon.stop() == 0


@pytest.mark.case("C33")
@pytest.mark.parametrize("end", ["exit 0", "exit 1", "signal-self KILL", "signal-self SEGV"])
def test_always_restarts_whatever_the_end(panelind, end):
    daemon = panelind(
        ["listen env", "wait-file go", end],
        {"restart.delay": "10ms", **FLAT, "worker.limits.core": 0, "restart.permanentExitCodes": []},
        environment={"PORT": free_port()},
    )
    daemon.ready()
    (daemon.directory / "go").touch()
    daemon.wait_event("worker_started", generation=5)
    daemon.stop()
    assert [event["generation"] for event in daemon.events("worker_started")][:5] == [1, 2, 3, 4, 5]


@pytest.mark.case("C33")
@pytest.mark.parametrize(
    ("end", "codes", "restarts"),
    [
        ("exit 0", [0], False),
        ("exit 143", [0, 143], False),
        ("exit 143", [0], True),
        ("signal-self TERM", [0, 143], True),
    ],
)
def test_on_failure_follows_the_list_of_successes(panelind, end, codes, restarts):
    """A death by signal is no exit code: 143 in the list is the code, not SIGTERM."""
    daemon = panelind(
        ["listen env", "wait-file go", end],
        {"restart.delay": "10ms", **FLAT, "restart.policy": "on-failure", "restart.successCodes": codes},
        environment={"PORT": free_port()},
    )
    daemon.ready()
    (daemon.directory / "go").touch()
    if restarts:
        daemon.wait_event("worker_started", generation=2)
        daemon.stop()
    else:
        assert daemon.wait() == int(end.split()[1])


@pytest.mark.case("C34")
def test_a_clean_end_is_no_failure_and_waits_the_base_delay(panelind):
    daemon = panelind(
        ["listen env", "wait-file go", "exit-after 100ms 0"],
        {"restart.delay": "50ms", "restart.jitter": 0, "restart.limit": 1},
        environment={"PORT": free_port()},
        sidecar=True,
    )
    daemon.ready()
    (daemon.directory / "go").touch()
    # Each is ready within its 100 ms or not: only those that were count here.
    for generation in range(1, 5):
        exited = daemon.wait_event("worker_exited", generation=generation)
        if not daemon.events("worker_ready", generation=generation):
            break
        assert (exited["exit_code"], exited["restart_in_seconds"]) == (0, 0.05)
        assert daemon.events("worker_failed") == []
    daemon.stop() if daemon.popen.poll() is None else None


@pytest.mark.case("C36")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_no_process_at_the_first_start_is_71(panelind):
    daemon = panelind([], shared=True, preexec_fn=poor(processes=2))
    assert daemon.wait() == 71
    assert "EAGAIN" in "".join(event["message"] for event in daemon.events()) + daemon.stderr


@pytest.mark.case("C36")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_no_process_later_is_a_failed_start_that_recovers(panelind):
    become = poor()

    def limit(processes):
        # Only a process of the same user may always do this.
        command = ["prlimit", "--pid", str(daemon.pid), f"--nproc={processes}:"]
        subprocess.run(command, preexec_fn=become, check=True, cwd="/")

    daemon = panelind(
        ["listen env", "wait-file go", "exit 1"],
        {"restart.delay": "100ms", **FLAT},
        shared=True,
        sidecar=True,
        environment={"PORT": free_port()},
        preexec_fn=become,
    )
    daemon.ready()
    limit(1)
    (daemon.directory / "go").touch()
    exited = daemon.wait_event("worker_exited", generation=3)
    assert exited["pid"] is None and "EAGAIN" in exited["message"]
    assert exited["restart_in_seconds"] == 0.1
    assert daemon.get("/health").status == 200
    (daemon.directory / "go").unlink()
    limit(4096)
    daemon.wait_event("worker_ready", count=2)
    assert daemon.stop() == 0


@pytest.mark.case("C36")
def test_no_descriptor_later_is_a_failed_start_that_recovers(panelind, placement):
    daemon = panelind(
        ["listen env", "wait-file go", "exit 1"],
        {"restart.delay": "100ms", **FLAT},
        sidecar=True,
        environment={"PORT": free_port()},
        placement=placement,
    )
    daemon.ready()
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4, before[1]))
    (daemon.directory / "go").touch()
    exited = daemon.wait_event("worker_exited", generation=3)
    assert exited["pid"] is None
    assert exited["cause"] == "exit"
    (daemon.directory / "go").unlink()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
    daemon.wait_event("worker_ready", count=2)
    assert daemon.get("/ready").status == 200
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def poor(processes=None):
    """In the child: a user that nobody else is, so that its limit of processes is its own."""
    uid = 100_000 + os.getpid() * 16 % 1_000_000 + threading.get_native_id() % 16

    def become():
        if processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)

    return become


@pytest.mark.case("C37")
def test_after_a_suspension_one_restart_is_due_and_no_more(panelind):
    """The clock of the wall cannot be moved here; SIGSTOP is the clock gap that a frozen CPU is."""
    daemon = panelind(
        ["record starts s", "listen env", "wait-file go", "exit 1"],
        {"restart.delay": "300ms", **FLAT},
        environment={"PORT": free_port()},
    )
    daemon.ready()
    (daemon.directory / "go").touch()
    daemon.wait_event("worker_backoff", generation=1)
    (daemon.directory / "go").unlink()
    os.kill(daemon.pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(daemon.pid, signal.SIGCONT)
    daemon.ready(2)
    assert len(daemon.events("worker_started")) == 2
    assert daemon.events("clock_gap")
    assert len(starts(daemon.directory / "starts")) == 2
    assert daemon.stop() == 0


def test_a_frozen_worker_and_daemon_go_on_where_they_were(panelind):
    """Cloud Run freezes both between requests: no probe fails, nothing is restarted."""
    port = free_port()
    daemon = panelind(
        ["listen env"],
        {
            "probe.readiness.http": "/ready",
            "probe.liveness.http": "/health",
            "probe.liveness.period": "200ms",
            "probe.liveness.timeout": "300ms",
            "probe.liveness.failures": 1,
            "probe.readiness.period": "200ms",
        },
        environment={"PORT": port},
        sidecar=True,
    )
    daemon.ready()
    leader = daemon.worker()
    for pid in (leader, daemon.pid):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)
    for pid in (daemon.pid, leader):
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: daemon.health()["state"] == "ready", "ready again")
    time.sleep(0.7)
    assert is_alive(leader)
    assert len(daemon.events("worker_started")) == 1
    assert daemon.stop() == 0


def test_a_startup_deadline_is_a_failed_start(panelind, placement):
    daemon = panelind(
        ["setsid-child ignore TERM"],
        {
            "probe.startup.deadline": "500ms",
            "probe.readiness.tcp": f"127.0.0.1:{free_port()}",
            "restart.delay": "10ms",
            **FLAT,
            "restart.limit": 1,
            "stop.grace": "300ms",
        },
        placement=placement,
    )
    assert daemon.wait(60) == 70
    assert [event["cause"] for event in daemon.events("worker_exited")] == ["startup_deadline"] * 2
    assert daemon.survivors() == []
