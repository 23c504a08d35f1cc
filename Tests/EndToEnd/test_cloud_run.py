# test_cloud_run.py
# Cloud Run as panelind sees it: what is refused and advised there, the profile in force, a secret that nobody else sees, and
# CPU that is taken away. The image itself is tested by Tests/Environments/container.sh.

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import uuid

import pytest

from harness import Placement, binaries, free_port, http, wait_until
from harness.control import Control
from harness.daemon import ROOT
from harness.processes import descendants

FRONT = ["listen unix {socket}"]
CLOUD = {"K_SERVICE": "panelin-api", "K_REVISION": "panelin-api-00042-abc", "K_CONFIGURATION": "panelin-api"}


@pytest.fixture
def cloud(panelind):
    """Starts a daemon as on Cloud Run, in front mode on a free $PORT: `cloud(steps, settings)`."""

    def start(steps=FRONT, settings=None, environment=None, **options):
        port, side = free_port(), free_port()
        daemon = panelind(
            steps,
            {"platform": None, "sidecar.listen": f"127.0.0.1:{side}", **(settings or {})},
            environment={**CLOUD, "PORT": port, **(environment or {})},
            **options,
        )
        daemon.port, daemon.side = port, side
        return daemon

    return start


@pytest.fixture
def judged(tmp_path):
    """`judged("run", …)`: one command as on Cloud Run, to its end."""

    def go(*words, **environment):
        base = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PORT": str(free_port()), **CLOUD}
        given = {name: value for name, value in {**base, **environment}.items() if value is not None}
        return subprocess.run(
            [binaries() / "panelind", *map(str, words)], cwd=tmp_path, env=given, capture_output=True, text=True,
            timeout=60, stdin=subprocess.DEVNULL, check=False)

    return go


WORKER = ["--", "true", "--uds", "{socket}"]


@pytest.mark.parametrize("port", ["0", "70000", "http"])
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_port_that_is_none_is_refused_by_its_name(judged, verb, port):
    done = judged(verb, *WORKER, PORT=port)
    assert done.returncode == 78
    assert "PORT" in done.stderr and "serve.listen=0.0.0.0:" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("port", [None, ""])
def test_without_port_it_is_8080(judged, port):
    report = json.loads(judged("check", "--json", "--set", "serve.listen=127.0.0.1:${PORT:-8080}", *WORKER, PORT=port).stdout)
    assert {s["key"]: s["value"] for s in report["settings"]}["serve.listen"] == "127.0.0.1:8080"


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such file; mount it there"),
        (lambda path: path.write_text(""), "empty; write the value into it"),
        (lambda path: path.write_text("\n"), "empty; write the value into it"),
        (lambda path: path.mkdir(), "a directory; write the path of the file in it"),
    ],
    ids=["missing", "empty", "only a newline", "a directory"],
)
def test_a_secret_that_cannot_be_used_is_refused_with_what_to_do(judged, tmp_path, verb, make, why):
    path = tmp_path / "api-key"
    make(path)
    done = judged(verb, "--set", f"worker.secrets={{API_KEY: {path}}}", *WORKER)
    assert done.returncode == 78
    assert f"API_KEY: cannot read {path}: {why}" in done.stderr


def test_a_required_variable_that_nobody_gives_is_refused(judged):
    done = judged("run", "--set", "worker.requiredEnvironment=[PANELIN_API_KEY]", *WORKER)
    assert done.returncode == 78
    assert "PANELIN_API_KEY is not set; set it, or give it in worker.secrets" in done.stderr


def test_an_image_without_the_worker_says_so(judged, tmp_path):
    done = judged("run", "--", "uvicorn-of-another-image", "api:app", "--uds", "{socket}")
    assert done.returncode == 127 and "no command uvicorn-of-another-image in PATH; install it" in done.stderr
    script = tmp_path / "uvicorn"
    script.write_text("#!/usr/local/bin/no-python\n")
    script.chmod(0o755)
    done = judged("run", "--", script, "api:app", "--uds", "{socket}")
    assert done.returncode == 127
    assert "wants the interpreter /usr/local/bin/no-python, which does not exist" in done.stderr


def advice(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["advice"]


def test_the_command_of_the_old_plan_is_diagnosed(judged):
    old = "uvicorn api:app --host 0.0.0.0 --port ${PORT} --workers 1"
    said = advice(judged("check", "--json", "--", "sh", "-c", old))
    assert any("sh -c without exec keeps a shell between panelind and the worker" in each for each in said)
    assert any("direct mode on cloudrun" in each and "{socket}" in each for each in said)
    unset = judged("check", "--", "sh", "-c", old, PORT=None)
    assert unset.returncode == 78 and "PORT is not set; set it, or write ${PORT:-default}" in unset.stderr


def test_socket_mode_is_advised_against_and_front_mode_is_not(judged):
    (said,) = advice(judged("check", "--json", "--", "true", "--fd", "{fd}"))
    assert "socket mode on cloudrun" in said and "{socket}" in said
    assert advice(judged("check", "--json", *WORKER)) == []


def test_the_profile_is_the_one_of_the_contract(judged):
    report = json.loads(judged("check", "--json", *WORKER).stdout)
    values = {setting["key"]: setting["value"] for setting in report["settings"]}
    wanted = {
        "platform": "cloudrun", "stop.budget": "9s", "stop.delay": "1s", "restart.limit": "8",
        "probe.startup.deadline": "4m", "restart.permanentExitCodes": "[3, 4, 126, 127]",
        "sidecar.listen": "127.0.0.1:8081", "log.format": "json",
    }
    assert {key: values[key] for key in wanted} == wanted
    assert "all" in values["serve.trustedProxies"]


def test_the_public_port_answers_health_and_readiness_from_the_first_moment(cloud):
    daemon = cloud(["boot 1s", *FRONT])
    wait_until(lambda: alive(daemon), "the port answers")
    assert http(daemon.port, "/health").status == 200
    early = http(daemon.port, "/ready")
    assert early.status == 503 and json.loads(early.body)["reason"] == "worker_starting"
    daemon.ready()
    body = json.loads(http(daemon.port, "/ready").body)
    assert body["status"] == "ready" and body["revision"] == CLOUD["K_REVISION"]
    assert daemon.stop() == 0
    assert daemon.took < 9


def alive(daemon):
    try:
        return http(daemon.port, "/health").status
    except OSError:
        return None


def everything_seen(daemon):
    """All that panelind shows of itself: log, errors, answers, control, command lines, its environment."""
    parts = [b"".join(daemon.lines).decode(), daemon.stderr]
    for port, path in ((daemon.port, "/health"), (daemon.port, "/ready"), (daemon.side, "/metrics"), (daemon.side, "/")):
        try:
            parts.append(http(port, path).body.decode(errors="replace"))
        except OSError:
            pass
    control = Control(daemon.directory / "c.sock")
    for target in ("/v1/status", "/v1/why", "/v1/events?after=0", "/v1/logs?lines=1000"):
        status, _, body = control.ask(target)
        assert status == 200
        parts.append(body.decode(errors="replace"))
    process = pathlib.Path(f"/proc/{daemon.pid}")
    parts += [(process / name).read_bytes().decode(errors="replace") for name in ("environ", "cmdline", "comm", "status")]
    for one in descendants(daemon.pid):
        try:
            parts.append(pathlib.Path(f"/proc/{one.pid}/cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            pass
    parts.append(daemon.config.read_text())
    return "\n".join(parts)


def test_a_secret_is_seen_by_the_worker_and_by_nobody_else(cloud, judged, tmp_path):
    canary = f"canary-{uuid.uuid4().hex}"
    file = tmp_path / "api-key"
    file.write_text(canary + "\n")
    settings = {
        "worker.secrets": {"PANELIN_API_KEY": str(file)}, "worker.requiredEnvironment": ["PANELIN_API_KEY"],
        "log.level": "debug", "log.access": "all", "restart.delay": "10ms", "restart.limit": "none",
        "control.path": "c.sock",
    }
    daemon = cloud(settings=settings)
    daemon.ready()
    environment = pathlib.Path(f"/proc/{daemon.worker()}/environ").read_bytes().split(b"\0")
    assert f"PANELIN_API_KEY={canary}".encode() in environment
    # As a client would send it, and as a crash, a restart and a stop would drag it along.
    http(daemon.port, "/", headers={"Authorization": f"Bearer {canary}", "Cookie": canary, "X-API-Key": canary})
    os.kill(daemon.worker(), signal.SIGSEGV)
    daemon.ready(2)
    seen = everything_seen(daemon)
    # Afresh at every start: a new value reaches the next worker, an unreadable one fails the start by name.
    file.write_text("second-" + canary)
    os.kill(daemon.worker(2), signal.SIGKILL)
    daemon.ready(3)
    assert f"PANELIN_API_KEY=second-{canary}".encode() in pathlib.Path(f"/proc/{daemon.worker(3)}/environ").read_bytes()
    file.unlink()
    os.kill(daemon.worker(3), signal.SIGKILL)
    failed = daemon.wait_event("worker_exited", generation=4)
    assert f"PANELIN_API_KEY: cannot read {file}: no such file" in failed["error"]
    seen += everything_seen(daemon)
    daemon.stop()
    seen += everything_after(daemon)
    checked = judged("check", "--config", daemon.config, *WORKER)
    shown = judged("check", "--json", "--config", daemon.config, *WORKER)
    assert "worker_exited" in seen
    assert canary not in seen + checked.stdout + checked.stderr + shown.stdout + shown.stderr


def everything_after(daemon):
    return b"".join(daemon.lines).decode() + daemon.stderr


def test_a_secret_in_the_command_is_refused_unread(judged, tmp_path):
    canary = f"canary-{uuid.uuid4().hex}"
    file = tmp_path / "api-key"
    file.write_text(canary)
    done = judged("run", "--set", f"worker.secrets={{API_KEY: {file}}}", "--", "true", "{socket}", "--key=${API_KEY}")
    assert done.returncode == 78 and "every process can read a command line" in done.stderr
    assert canary not in done.stderr + done.stdout


@pytest.mark.parametrize("placement", [Placement.PID1, Placement.SUBREAPER], ids=["gen2", "gen1"])
def test_a_worker_is_not_blamed_for_cpu_that_was_taken_away(cloud, placement):
    """All processes stop for longer than liveness would bear, as between two requests; then a request comes."""
    daemon = cloud(
        settings={"probe.liveness": {"http": "/health", "period": "200ms", "timeout": "200ms", "failures": 2}},
        placement=placement)
    daemon.ready()
    worker = daemon.worker()
    everyone = [daemon.pid, *(one.pid for one in descendants(daemon.pid))]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    # Nothing of it can be awaited: the point is that time passes.
    time.sleep(3)
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    assert http(daemon.port, "/").status == 200
    daemon.wait_event("clock_gap")
    # Several periods of the liveness probe, which would have failed twice by now.
    time.sleep(1)
    assert http(daemon.port, "/ready").status == 200
    assert daemon.worker() == worker and not daemon.events("worker_exited")
    assert daemon.stop() == 0


def test_the_metrics_that_the_alerts_ask_for_are_there(cloud):
    daemon = cloud()
    daemon.ready()
    assert http(daemon.port, "/").status == 200
    rules = (ROOT / "etc/monitoring/prometheus/rules.yaml").read_text()
    asked = set(re.findall(r"\bpanelind_[a-z_]+\b", rules))
    assert "panelind_http_requests_total" in asked

    def scraped():
        page = http(daemon.side, "/metrics").body.decode()
        return {line.partition(" ")[0] for line in page.splitlines() if line and not line.startswith("#")}

    # A request is counted when its answer has ended, which may be a moment after the client has it.
    wait_until(lambda: any(each.startswith("panelind_http_requests_total{") for each in scraped()), "the request counts")
    samples = scraped()
    assert asked <= {sample.partition("{")[0] for sample in samples}
    for state in re.findall(r'state="(\w+)"', rules):
        assert f'panelind_state{{state="{state}"}}' in samples
    assert any('code="200"' in sample for sample in samples)


def test_giving_up_ends_the_container_and_says_why(cloud):
    daemon = cloud(["print ImportError:-no-module to stderr", "exit 1"], {"restart.delay": "1ms", "restart.maxDelay": "2ms"})
    assert daemon.wait() == 70
    ends = daemon.events("worker_exited")
    assert len(ends) == 9 and all("ImportError" in " ".join(end["last_output"]) for end in ends)
    assert len(daemon.events("worker_failed")) == 1

