# test_health.py
# /health and /ready on the sidecar, to the letter of CONTRACT section 4, in every state that can be reached here.
# The front's own two paths come with the front. Read harness/daemon.py first.

import json
import os
import re
import signal
import time

import pytest

from harness import free_port, http, raw_http, wait_until

KEYS = ["status", "state", "reason", "generation", "restarts", "uptime_seconds", "version", "revision"]
NOTIFY = {"probe.readiness.notify": True}


def bodies(daemon):
    """Both answers, checked for what is true of all: status, headers, keys."""
    answers = {}
    for path in ("/health", "/ready"):
        answer = daemon.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.status in (200, 503)
        if answer.status == 503:
            assert re.fullmatch(r"[1-9][0-9]*", answer.headers["retry-after"])
        else:
            assert "retry-after" not in answer.headers
        body = json.loads(answer.body)
        assert list(body) == KEYS
        assert isinstance(body["uptime_seconds"], (int, float)) and body["uptime_seconds"] >= 0
        words = {"/health": ("ok", "failed"), "/ready": ("ready", "not ready")}[path]
        assert body["status"] == words[answer.status == 503]
        answers[path] = (answer.status, body)
    return answers


def expect(daemon, state, reason, health=200, **fields):
    """Waits until both endpoints say this."""

    def told():
        try:
            answers = bodies(daemon)
        except OSError:
            return False
        # Two requests: a state that changed between them is asked again.
        return answers if {body["state"] for _, body in answers.values()} == {state} else False

    answers = wait_until(told, f"state {state}")
    for path, (status, body) in answers.items():
        assert body["reason"] == reason, path
        for key, value in fields.items():
            assert body[key] == value, (path, key)
    assert answers["/health"][0] == health
    assert answers["/ready"][0] == (200 if state == "ready" else 503)


def version(panelind_version=[]):
    if not panelind_version:
        import subprocess

        from harness import binaries

        out = subprocess.run([binaries() / "panelind", "--version"], capture_output=True, text=True, check=True)
        panelind_version.append(out.stdout.strip())
    return panelind_version[0]


# -- the states


def test_starting_then_ready(panelind, tmp_path):
    file = tmp_path / "go"
    daemon = panelind([f"wait-file {file}", "notify READY=1"], NOTIFY, sidecar=True)
    expect(daemon, "starting", "worker_starting", generation=1, restarts=0, revision=None, version=version())
    file.touch()
    expect(daemon, "ready", None, generation=1, restarts=0)


def test_unready(panelind):
    daemon = panelind(["notify READY=1", "barrier", "notify STOPPING=1"], NOTIFY, sidecar=True)
    expect(daemon, "unready", "worker_unready", generation=1, restarts=0)


@pytest.mark.case("C44", "C48")
def test_backoff_then_a_restart_counts(panelind, tmp_path):
    file = tmp_path / "go"
    daemon = panelind([f"wait-file {file}", "exit 9"], {"restart.delay": "3s", "restart.jitter": 0}, sidecar=True)
    expect(daemon, "starting", "worker_starting")
    file.touch()
    expect(daemon, "backoff", "worker_backoff", generation=1, restarts=0)
    file.unlink()
    daemon.wait_event("worker_started", generation=2)
    expect(daemon, "starting", "worker_starting", generation=2, restarts=1)


def test_retry_after_is_the_rest_of_the_backoff(panelind):
    daemon = panelind(["exit 9"], {"restart.delay": "25s", "restart.jitter": 0}, sidecar=True)
    daemon.wait_event("worker_backoff")
    first = int(daemon.get("/ready").headers["retry-after"])
    assert 20 <= first <= 25
    wait_until(
        lambda: int(daemon.get("/ready").headers["retry-after"]) < first, "Retry-After shrinks", every=0.2)


def test_failed_is_held(panelind):
    daemon = panelind(
        ["exit 9"], {"restart.limit": 1, "restart.delay": "20ms", "restart.onGiveUp": "hold"}, sidecar=True)
    expect(daemon, "failed", "worker_failed", health=503, generation=2, restarts=1)
    assert daemon.events("worker_failed")
    assert daemon.stop() == 0, "CONTRACT section 2: a stop while held exits 0"


def test_a_permanent_failure_is_held(panelind):
    daemon = panelind(["exit 3"], {"restart.onGiveUp": "hold"}, sidecar=True)
    expect(daemon, "failed", "worker_failed", health=503, generation=1, restarts=0)


def test_draining_while_the_delay_lasts_then_stopping(panelind):
    daemon = panelind(
        ["ignore TERM", "notify READY=1"],
        {**NOTIFY, "stop.delay": "1500ms", "stop.grace": "2s", "stop.budget": "5s"}, sidecar=True)
    expect(daemon, "ready", None)
    begin = time.monotonic()
    daemon.send(signal.SIGTERM)
    expect(daemon, "draining", "draining")
    assert time.monotonic() - begin < 1.5
    expect(daemon, "stopping", "stopping")
    assert daemon.wait() == 0


def test_ready_is_503_before_the_worker_hears_of_the_stop(panelind):
    """C50 without a front: /ready flips with the signal, /health stays."""
    daemon = panelind(["ignore TERM", "notify READY=1"], {**NOTIFY, "stop.grace": "2s", "stop.budget": "3s"}, sidecar=True)
    expect(daemon, "ready", None)
    daemon.send(signal.SIGTERM)
    expect(daemon, "stopping", "stopping")
    assert daemon.wait() == 0


def test_a_stop_in_backoff_never_starts_again(panelind):
    daemon = panelind(["exit 9"], {"restart.delay": "20s"}, sidecar=True)
    expect(daemon, "backoff", "worker_backoff")
    assert daemon.stop() == 0
    assert daemon.took < 5
    assert len(daemon.events("worker_started")) == 1


def test_a_clean_end_is_a_restart_too(panelind):
    """Under `always` an exit 0 after ready is restarted, uncounted; `restarts` counts unplanned replacements."""
    daemon = panelind(["notify READY=1", "exit-after 100ms 0"], {**NOTIFY, "restart.delay": "200ms"}, sidecar=True)
    daemon.ready(generation=2)
    wait_until(lambda: daemon.health()["restarts"] >= 1, "a restart is counted")


def test_the_revision_of_cloud_run(panelind):
    daemon = panelind(["notify READY=1"], NOTIFY, sidecar=True, environment={"K_REVISION": 'panelin-api-00042-"abc"'})
    expect(daemon, "ready", None, revision='panelin-api-00042-"abc"')


def test_uptime_is_panelinds_not_the_workers(panelind):
    daemon = panelind(["notify READY=1", "exit-after 300ms 9"], {**NOTIFY, "restart.delay": "20ms"}, sidecar=True)
    daemon.ready(generation=3)
    assert daemon.health()["uptime_seconds"] >= 0.5


# -- methods and targets


@pytest.fixture
def ready(panelind):
    daemon = panelind(["notify READY=1"], NOTIFY, sidecar=True)
    daemon.ready()
    return daemon


def test_head_has_the_headers_and_no_body(ready):
    for path in ("/health", "/ready"):
        whole = ready.get(path)
        text = raw_http(
            ready.sidecar_port, f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()).decode()
        head, _, body = text.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 ")
        assert body == ""
        length = int(re.search(r"(?i)content-length: (\d+)", head).group(1))
        assert abs(length - len(whole.body)) <= 1, "uptime may have grown a digit"
        assert re.search(r"(?i)cache-control: no-store", head)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_405_with_allow(ready, method):
    for path in ("/health", "/ready", "/ready?x"):
        answer = ready.get(path, method=method)
        assert answer.status == 405
        assert {word.strip() for word in answer.headers["allow"].split(",")} == {"GET", "HEAD"}
        assert answer.headers["cache-control"] == "no-store"


def test_an_unknown_method_is_405(ready):
    answer = raw_http(ready.sidecar_port, b"BREW /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] in (b"405", b"400", b"501")


@pytest.mark.parametrize("target", ["/ready?", "/ready?x=1&y=/health", "/health?a=b"])
def test_the_query_is_ignored(ready, target):
    assert ready.get(target).status == 200


@pytest.mark.parametrize(
    "target", ["/READY", "/Health", "/ready/", "//ready", "/%72eady", "/ready%3Fx", "/./ready", "/healthz", "/readyx"])
def test_the_paths_are_exact_and_undecoded(ready, target):
    assert ready.get(target).status == 404


def test_http_1_0_is_answered_and_closed(ready):
    answer = raw_http(ready.sidecar_port, b"GET /ready HTTP/1.0\r\n\r\n")
    assert answer.split(b" ")[1] == b"200"


def test_a_probe_of_the_platform_gets_its_answer(ready):
    """Absolute form and an odd Host, as proxies and probes send them."""
    port = ready.sidecar_port
    answer = raw_http(
        port, f"GET http://127.0.0.1:{port}/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in (b"200", b"400")
    answer = raw_http(port, b"GET /ready HTTP/1.1\r\nHost: evil.example\r\nUser-Agent: GoogleHC/1.0\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] == b"200"


def test_the_status_page_is_not_there_yet_and_nothing_else_is(ready):
    for path in ("/v1/status", "/../etc/passwd", "/favicon.ico"):
        assert ready.get(path).status in (400, 404)


# -- where it listens


def test_a_taken_default_address_on_local_is_a_warning_and_a_free_port(panelind):
    """8081 may be anybody's here, so the test takes it itself where it can."""
    import socket

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8081))
            taken.listen()
        except OSError:
            pass  # Another has it, which is as good.
        daemon = panelind(["notify READY=1"], {**NOTIFY, "sidecar.listen": None})
        daemon.ready()
        address = daemon.wait_event("panelind_started")["sidecar"]
        host, _, port = address.rpartition(":")
        assert host == "127.0.0.1" and port != "8081"
        warnings = [r for r in daemon.records if r.get("severity") == "WARNING" and "8081" in r["message"]]
        assert len(warnings) == 1
        assert address in warnings[0]["message"]
        assert http(int(port), "/ready").status == 200


@pytest.mark.parametrize("settings", [{"platform": "cloudrun"}, {"platform": "systemd"}, {}], ids=str)
def test_a_taken_address_elsewhere_or_given_is_71(panelind, settings):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = panelind([], {"sidecar.listen": address, **settings})
        assert daemon.wait() == 71
        assert address in daemon.stderr
        assert not daemon.records, "nothing was started"


def test_a_sidecar_on_ipv6(panelind):
    import socket

    port = free_port()
    daemon = panelind(["notify READY=1"], {**NOTIFY, "sidecar.listen": f"[::1]:{port}"})
    daemon.ready()
    with socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_sidecar_on_a_unix_socket(panelind, tmp_path):
    path = tmp_path / "s"
    daemon = panelind(["notify READY=1"], {**NOTIFY, "sidecar.listen": f"unix:{path}"})
    daemon.ready()
    assert http(path, "/ready").status == 200
    assert daemon.stop() == 0
    assert not path.exists()


def test_no_sidecar_where_none_is_wanted(panelind):
    daemon = panelind(["notify READY=1"], {**NOTIFY, "sidecar.listen": "none"})
    daemon.ready()
    assert daemon.wait_event("panelind_started")["sidecar"] is None
    with open(f"/proc/{daemon.pid}/net/tcp") as file:
        table = file.read()
    inodes = {
        os.readlink(f"/proc/{daemon.pid}/fd/{fd}").split("[")[-1].rstrip("]")
        for fd in os.listdir(f"/proc/{daemon.pid}/fd")
        if os.path.islink(f"/proc/{daemon.pid}/fd/{fd}")
        and os.readlink(f"/proc/{daemon.pid}/fd/{fd}").startswith("socket:")
    }
    assert not [line for line in table.splitlines()[1:] if line.split()[9] in inodes]
