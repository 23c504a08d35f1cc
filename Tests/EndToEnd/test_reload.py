# test_reload.py
# SIGHUP reads the configuration again: CONTRACT sections 3 and 5, in direct and socket mode. Cases C35 and C57.
# A bad one changes nothing. Front mode has its own tests.

import json
import os
import signal
import threading
import time

import pytest

from harness import fd_count, free_port, http, is_alive, scripted_worker, wait_until


def direct(panelind, steps=(), settings=None, **options):
    port = free_port()
    daemon = panelind(
        ["dump-state state", *(steps or ["listen env"])],
        {"restart.delay": "50ms", **(settings or {})},
        environment={"PORT": port, **options.pop("environment", {})},
        **options,
    )
    daemon.port = port
    return daemon


def variable(daemon, name):
    return json.loads((daemon.directory / "state").read_text())["environment"].get(name)


def hang_up(daemon, changes=None):
    if changes is not None:
        daemon.write_settings(changes)
    daemon.send(signal.SIGHUP)


def test_direct_mode_restarts_with_the_new_settings(panelind, placement):
    daemon = direct(panelind, placement=placement, sidecar=True)
    daemon.ready()
    hang_up(daemon, {"worker.environment": {"TEST_NEW": "yes"}})
    daemon.ready(2)
    assert variable(daemon, "TEST_NEW") == "yes"
    assert [event["generation"] for event in daemon.events("reload_begin")] == [2]
    assert daemon.wait_event("reload_end")["error"] is None
    exited = daemon.wait_event("worker_exited", generation=1)
    assert exited["cause"] == "requested"
    assert daemon.health()["restarts"] == 0, "only unplanned ones count"
    assert daemon.health()["generation"] == 2
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_the_old_worker_and_its_tree_are_gone_before_the_new_one(panelind, placement):
    daemon = direct(
        panelind,
        ["listen env", "setsid-child ignore TERM", "child-holds-listener"],
        {"stop.grace": "500ms"},
        placement=placement,
    )
    daemon.ready()
    old = {one.pid for one in daemon.survivors()}
    hang_up(daemon)
    daemon.ready(2)
    assert not old & {one.pid for one in daemon.survivors()}
    assert len(daemon.events("worker_started")) == 2
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"stop.grace": "nonsense"},
        {"no.such.key": 1},
        {"worker.command": ["/no/such/worker"]},
        {"stop.grace": "1h"},
        {"worker.secrets": {"A": "/no/such/secret"}},
        {"worker.command": None},
    ],
)
def test_a_bad_configuration_changes_nothing(panelind, changes):
    daemon = direct(panelind)
    daemon.ready()
    leader = daemon.worker()
    hang_up(daemon, changes)
    rejected = daemon.wait_event("config_rejected")
    assert rejected["errors"]
    assert next(iter(changes)).split(".")[0] in rejected["message"]
    assert is_alive(leader)
    assert len(daemon.events("worker_started")) == 1
    # A good one afterwards is taken.
    daemon.write_settings(
        {key: None for key in changes} if "worker.command" not in changes else {"worker.command": [*_command(daemon)]}
    )
    hang_up(daemon, {"worker.environment": {"TEST_NEW": "late"}})
    daemon.ready(2)
    assert variable(daemon, "TEST_NEW") == "late"
    assert daemon.stop() == 0


def _command(daemon):
    return scripted_worker(f"tag {daemon.tag}", "dump-state state", "listen env")


def test_a_file_that_is_no_yaml_changes_nothing(panelind):
    daemon = direct(panelind)
    daemon.ready()
    daemon.config.write_text("worker: [unclosed\n")
    hang_up(daemon)
    assert str(daemon.config) in daemon.wait_event("config_rejected")["message"]
    daemon.config.unlink()
    hang_up(daemon)
    daemon.wait_event("config_rejected", count=2)
    assert is_alive(daemon.worker())
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("key", "value"), [("platform", "kubernetes"), ("sidecar.listen", "127.0.0.1:1"), ("control.path", "c.sock")]
)
def test_what_needs_a_restart_of_panelind_is_refused(panelind, key, value):
    daemon = direct(panelind)
    daemon.ready()
    hang_up(daemon, {key: f"127.0.0.1:{free_port()}" if key == "sidecar.listen" else value})
    rejected = daemon.wait_event("config_rejected")
    assert key in rejected["message"] and "needs a restart of panelind" in rejected["message"]
    assert len(daemon.events("worker_started")) == 1
    assert daemon.stop() == 0


def test_a_new_listener_needs_a_restart_in_socket_mode(panelind):
    daemon = panelind(["listen fd 3"], {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{free_port()}"})
    daemon.ready()
    hang_up(daemon, {"serve.listen": f"127.0.0.1:{free_port()}"})
    assert "serve.listen" in daemon.wait_event("config_rejected")["message"]
    assert daemon.stop() == 0


@pytest.mark.case("C35")
class TestInEachState:
    """The control socket's restart is a later part; a reload restarts in direct mode, and that once, in every state."""

    def restarted(self, daemon, generation):
        daemon.wait_event("worker_started", generation=generation)
        time.sleep(0.3)
        return [event["generation"] for event in daemon.events("worker_started")]

    def test_starting(self, panelind):
        daemon = direct(panelind, ["tag x"])
        daemon.worker()
        hang_up(daemon)
        assert self.restarted(daemon, 2) == [1, 2]
        assert daemon.stop() == 0

    def test_ready(self, panelind):
        daemon = direct(panelind)
        daemon.ready()
        hang_up(daemon)
        assert self.restarted(daemon, 2) == [1, 2]
        assert daemon.stop() == 0

    def test_unready(self, panelind):
        daemon = direct(
            panelind,
            ["health status-file status", "listen env"],
            {"probe.readiness.http": "/ready", "probe.readiness.period": "100ms", "probe.readiness.failures": 1},
        )
        (daemon.directory / "status").write_text("200")
        daemon.ready()
        (daemon.directory / "status").write_text("503")
        daemon.wait_event("worker_unready")
        hang_up(daemon)
        assert self.restarted(daemon, 2) == [1, 2]
        assert daemon.stop() == 0

    def test_backoff(self, panelind):
        daemon = direct(panelind, ["exit 1"], {"restart.delay": "30s"})
        daemon.wait_event("worker_backoff")
        hang_up(daemon)
        assert self.restarted(daemon, 2) == [1, 2], "at once, not after the backoff"
        assert daemon.stop() == 0

    def test_failed(self, panelind):
        daemon = direct(panelind, ["exit 3"], {"restart.onGiveUp": "hold"}, sidecar=True)
        daemon.wait_event("worker_failed")
        daemon.write_settings({"worker.command": _command(daemon)})
        hang_up(daemon)
        daemon.ready(2)
        assert daemon.health()["status"] == "ok"
        assert daemon.stop() == 0

    def test_stopping(self, panelind):
        daemon = direct(panelind, ["on TERM exit 0 after 500ms", "listen env"])
        daemon.ready()
        daemon.send(signal.SIGTERM)
        daemon.wait_event("drain_begin")
        hang_up(daemon)
        assert daemon.wait() == 0
        assert len(daemon.events("worker_started")) == 1

    def test_during_a_reload(self, panelind):
        daemon = direct(panelind, ["on TERM exit 0 after 700ms", "listen env"])
        daemon.ready()
        hang_up(daemon)
        daemon.wait_event("reload_begin")
        hang_up(daemon)
        refused = daemon.wait_event("reload_end")
        assert "another reload" in refused["error"]
        daemon.ready(2)
        assert len(daemon.events("worker_started")) == 2
        assert daemon.stop() == 0

    def test_a_failure_count_is_cleared(self, panelind):
        daemon = direct(panelind, ["exit 1"], {"restart.jitter": 0, "restart.delay": "50ms"})
        daemon.wait_event("worker_backoff", delay_seconds=0.4)
        count = len(daemon.events("worker_backoff"))
        hang_up(daemon)
        daemon.wait_event("reload_begin")
        after = daemon.wait_event("worker_backoff", count=count + 1)
        assert after["delay_seconds"] == 0.05
        assert daemon.stop() == 0


def test_direct_mode_with_a_broken_new_worker_fails_like_any_start(panelind):
    """There is no old one to go back to: it had to leave the port."""
    daemon = direct(panelind)
    daemon.ready()
    command = _command(daemon)[:1]
    hang_up(daemon, {"worker.command": [*command, "exit", "1"]})
    end = daemon.wait_event("reload_end")
    assert end["error"]
    daemon.wait_event("worker_backoff")
    hang_up(daemon, {"worker.command": _command(daemon)})
    daemon.wait_event("worker_ready", count=2)
    assert daemon.stop() == 0


class Clients:
    """Requests without a pause until told to leave; every answer and every error is kept."""

    def __init__(self, port, count=3):
        self.port, self.answers, self.errors, self.leave = port, [], [], False
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        while not self.leave:
            try:
                self.answers.append(http(self.port, "/pid", timeout=20).body)
            except OSError as error:
                self.errors.append(error)

    def end(self):
        self.leave = True
        for thread in self.threads:
            thread.join(30)
        return self.errors


def shared(panelind, steps, settings=None, **options):
    port = free_port()
    daemon = panelind(
        steps,
        {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}", "restart.delay": "50ms", **(settings or {})},
        **options,
    )
    daemon.port = port
    return daemon


SERVE = ["boot 300ms", "listen fd 3", "on TERM begin drain exit 0 end", "notify READY=1"]


@pytest.mark.case("C57")
def test_socket_mode_overlaps_where_the_worker_says_when_it_is_ready(panelind, placement):
    daemon = shared(panelind, SERVE, {"probe.readiness.notify": True}, placement=placement)
    daemon.ready()
    clients = Clients(daemon.port)
    for generation in (2, 3):
        hang_up(daemon, {"worker.environment": {"TEST_N": str(generation)}})
        daemon.ready(generation)
        daemon.wait_event("worker_exited", generation=generation - 1)
    wait_until(lambda: len(set(clients.answers)) >= 2, "answers of two workers")
    assert clients.end() == []
    # The new one was ready before the old one was told to leave.
    names = [(event["event"], event.get("generation")) for event in daemon.events()]
    assert names.index(("worker_ready", 2)) < names.index(("worker_exited", 1))
    assert [event["error"] for event in daemon.events("reload_end")] == [None, None]
    assert daemon.stop() == 0
    assert daemon.survivors() == []


@pytest.mark.case("C57")
@pytest.mark.parametrize("broken", [["exit", "1"], ["exit", "0"], ["signal-self", "SEGV"], ["boot", "60s"]])
def test_a_broken_successor_is_discarded_and_the_old_one_serves_on(panelind, broken):
    daemon = shared(
        panelind, SERVE, {"probe.readiness.notify": True, "probe.startup.deadline": "2s", "worker.limits.core": 0}
    )
    daemon.ready()
    leader = daemon.worker()
    clients = Clients(daemon.port)
    good = daemon.settings["worker.command"]
    hang_up(daemon, {"worker.command": [good[0], "tag", daemon.tag, *broken]})
    end = daemon.wait_event("reload_end")
    assert end["error"]
    daemon.wait_event("worker_exited", generation=2)
    assert is_alive(leader)
    assert clients.end() == []
    assert set(clients.answers) == {str(leader).encode()} or len(set(clients.answers)) == 1
    # And the next good one takes over.
    hang_up(daemon, {"worker.command": good})
    daemon.ready(3)
    daemon.wait_event("worker_exited", generation=1)
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_socket_mode_without_own_readiness_stops_the_old_one_first_and_refuses_nothing(panelind):
    """The kernel's queue holds what comes in between."""
    daemon = shared(panelind, ["boot 300ms", "listen fd 3", "on TERM begin drain exit 0 end"])
    daemon.ready()
    clients = Clients(daemon.port)
    hang_up(daemon)
    daemon.ready(2)
    wait_until(lambda: len(set(clients.answers)) == 2, "answers of both workers")
    assert clients.end() == []
    names = [(event["event"], event.get("generation")) for event in daemon.events()]
    assert names.index(("worker_exited", 1)) < names.index(("worker_started", 2))
    assert daemon.stop() == 0


def test_the_old_one_dies_while_its_successor_is_on_trial(panelind):
    daemon = shared(panelind, ["wait-file go", "listen fd 3", "notify READY=1"], {"probe.readiness.notify": True})
    (daemon.directory / "go").touch()
    daemon.ready()
    (daemon.directory / "go").unlink()
    hang_up(daemon)
    daemon.wait_event("worker_started", generation=2)
    os.kill(daemon.worker(1), signal.SIGKILL)
    daemon.wait_event("worker_exited", generation=1)
    (daemon.directory / "go").touch()
    daemon.ready(2)
    time.sleep(0.3)
    assert [event["generation"] for event in daemon.events("worker_started")] == [1, 2]
    assert http(daemon.port).status == 200
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_a_reload_may_change_the_stop_plan(panelind):
    """The old worker leaves by the plan it was started under, the new one by the new."""
    daemon = direct(panelind, ["record-signals sig", "on USR2 exit 0", "listen env"])
    daemon.ready()
    hang_up(daemon, {"stop.signal": "USR2"})
    daemon.ready(2)
    assert daemon.stop() == 0
    assert [line.split()[2] for line in (daemon.directory / "sig").read_text().splitlines()] == ["SIGTERM", "SIGUSR2"]


def test_many_reloads_leak_nothing(panelind):
    daemon = shared(
        panelind, ["listen fd 3", "on TERM begin drain exit 0 end", "notify READY=1"], {"probe.readiness.notify": True}
    )
    daemon.ready()
    hang_up(daemon)
    daemon.wait_event("worker_exited", generation=1)
    before = fd_count(daemon.pid)
    for generation in range(3, 23):
        hang_up(daemon)
        daemon.wait_event("worker_exited", generation=generation - 1)
    wait_until(lambda: fd_count(daemon.pid) <= before, lambda: f"{before} descriptors, not {fd_count(daemon.pid)}")
    assert daemon.stop() == 0
