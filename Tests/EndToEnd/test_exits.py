# test_exits.py
# How panelind ends: CONTRACT section 3, exit codes. Cases C01 to C06.
# Read harness/daemon.py first.

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from harness import Daemon, binaries, free_port, scripted_worker

NEVER = {"restart.policy": "never", "worker.limits.core": 0}
FAST = {"restart.delay": "10ms", "restart.jitter": 0, "restart.maxDelay": "20ms"}


@pytest.mark.case("C01")
@pytest.mark.parametrize("first", range(0, 256, 64))
def test_without_restarts_the_workers_code_is_panelinds(panelind, first):
    for batch in range(first, first + 64, 16):
        daemons = {code: panelind([f"exit {code}"], NEVER) for code in range(batch, batch + 16)}
        assert {code: daemon.wait() for code, daemon in daemons.items()} == {code: code for code in daemons}
        for code, daemon in daemons.items():
            exited = daemon.events("worker_exited")
            assert [event["exit_code"] for event in exited] == [code]
            assert "exit_signal" not in exited[0]


@pytest.mark.case("C02")
@pytest.mark.parametrize("name", ["TERM", "HUP", "QUIT", "KILL", "SEGV", "ABRT", "INT", "USR1"])
def test_a_worker_that_dies_of_a_signal_gives_128_and_the_signal(panelind, name):
    daemon = panelind([f"signal-self {name}"], NEVER)
    assert daemon.wait() == 128 + getattr(signal, f"SIG{name}")
    [exited] = daemon.events("worker_exited")
    assert exited["exit_signal"] == f"SIG{name}"
    assert exited["cause"] == "signal"
    assert exited["core_dumped"] is False
    assert "exit_code" not in exited


@pytest.mark.case("C03")
def test_a_requested_stop_is_0_even_of_a_worker_that_dies_of_term(panelind):
    """The research maps 143 to 0 by an option; by CONTRACT a requested stop is 0 and any other end keeps its code."""
    daemon = panelind([], NEVER)
    daemon.ready()
    assert daemon.stop() == 0
    [exited] = daemon.events("worker_exited")
    assert (exited["exit_signal"], exited["cause"]) == ("SIGTERM", "requested")
    assert panelind(["exit 143"], NEVER).wait() == 143


@pytest.mark.case("C03")
def test_a_requested_stop_is_0_even_if_the_worker_had_to_be_killed(panelind, placement):
    daemon = panelind(["ignore TERM"], {"stop.grace": "300ms"}, placement=placement)
    daemon.ready()
    assert daemon.stop() == 0
    [exited] = daemon.events("worker_exited")
    assert (exited["exit_signal"], exited["cause"]) == ("SIGKILL", "requested")


@pytest.mark.case("C04")
@pytest.mark.parametrize("hold", ["exit", "hold"])
@pytest.mark.parametrize(
    ("kind", "code"), [("missing", 127), ("not in PATH", 127), ("no mode", 126), ("directory", 126), ("no header", 126)]
)
def test_a_command_that_cannot_be_run_ends_at_once(panelind, kind, code, hold):
    """127 and 126 whatever onGiveUp says, named once, never retried, never given to a shell."""
    # A short path, so that it is shown whole.
    path = pathlib.Path(tempfile.mkdtemp(dir="/tmp", prefix="w")) / "the-worker"
    if kind in ("no mode", "no header"):
        path.write_text("touch ran\n")
        path.chmod(0o755 if kind == "no header" else 0o644)
    elif kind == "directory":
        path.mkdir()
    command = "no-such-worker-anywhere" if kind == "not in PATH" else str(path)
    begin = time.monotonic()
    daemon = panelind(command=[command], settings={"restart.onGiveUp": hold})
    assert daemon.wait() == code
    assert time.monotonic() - begin < 10
    assert daemon.events("worker_started") == []
    said = daemon.stderr.splitlines() + [event["message"] for event in daemon.events("worker_exited")]
    assert len([line for line in said if command in line]) == 1, said
    assert not (daemon.directory / "ran").exists()
    shutil.rmtree(path.parent)


@pytest.mark.case("C04")
@pytest.mark.parametrize("change", ["removed", "no mode"])
@pytest.mark.parametrize("hold", ["exit", "hold"])
def test_a_command_lost_later_is_a_permanent_failure(panelind, tmp_path, change, hold):
    path = tmp_path / "the-worker"
    path.write_text(f"#!/bin/sh\nexec {' '.join(scripted_worker('listen env', 'wait-file go', 'exit 1'))}\n")
    path.chmod(0o755)
    daemon = panelind(
        command=[path], settings={**FAST, "restart.onGiveUp": hold}, environment={"PORT": free_port()}, sidecar=True
    )
    daemon.ready()
    if change == "removed":
        path.unlink()
    else:
        path.chmod(0o644)
    (daemon.directory / "go").touch()
    failed = daemon.wait_event("worker_failed")
    assert failed["generation"] == 2
    assert len(daemon.events("worker_started")) == 1
    exited = daemon.wait_event("worker_exited", generation=2)
    assert exited["cause"] == "not_found"
    assert (exited["pid"], exited["core_dumped"], exited["last_output"]) == (None, False, [])
    if hold == "hold":
        assert daemon.health()["state"] == "failed"
        assert daemon.stop() == 0
    else:
        assert daemon.wait() == 70


@pytest.mark.case("C05")
def test_giving_up_is_70(panelind):
    daemon = panelind(["exit 1"], {**FAST, "restart.limit": 2})
    assert daemon.wait() == 70
    assert len(daemon.events("worker_started")) == 3
    assert daemon.events("worker_exited")[-1]["restart_in_seconds"] is None
    assert daemon.events("panelind_stopped")[0]["exit_code"] == 70


@pytest.mark.case("C05")
def test_a_liveness_failure_is_a_failure_like_others(panelind):
    """The research wants another code for it; by CONTRACT giving up is 70 whatever the failures were."""
    daemon = panelind(
        ["listen env"],
        {
            **FAST,
            "restart.limit": 1,
            "probe.liveness.exec": ["false"],
            "probe.liveness.period": "50ms",
            "probe.liveness.failures": 1,
        },
        environment={"PORT": free_port()},
    )
    assert daemon.wait() == 70
    assert [event["cause"] for event in daemon.events("worker_exited")] == ["liveness", "liveness"]


@pytest.mark.case("C05")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "--no-such-option"], 64),
        (["no-such-command"], 64),
        (["run", "--set", "no.such=1", "--", "true"], 78),
        (["run", "--set", "stop.grace=8", "--", "true"], 78),
        (["run"], 78),
    ],
)
def test_usage_is_64_and_configuration_78(tmp_path, arguments, code):
    done = subprocess.run(
        [binaries() / "panelind", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == code, done
    assert done.stderr.strip()
    assert done.stdout == ""


@pytest.mark.case("C06")
def test_a_permanent_code_before_ready_is_not_retried(panelind):
    daemon = panelind(["exit 3"], FAST)
    assert daemon.wait() == 70
    assert len(daemon.events("worker_started")) == 1
    assert daemon.events("worker_exited")[0]["cause"] == "permanent"
    assert len(daemon.events("worker_failed")) == 1


@pytest.mark.case("C06")
def test_the_same_code_after_ready_is_restarted(panelind, tmp_path):
    daemon = panelind(["listen env", "wait-file go", "exit 3"], FAST, environment={"PORT": free_port()})
    daemon.ready()
    (daemon.directory / "go").touch()
    assert daemon.wait_event("worker_exited")["cause"] == "exit"
    daemon.wait_event("worker_started", generation=2)
    daemon.stop()


@pytest.mark.case("C06")
def test_permanent_codes_can_be_set(panelind):
    daemon = panelind(["exit 3"], {**FAST, "restart.permanentExitCodes": [9], "restart.limit": 1})
    assert daemon.wait() == 70
    assert len(daemon.events("worker_started")) == 2
    daemon = panelind(["exit 9"], {**FAST, "restart.permanentExitCodes": [9]})
    assert daemon.wait() == 70
    assert len(daemon.events("worker_started")) == 1


@pytest.mark.parametrize("code", [126, 127])
def test_a_workers_own_126_or_127_before_ready_is_permanent(panelind, code):
    """Shells end with them; that is no failed exec of ours, so it is given up with 70."""
    daemon = panelind([f"exit {code}"], FAST)
    assert daemon.wait() == 70
    assert len(daemon.events("worker_started")) == 1


@pytest.mark.parametrize(
    ("code", "codes", "ends"), [(0, [0], True), (7, [0, 7], True), (7, [0], False), (0, [7], False)]
)
def test_on_failure_a_clean_end_after_ready_is_the_end(panelind, code, codes, ends):
    daemon = panelind(
        ["listen env", "wait-file go", f"exit {code}"],
        {**FAST, "restart.policy": "on-failure", "restart.successCodes": codes},
        environment={"PORT": free_port()},
    )
    daemon.ready()
    (daemon.directory / "go").touch()
    if ends:
        assert daemon.wait() == code
        assert len(daemon.events("worker_started")) == 1
    else:
        daemon.wait_event("worker_started", generation=2)
        daemon.stop()
    assert daemon.events("worker_exited")[0]["severity"] == ("NOTICE" if ends else "ERROR")


def test_on_failure_an_end_before_ready_is_a_failure_whatever_the_code(panelind):
    daemon = panelind(
        ["exit 0"], {**FAST, "restart.policy": "on-failure", "restart.limit": 2, "restart.permanentExitCodes": []}
    )
    assert daemon.wait() == 70
    assert len(daemon.events("worker_started")) == 3


def test_hold_stays_after_giving_up_and_a_stop_is_0(panelind, placement):
    daemon = panelind(
        ["exit 1"], {**FAST, "restart.limit": 1, "restart.onGiveUp": "hold"}, sidecar=True, placement=placement
    )
    daemon.wait_event("worker_failed")
    for path, status in [("/health", "failed"), ("/ready", "not ready")]:
        answer = daemon.get(path)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert f'"status":"{status}"' in answer.body.decode()
        assert '"reason":"worker_failed"' in answer.body.decode()
    assert daemon.stop() == 0
    assert len(daemon.events("worker_started")) == 2


class TestPorts:
    """71: what cannot be bound is found before anything starts."""

    def test_a_taken_port_of_the_worker_is_71_and_names_the_holder(self, panelind):
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            daemon = panelind(["listen env"], environment={"PORT": port})
            assert daemon.wait() == 71
            assert daemon.events("worker_started") == []
            said = daemon.stderr
            assert str(port) in said
            assert str(os.getpid()) in said, "the process that holds the port is named"

    def test_a_taken_shared_socket_is_71(self, panelind):
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            daemon = panelind(["listen fd 3"], {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}"})
            assert daemon.wait() == 71
            assert str(port) in daemon.stderr

    def test_a_taken_set_sidecar_is_71(self, panelind):
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            daemon = panelind([], {"sidecar.listen": f"127.0.0.1:{port}"})
            assert daemon.wait() == 71
            assert str(port) in daemon.stderr

    def test_a_port_lost_after_a_good_check_is_71(self, panelind, tmp_path):
        port = free_port()
        daemon = Daemon(tmp_path, ["listen env"], environment={"PORT": str(port)})
        daemon.write_settings()
        check = [binaries() / "panelind", "check", "--config", daemon.config]
        options = {"cwd": tmp_path, "env": daemon.environment, "capture_output": True, "timeout": 30}
        assert subprocess.run(check, **options).returncode == 0
        with socket.create_server(("127.0.0.1", port)):
            done = subprocess.run([binaries() / "panelind", "run", "--config", daemon.config], **options)
            assert done.returncode == 71
            assert subprocess.run(check, **options).returncode == 78
