# test_why.py
# Fifteen real failures, and what `panelind why` says of each: golden answers in golden/why, times and numbers left out.
# UPDATE_GOLDEN=1 writes them anew; read every one of them then as a person on call would.

import os
import pathlib
import re
import signal
import socket

import pytest

from harness import free_port, http, wait_until
from harness.control import Control, command
from harness.rawclient import Client

GOLDEN = pathlib.Path(__file__).parent / "golden" / "why"
NOTIFY = {"probe.readiness.notify": True}
HELD = {"restart.delay": "1h", "restart.maxDelay": "1h", "restart.jitter": 0}


def start(panelind, command_=None, steps=None, settings=None, **options):
    daemon = panelind(steps, {"control.path": "c.sock", **(settings or {})}, command=command_, **options)
    daemon.wait_event("panelind_started")
    daemon.control = Control(daemon.directory / "c.sock")
    return daemon


def state(daemon, name):
    wait_until(lambda: daemon.control.status()["state"] == name, f"state {name}")


def settled(daemon, name):
    """In this state, and its last exit has its last lines."""
    state(daemon, name)
    wait_until(lambda: "last_output" in (daemon.control.status()["last_exit"] or {}), "the last lines")


def plain(text, daemon, ports=()):
    """Without what differs from run to run."""
    text = text.replace(str(daemon.directory), "DIR")
    text = re.sub(r"/[^ ]*/scripted-worker", "scripted-worker", text)
    for port in ports:
        text = text.replace(str(port), "PORT")
    text = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", text)
    text = re.sub(r"\bas pid \d+", "as pid N", text)
    text = re.sub(r"\b\d+(\.\d+)?(ms|s|m|h)\b( \d+(s|m)\b)?", "T", text)
    text = re.sub(r"\d+ times so far|twice", "N times so far", text)
    # Of four failures and more, how many were seen depends on the moment.
    return text


def compare(daemon, name, ports=()):
    done = command("why", path=daemon.control.path)
    assert (done.returncode, done.stderr) == (0, "")
    told = plain(done.stdout, daemon, ports)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(told)
    assert told == path.read_text()
    answer = daemon.control.why()
    assert answer["chain"] and answer["summary"].split(":")[0] == answer["state"]
    return answer


def test_port_taken(panelind):
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        daemon = start(panelind, ["/usr/bin/python3", "-c", f"import socket; socket.create_server(('', {port}))"],
                       settings=HELD)
        settled(daemon, "backoff")
        answer = compare(daemon, "port_taken", [port])
    assert answer["next_restart_in_seconds"] > 3000
    assert "port_in_use" == daemon.control.status()["last_exit"]["cause"]


def test_missing_module(panelind):
    daemon = start(panelind, ["/usr/bin/python3", "-c", "import fastapi_of_another_age"], settings=HELD)
    settled(daemon, "backoff")
    compare(daemon, "missing_module")


def test_syntax_error(panelind, tmp_path):
    source = tmp_path / "api.py"
    source.write_text("def price(:\n    return 1\n")
    daemon = start(panelind, ["/usr/bin/python3", source], settings=HELD)
    settled(daemon, "backoff")
    done = command("why", path=daemon.control.path)
    assert f"correct the source at {source} line 1" in done.stdout
    assert "SyntaxError" in done.stdout


def test_wrong_interpreter(panelind, tmp_path):
    script = tmp_path / "worker"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    daemon = start(panelind, [script], settings={**HELD, "restart.onGiveUp": "hold"})
    state(daemon, "ready")
    script.unlink()
    script.write_text("#!/usr/bin/python2.2\n")
    script.chmod(0o755)
    status, _ = daemon.control.post("/v1/restart")
    assert status == 502
    state(daemon, "failed")
    done = command("why", path=daemon.control.path)
    told = plain(done.stdout, daemon).replace(str(script), "WORKER")
    path = GOLDEN / "wrong_interpreter.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(told)
    assert told == path.read_text()


def test_exit_0_at_once(panelind):
    daemon = start(panelind, steps=["exit 0"], settings={**NOTIFY, **HELD})
    settled(daemon, "backoff")
    compare(daemon, "exit_0_at_once")


def test_segfault(panelind):
    daemon = start(panelind, steps=["print serving", "notify READY=1", "boot 200ms", "signal-self SEGV"],
                   settings={**NOTIFY, **HELD, "worker.limits.core": 0})
    settled(daemon, "backoff")
    compare(daemon, "segfault")


def test_hang_at_start(panelind):
    port = free_port()
    daemon = start(panelind, steps=["print 'loading the model'", "hang"],
                   settings={"probe.readiness.http": f"http://127.0.0.1:{port}/ready"})
    daemon.wait_message("loading the model")
    wait_until(lambda: len(daemon.control.why()["chain"]) >= 2 and daemon.control.why()["last_output"]["lines"], "a probe")
    wait_until(lambda: daemon.control.why()["chain"][-1]["count"] > 3, "several probes")
    compare(daemon, "hang_at_start", [port])


def test_missed_startup_deadline(panelind):
    port = free_port()
    daemon = start(panelind, steps=["hang"],
                   settings={"probe.readiness.http": f"http://127.0.0.1:{port}/ready", **HELD,
                             "probe.startup.deadline": "500ms"})
    settled(daemon, "backoff")
    compare(daemon, "missed_startup_deadline", [port])


def test_failing_readiness(panelind):
    port = free_port()
    daemon = start(panelind, steps=[f"listen {port}"],
                   settings={"probe.readiness.http": f"http://127.0.0.1:{port}/ready",
                             "probe.readiness.period": "100ms"})
    state(daemon, "ready")
    http(port, "/status?set=503")
    state(daemon, "unready")
    compare(daemon, "failing_readiness", [port])


def test_refused_connections(panelind):
    port = free_port()
    daemon = start(panelind, steps=["listen {port}", "on USR1 stop-listening", "on USR1 print closed"],
                   settings={"serve.listen": f"127.0.0.1:{port}"})
    state(daemon, "ready")
    daemon.send(signal.SIGUSR1)
    daemon.wait_message("closed")
    with Client(port) as client:
        client.get("/")
        state(daemon, "unready")
        compare(daemon, "refused_connections", [port])


def test_silent_readiness(panelind):
    port = free_port()
    daemon = start(panelind, steps=[f"listen {port}", "on USR1 hang", "on USR1 print hangs"],
                   settings={"probe.readiness.http": f"http://127.0.0.1:{port}/ready",
                             "probe.readiness.period": "100ms", "probe.readiness.timeout": "200ms"})
    state(daemon, "ready")
    daemon.send(signal.SIGUSR1)
    state(daemon, "unready")
    compare(daemon, "silent_readiness", [port])


def test_a_death_while_the_successor_starts(panelind, tmp_path):
    """No start is announced that never comes, and the chain is in the order of time."""
    port, gate = free_port(), tmp_path / "gate"
    gate.touch()
    daemon = start(panelind, steps=[f"wait-file {gate}", "listen unix {socket}"],
                   settings={"serve.listen": f"127.0.0.1:{port}"})
    daemon.ready()
    gate.unlink()
    pid = daemon.wait_event("worker_started", generation=1)["pid"]
    daemon.send(signal.SIGHUP)
    wait_until(lambda: daemon.control.why()["chain"][-1]["sentence"].startswith("worker g2 is not ready yet"), "a failure")
    os.kill(pid, signal.SIGKILL)
    assert daemon.wait_event("worker_exited", generation=1)["restart_in_seconds"] == 0
    state(daemon, "starting")
    wait_until(lambda: daemon.control.why()["chain"][-1]["sentence"].endswith("times so far"), "more failures")
    chain = daemon.control.why()["chain"]
    assert [link["time"] for link in chain] == sorted(link["time"] for link in chain)
    compare(daemon, "death_while_the_successor_starts")
    assert daemon.events("worker_backoff") == []
    gate.touch()
    daemon.ready(2)
    assert daemon.stop() == 0


def test_liveness_kill(panelind):
    daemon = start(panelind, steps=["notify READY=1"],
                   settings={**NOTIFY, **HELD, "probe.liveness.exec": ["false"], "probe.liveness.period": "100ms"})
    settled(daemon, "backoff")
    compare(daemon, "liveness_kill")


def test_permanent_exit_code(panelind):
    daemon = start(panelind, steps=["print 'ERROR:    Application startup failed. Exiting.' to stderr", "exit 3"],
                   settings={**NOTIFY, "restart.onGiveUp": "hold"})
    settled(daemon, "failed")
    compare(daemon, "permanent_exit_code")


def test_crash_limit(panelind):
    daemon = start(panelind, steps=["print 'cannot reach the database' to stderr", "exit 1"],
                   settings={**NOTIFY, "restart.delay": "10ms", "restart.limit": 3, "restart.onGiveUp": "hold"})
    settled(daemon, "failed")
    wait_until(lambda: daemon.control.status()["last_exit"]["generation"] == 4, "the last end")
    compare(daemon, "crash_limit")
