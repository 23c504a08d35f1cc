# test_unprivileged.py
# panelind needs no privilege: all that it does, it does as user 65534 without capabilities and with no_new_privs; and
# image, units and examples ask for none. docs/security.md names these tests. Read harness/daemon.py first.

import os
import re
import signal
import subprocess

import pytest

from harness import free_port, http, is_alive, wait_until
from harness.control import command
from harness.daemon import ROOT as PROJECT

NOBODY = 65534
# Becoming another user needs a privilege; a test that is nobody already only drops what it might have.
DROP = ["setpriv", "--no-new-privs", "--inh-caps=-all"]
if os.geteuid() == 0:
    DROP += ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--bounding-set=-all"]


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def as_nobody(*words):
    """A command of the same user as the daemon."""
    return subprocess.run(
        [*DROP, *map(str, words)], capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]})


@pytest.fixture
def unprivileged(panelind):
    """Front, sidecar and control socket, as nobody; the worker has a child that leaves its session and ignores TERM."""
    port = free_port()
    daemon = panelind(
        ["listen unix {socket}", "daemonize-child ignore TERM", "notify READY=1"],
        {
            "serve.listen": f"127.0.0.1:{port}", "control.path": "c.sock", "restart.delay": "20ms",
            "probe.readiness.notify": True, "probe.liveness.http": "/ready", "stop.grace": "500ms",
            "worker.limits": {"openFiles": 512, "core": 0},
        },
        wrapper=DROP, sidecar=True, shared=True)
    daemon.ready()
    daemon.port = port
    daemon.control = daemon.directory / "c.sock"
    return daemon


def test_it_has_no_privilege(unprivileged):
    for pid in (unprivileged.pid, unprivileged.worker()):
        status = status_of(pid)
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        assert "0" not in status["Uid"].split()
        if os.geteuid() == 0:
            assert status["CapBnd"] == "0" * 16
            assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(NOBODY)}


def test_it_serves_restarts_reloads_and_stops_without_a_survivor(unprivileged):
    daemon = unprivileged
    warnings = [r["message"] for r in daemon.records if r.get("severity") == "WARNING"]
    assert warnings == [], "nothing is missing"
    assert http(daemon.port, "/pid").status == 200
    assert daemon.get("/health").status == daemon.get("/metrics").status == daemon.get("/").status == 200
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.wait_event("worker_killed_survivors", generation=1)
    daemon.ready(2)
    wait_until(lambda: http(daemon.port, "/pid").status == 200, "the second one serves")
    panelind = daemon.command()[len(DROP)]
    for name in ("status", "why", "logs", "reload", "restart"):
        done = as_nobody(panelind, name, "--control", daemon.control)
        assert done.returncode == 0, (name, done)
    assert len(daemon.events("reload_end", error=None)) == 1
    assert as_nobody(panelind, "probe", f"http://127.0.0.1:{daemon.port}/health").returncode == 0
    # Root may ask too.
    assert command("status", path=daemon.control).returncode == 0 or os.geteuid() != 0
    before = daemon.survivors()
    assert len(before) == 2
    assert as_nobody(panelind, "stop", "--control", daemon.control).returncode == 0
    assert daemon.wait() == 0
    assert not [one for one in before if is_alive(one.pid)]
    assert not daemon.control.exists()


def test_it_hears_sigterm_as_nobody(unprivileged):
    assert unprivileged.stop() == 0
    assert unprivileged.survivors() == []


# -- what asks for privileges, in files


def test_the_images_run_as_a_user_without_a_name():
    text = (PROJECT / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    runs = [stage for stage in stages if re.search(r"^ENTRYPOINT ", stage, re.M)]
    assert len(runs) == 2
    for stage in runs:
        users = re.findall(r"^USER (.*)$", stage, re.M)
        assert users and users[-1] == "65532:65532"
        assert "setcap" not in stage


@pytest.mark.parametrize("unit", ["panelind.service", "panelind@.service"])
def test_the_units_run_as_a_user_of_their_own_without_capabilities(unit):
    values = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", (PROJECT / "etc/systemd" / unit).read_text(), re.M):
        values.setdefault(name, []).append(value)
    assert values["DynamicUser"] == values["NoNewPrivileges"] == ["yes"]
    assert values["CapabilityBoundingSet"] == values["AmbientCapabilities"] == [""]
    assert values["UMask"] == ["0077"] and values["ProtectSystem"] == ["strict"]
    assert "@privileged" in values["SystemCallFilter"][-1] and values["SystemCallFilter"][-1].startswith("~")


def test_no_example_asks_for_a_privilege():
    files = [path for pattern in ("etc/**/*", "Examples/**/*") for path in PROJECT.glob(pattern)
             if path.suffix in (".conf", ".yaml", ".service", ".socket") and path.is_file()]
    assert len(files) > 10
    for path in files:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        for line in lines:
            assert not re.match(r"\s*(User|user): *root|User=root|(AmbientCapabilities|CapabilityBoundingSet)=\S", line), path
            assert "privileged: true" not in line and "NoNewPrivileges=no" not in line, path


def test_every_test_that_the_threat_model_names_is_there():
    """`file: name, name; file: name`, as docs/security.md writes it."""
    text = " ".join((PROJECT / "docs/security.md").read_text().split())
    named, file = [], None
    for word in re.findall(r"\btest_\w+:?", text):
        if word.endswith(":"):
            file = word[:-1]
        else:
            named.append((file, word))
    assert len(named) > 30
    for file, name in named:
        assert f"def {name}(" in (PROJECT / f"Tests/EndToEnd/{file}.py").read_text(), (file, name)
