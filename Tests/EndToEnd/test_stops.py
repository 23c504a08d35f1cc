# test_stops.py
# A stop within its budget, in every state: CONTRACT sections 2 (stop.*) and 3. Cases C49 to C53.
# Read test_trees.py for what a stop owes the worker's descendants.

import os
import signal
import threading
import time

import pytest

from harness import accepts, free_port, http, wait_until


def recorded(path):
    """(instant, name) of each signal a worker has recorded; the clock is time.monotonic's."""
    if not path.exists():
        return []
    return [(int(words[1]) / 1e9, words[2]) for words in map(str.split, path.read_text().splitlines())]


@pytest.mark.case("C49")
def test_the_grace_is_not_slept_out(panelind, placement):
    daemon = panelind(["on TERM exit 0 after 100ms"], {"stop.grace": "25s", "stop.budget": "30s"}, placement=placement)
    daemon.ready()
    assert daemon.stop() == 0
    assert 0.1 <= daemon.took < 2


@pytest.mark.case("C51")
def test_on_cloud_run_all_is_over_within_nine_seconds(panelind, placement):
    """The research kills at 8 s; by CONTRACT 1 s of delay and the grace fill the 9 s but for the last half second."""
    daemon = panelind(
        ["ignore TERM", "setsid-child begin tag stubborn ignore TERM end", "listen env"],
        {"platform": None},
        sidecar=True,
        environment={"K_SERVICE": "agent", "K_REVISION": "agent-1", "PORT": free_port()},
        placement=placement,
    )
    daemon.ready()
    assert daemon.events("panelind_started")[0]["platform"] == "cloudrun"
    assert daemon.stop() == 0
    assert 8 <= daemon.took < 9.5
    [event] = daemon.events("worker_killed_survivors")
    assert any("stubborn" in command for command in event["commands"])
    assert daemon.survivors() == []


def test_local_has_nine_seconds_and_others_twenty_five(panelind):
    for platform, seconds in [("local", 9), ("systemd", 25), ("kubernetes", 25)]:
        daemon = panelind([], {"platform": platform})
        daemon.ready()
        daemon.send(signal.SIGTERM)
        assert daemon.wait_event("drain_begin")["budget_seconds"] == seconds
        assert daemon.wait() == 0


def test_the_set_budget_binds_a_worker_that_ignores_all(panelind, placement):
    daemon = panelind(
        ["ignore TERM", "ignore INT", "child begin ignore TERM ignore INT end", "listen env"],
        {"stop.budget": "2s"},
        environment={"PORT": free_port()},
        placement=placement,
    )
    daemon.ready()
    assert daemon.stop() == 0
    assert 1.4 <= daemon.took < 2.5
    assert daemon.survivors() == []


def test_a_spinning_worker_is_ended_within_the_budget(panelind):
    """It hears nothing and takes a whole CPU."""
    daemon = panelind(["spin"], {"stop.budget": "2s"})
    daemon.ready()
    assert daemon.stop() == 0
    assert daemon.took < 3


def test_during_the_delay_the_worker_serves_and_ready_is_503(panelind, placement):
    port = free_port()
    daemon = panelind(
        ["record-signals sig", "listen env"],
        {"stop.delay": "1500ms"},
        environment={"PORT": port},
        sidecar=True,
        placement=placement,
    )
    daemon.ready()
    begin = time.monotonic()
    daemon.send(signal.SIGTERM)
    wait_until(lambda: daemon.get("/ready").status == 503, "/ready says no")
    assert time.monotonic() - begin < 1.4, "already during the delay"
    assert daemon.health()["state"] == "draining"
    assert daemon.get("/health").status == 200
    assert http(port).status == 200
    assert recorded(daemon.directory / "sig") == []
    assert daemon.wait() == 0
    [(at, name)] = recorded(daemon.directory / "sig")
    assert name == "SIGTERM"
    assert 1.5 <= at - begin < 3


@pytest.mark.parametrize("end", ["KILL", "TERM"])
def test_a_worker_that_ends_during_the_delay_ends_the_stop(panelind, end, placement):
    """Nobody is left to serve: the rest of the delay is for nothing, and no other worker is started."""
    daemon = panelind(
        ["listen env", "setsid-child ignore TERM"],
        {"stop.delay": "5s", "stop.grace": "500ms"},
        environment={"PORT": free_port()},
        placement=placement,
    )
    daemon.ready()
    daemon.send(signal.SIGTERM)
    daemon.wait_event("drain_begin")
    begin = time.monotonic()
    os.kill(daemon.worker(), getattr(signal, f"SIG{end}"))
    assert daemon.wait() == 0
    assert time.monotonic() - begin < 4
    assert len(daemon.events("worker_started")) == 1
    assert daemon.survivors() == []


def test_without_a_delay_the_signal_goes_at_once(panelind):
    daemon = panelind(["record-signals sig", "listen env"], environment={"PORT": free_port()})
    daemon.ready()
    begin = time.monotonic()
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    [(at, _)] = recorded(daemon.directory / "sig")
    assert at - begin < 1


def test_a_worker_that_drains_itself_finishes_its_requests(panelind):
    """Direct mode: the worker owns the port and its requests; panelind only leaves it the time."""
    port = free_port()
    daemon = panelind(["on TERM begin drain exit 0 end", "listen env"], environment={"PORT": port})
    daemon.ready()
    answers = []
    client = threading.Thread(target=lambda: answers.append(http(port, "/slow?ms=1500").status))
    client.start()
    wait_until(lambda: _established(port), "the request is under way")
    assert daemon.stop() == 0
    client.join()
    assert answers == [200]


def _established(port):
    """Whether a connection from here to this port of ours is open."""
    with open("/proc/net/tcp") as file:
        return any(fields[1].endswith(f":{port:04X}") and fields[3] == "01" for fields in map(str.split, file))


class TestInEachState:
    """C53: a TERM ends panelind with 0, within its grace, and leaves nobody."""

    pytestmark = pytest.mark.case("C53")

    def end(self, daemon, within=3.0):
        started = len(daemon.events("worker_started"))
        assert daemon.stop() == 0
        assert daemon.took < within
        assert daemon.survivors() == []
        assert len(daemon.events("worker_started")) == started
        assert daemon.events()[-1]["event"] == "panelind_stopped"

    def test_at_once(self, panelind):
        """As soon as it handles signals; before that a TERM has its default meaning, and nothing has been started."""
        daemon = panelind(["child begin tag kid end"])
        daemon.wait_event("panelind_started")
        assert daemon.stop() == 0
        assert daemon.survivors() == []

    def test_before_anything(self, panelind):
        for wait in range(8):
            daemon = panelind([])
            time.sleep(wait * 0.004)
            assert daemon.stop() in (0, 128 + signal.SIGTERM)
            assert daemon.survivors() == []

    def test_starting(self, panelind, placement):
        daemon = panelind(
            ["child begin tag kid end"], environment={"PORT": free_port()}, sidecar=True, placement=placement
        )
        daemon.worker()
        wait_until(lambda: daemon.health()["state"] == "starting", "starting")
        self.end(daemon)

    def test_ready(self, panelind, placement):
        daemon = panelind(["listen env"], environment={"PORT": free_port()}, placement=placement)
        daemon.ready()
        self.end(daemon)

    def test_unready(self, panelind, placement):
        daemon = panelind(
            ["notify READY=1", "health status-file status", "listen env"],
            {"probe.readiness.http": "/ready", "probe.readiness.period": "100ms", "probe.readiness.failures": 1},
            environment={"PORT": (port := free_port())},
            placement=placement,
        )
        (daemon.directory / "status").write_text("200")
        daemon.ready()
        (daemon.directory / "status").write_text("503")
        daemon.wait_event("worker_unready")
        assert accepts(port)
        self.end(daemon)

    def test_backoff(self, panelind, placement):
        daemon = panelind(["exit 1"], {"restart.delay": "30s"}, placement=placement)
        daemon.wait_event("worker_backoff")
        self.end(daemon, within=2)

    def test_failed_and_held(self, panelind, placement):
        daemon = panelind(["exit 3"], {"restart.onGiveUp": "hold"}, placement=placement)
        daemon.wait_event("worker_failed")
        self.end(daemon, within=2)

    def test_stopping(self, panelind, placement):
        daemon = panelind(["on TERM exit 0 after 700ms"], placement=placement)
        daemon.ready()
        daemon.send(signal.SIGTERM)
        daemon.wait_event("drain_begin")
        self.end(daemon)

    def test_while_a_crash_is_cleaned_up(self, panelind, placement):
        daemon = panelind(
            ["child ignore TERM", "setsid-child ignore TERM", "listen env", "wait-file go", "exit 1"],
            {"restart.delay": "1ms"},
            environment={"PORT": free_port()},
            placement=placement,
        )
        daemon.ready()
        (daemon.directory / "go").touch()
        assert daemon.stop() == 0
        assert daemon.survivors() == []

    def test_reloading(self, panelind, placement):
        daemon = panelind(["on TERM exit 0 after 500ms"], placement=placement)
        daemon.ready()
        daemon.send(signal.SIGHUP)
        daemon.wait_event("reload_begin")
        assert daemon.stop() == 0
        assert daemon.survivors() == []
        assert len(daemon.events("worker_started")) == 1

    def test_reloading_with_two_workers(self, panelind, placement):
        """Socket mode: the old one and its successor on trial both leave."""
        daemon = panelind(
            ["listen fd 3", "wait-file go", "notify READY=1", "child begin ignore TERM end"],
            {
                "serve.mode": "socket",
                "serve.listen": f"127.0.0.1:{free_port()}",
                "probe.readiness.notify": True,
                "stop.grace": "500ms",
            },
            placement=placement,
        )
        (daemon.directory / "go").touch()
        daemon.ready()
        (daemon.directory / "go").unlink()
        daemon.send(signal.SIGHUP)
        daemon.wait_event("worker_started", generation=2)
        assert daemon.stop() == 0
        assert daemon.survivors() == []
        assert len(daemon.events("worker_started")) == 2

    def test_suspended(self, panelind):
        """A TERM to a stopped panelind waits for its CONT; then it is a stop like any other."""
        daemon = panelind(["child begin tag kid end"])
        daemon.ready()
        daemon.send(signal.SIGTSTP)
        wait_until(lambda: open(f"/proc/{daemon.pid}/stat").read().split(")")[1].split()[0] == "T", "stopped")
        daemon.send(signal.SIGTERM)
        daemon.send(signal.SIGCONT)
        assert daemon.wait() == 0
        assert daemon.survivors() == []

    def test_while_a_secret_hangs(self, panelind):
        """The file of a secret on a network mount may hang for ever: a FIFO that nobody writes to does."""
        daemon = panelind(
            ["listen env", "wait-file go", "exit 1"],
            {"worker.secrets": {"KEY": "secret"}, "restart.delay": "50ms"},
            environment={"PORT": free_port()},
            config=True,
            preexec_fn=lambda: open("secret", "w").write("hidden"),
        )
        daemon.ready()
        (daemon.directory / "secret").unlink()
        os.mkfifo(daemon.directory / "secret")
        (daemon.directory / "go").touch()
        daemon.wait_event("worker_exited")
        time.sleep(0.5)
        assert daemon.stop() == 0
        assert daemon.took < 3
