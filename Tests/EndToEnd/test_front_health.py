# test_front_health.py
# /health and /ready on the public port, answered by panelind itself in every state and under every load: CONTRACT section 4.
# Read harness/front.py first; test_health.py has the same on the sidecar.

import json
import os
import signal
import socket
import time

import pytest

from harness import free_port, http, wait_until
from harness.director import answer
from harness.load import Load
from harness.rawclient import Client, request

KEYS = {"status", "state", "reason", "generation", "restarts", "uptime_seconds", "version", "revision"}


def both(front, state, reason, live=200, ready=503):
    """Asks both paths with GET and HEAD, and checks all that CONTRACT says of them."""
    for path, status in (("/health", live), ("/ready", ready)):
        with front.client() as client:
            client.get(path)
            got = client.answer()
            assert got.status == status, (path, got)
            assert got.value("content-type").split(";")[0] == "application/json"
            assert got.value("cache-control") == "no-store"
            assert got.has("retry-after") == (status == 503)
            body = json.loads(got.body)
            assert KEYS <= set(body)
            assert (body["state"], body["reason"]) == (state, reason)
            words = ("ok", "failed") if path == "/health" else ("ready", "not ready")
            assert body["status"] == words[status != 200]
            if not got.closes:
                client.get(path, method="HEAD")
                head = client.answer("HEAD")
                assert head.status == status and head.body == b""
                assert head.value("content-length") == got.value("content-length")
    return body


def test_starting(front):
    one = front(boot={"*": {"gate": "boot"}}, ready=False)
    one.director.wait("environment")
    both(one, "starting", "worker_starting")
    assert not one.director.find("head")


def test_ready(front):
    one = front()
    body = both(one, "ready", None, ready=200)
    assert (body["generation"], body["restarts"], body["revision"]) == (1, 0, None)
    assert body["uptime_seconds"] > 0 and body["version"]
    assert not one.director.requests("/health", probes=True), "the worker is not asked"


def test_unready(front):
    one = front({"/alive": [answer(503)]}, {"probe.readiness.http": "/alive", "probe.readiness.period": "100ms",
                                            "probe.readiness.failures": 1}, ready=False)
    one.director.rule("/alive", answer(200))
    one.daemon.ready()
    one.director.rule("/alive", answer(503))
    one.daemon.wait_event("worker_unready")
    both(one, "unready", "worker_unready")
    one.director.rule("/alive", answer(200))
    wait_until(lambda: one.health("/ready")[0] == 200, "ready again")


def test_backoff(front):
    one = front(settings={"restart.delay": "30s", "restart.maxDelay": "30s"})
    one.kill_worker()
    one.daemon.wait_event("worker_backoff")
    both(one, "backoff", "worker_backoff")


def test_failed(front):
    one = front(boot={"*": {"exit": 5}}, ready=False, settings={"restart.limit": 0, "restart.onGiveUp": "hold"})
    one.daemon.wait_event("worker_failed")
    both(one, "failed", "worker_failed", live=503)


def test_draining_and_stopping(front):
    one = front({"/slow": [["gate", "slow"], answer()]}, {"stop.budget": "6s", "stop.drain": "2s"}, term="ignore")
    with one.client() as client:
        client.get("/slow")
        one.director.at_gate("slow")
        one.daemon.send(signal.SIGTERM)
        one.daemon.wait_event("drain_begin")
        both(one, "draining", "draining")
        one.director.wait("terminated")
        both(one, "stopping", "stopping")


def test_a_restart_counts(front):
    one = front()
    one.kill_worker()
    one.daemon.ready(2)
    body = both(one, "ready", None, ready=200)
    assert (body["generation"], body["restarts"]) == (2, 1)


def test_the_revision_is_told(front):
    one = front(settings={"platform": None}, environment={"K_SERVICE": "agent", "K_REVISION": "agent-00042-abc"})
    assert one.health()[1]["revision"] == "agent-00042-abc"


def test_between_the_death_and_the_next_worker_ready_is_never_200(front):
    one = front(boot={"2": {"gate": "boot"}})
    generation = one.kill_worker()
    one.daemon.wait_event("worker_started", generation=generation + 1)
    with one.client() as client:
        for _ in range(50):
            client.get("/ready")
            assert client.answer().status == 503
            client.get("/health")
            assert client.answer().status == 200
    one.director.release("boot")
    one.daemon.ready(2)
    wait_until(lambda: one.health("/ready")[0] == 200, "ready")


@pytest.mark.case("F38")
def test_with_every_slot_taken_both_are_answered(front):
    one = front({"/x": [["gate", "never"]]}, {"serve.concurrency": 3, "serve.heldRequests": 3})
    clients = [one.client() for _ in range(6)]
    for client in clients:
        client.get("/x")
    one.director.at_gate("never", count=3)
    wait_until(lambda: one.get("/x").status == 503, "every place is taken")
    times = []
    for _ in range(20):
        begin = time.monotonic()
        both(one, "ready", None, ready=200)
        times.append(time.monotonic() - begin)
    assert sorted(times)[10] < 0.25
    for client in clients:
        client.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"])
@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_other_methods_are_405_with_allow(health_front, method, path):
    with health_front.client() as client:
        client.send(request(path, b"hello", method=method))
        got = client.answer()
        assert got.status == 405
        assert {word.strip() for word in got.value("allow").split(",")} == {"GET", "HEAD"}
        if not got.closes:
            client.get("/health")
            assert client.answer().status == 200
    assert not [one for one in health_front.director.requests(path, probes=True) if one.method == method]


@pytest.fixture(scope="module")
def health_front(module_front):
    return module_front()


@pytest.mark.parametrize("path", ["/health?x=1", "/health?", "/ready?a=b&c", "/health?/../x"])
def test_the_query_does_not_matter(health_front, path):
    assert health_front.get(path).status == 200
    assert not health_front.director.requests(path, probes=True)


@pytest.mark.parametrize("path", [
    "/Health", "/HEALTH", "/health/", "//health", "/%68ealth", "/health%20", "/healthz", "/healt", "/x/health", "/./health",
    "/x/../health", "/Ready", "/ready/", "/%72eady", "/health;a=b", "/health%3Fx", "/?/health",
])
def test_all_else_is_the_worker_s(health_front, path):
    assert health_front.seen(path)["target"] == path


@pytest.mark.parametrize("data", [
    request("/health", b"hello", method="GET"),
    b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
], ids=["length", "chunked"])
def test_a_get_with_a_body_is_answered_and_the_body_is_no_request(health_front, data):
    with health_front.client() as client:
        client.send(data + request("/x"))
        got = client.answer()
        assert got.status == 200
        if got.closes:
            client.ends()
        else:
            assert client.answer().status == 200


def test_health_between_two_requests_of_a_connection(health_front):
    with health_front.client() as client:
        for path in ("/a", "/health", "/b", "/ready", "/c"):
            client.get(path)
            assert client.answer().status == 200


def test_an_http_1_0_client_is_answered_and_closed(health_front):
    with health_front.client() as client:
        client.send(b"GET /health HTTP/1.0\r\n\r\n")
        assert client.answer().status == 200
        client.ends()


def test_paths_of_one_s_own(front):
    one = front({"/-/ready": [answer(200, b"worker")]}, {"serve.healthPath": "/-/live", "serve.readyPath": "/-/ready"})
    assert one.health("/-/live")[1]["status"] == "ok"
    assert one.health("/-/ready")[1]["status"] == "ready"
    assert one.seen("/health")["target"] == "/health"
    assert one.seen("/ready")["target"] == "/ready"
    # The implied question goes to the same path at the worker.
    assert one.director.requests("/-/ready")


def test_none_leaves_the_paths_to_the_worker(front):
    one = front(settings={"serve.healthPath": "none", "serve.readyPath": "none"})
    assert one.seen("/health")["target"] == "/health"
    assert one.seen("/ready")["target"] == "/ready"
    # Without a path to ask, accepting is enough; the one above is the test's own.
    assert len(one.director.requests("/ready", probes=True)) == 1


def test_none_for_one_of_them(front):
    one = front(settings={"serve.healthPath": "none"})
    assert one.seen("/health")["target"] == "/health"
    assert one.health("/ready")[1]["status"] == "ready"


@pytest.mark.parametrize("status, state", [(200, "ready"), (204, "ready"), (301, "ready"), (404, "ready"), (499, "ready"),
                                           (500, "starting"), (503, "starting")])
def test_below_500_is_ready(front, status, state):
    """What a worker without a /ready of its own answers is 404."""
    one = front({"/ready": [answer(status, b"" if status == 204 else b"x") if status != 204
                            else ["send", "HTTP/1.1 204 No Content\r\n\r\n"]]}, ready=state == "ready",
                settings={"log.level": "debug"})
    if state == "ready":
        both(one, "ready", None, ready=200)
    else:
        one.daemon.wait_event("probe_failed", count=2)
        both(one, "starting", "worker_starting")
        one.director.rule("/ready", answer(200))
        one.daemon.ready()


def test_a_worker_that_accepts_but_is_silent_is_not_ready(front):
    one = front({"/ready": [["gate", "answer"], answer()]}, ready=False)
    one.director.at_gate("answer")
    both(one, "starting", "worker_starting")
    one.director.release("answer")
    one.daemon.ready()


def test_readiness_is_asked_behind_the_front_with_a_host(front):
    """A worker that checks Host must not refuse the question for its lack."""
    one = front()
    probe = one.director.requests("/ready", probes=True)[0]
    assert probe.method == "GET" and probe.value("host")
    assert probe.value("user-agent").lower().startswith("panelind")


@pytest.mark.parametrize("kind", ["failing", "passing"])
def test_the_given_probe_decides_alone(front, kind):
    one = front({"/ready": [answer(503)], "/mine": [answer(200 if kind == "passing" else 500)]},
                {"probe.readiness.http": "/mine", "log.level": "debug"}, ready=kind == "passing")
    if kind == "failing":
        one.daemon.wait_event("probe_failed")
        assert one.health("/ready")[0] == 503
    else:
        assert one.health("/ready")[0] == 200
    assert not one.director.requests("/ready", probes=True)


def test_notifications_decide_in_front_mode_too(front):
    """The worker's own READY=1, from its first on."""
    import sys

    script = (
        "import os, socket, sys, http.server, threading\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        " def do_GET(self):\n  self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'ok')\n"
        "s = http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H)\n"
        "n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "a = os.environ['NOTIFY_SOCKET']\n"
        "n.sendto(b'READY=1\\nSTATUS=fine', '\\0' + a[1:] if a[0] == '@' else a)\n"
        "s.serve_forever()\n")
    one = front(command=[sys.executable, "-S", "-c", script, "{port}"], settings={"probe.readiness.notify": True})
    assert one.get("/x").body == b"ok"
    both(one, "ready", None, ready=200)


# Who decides on readiness does not count: none of these would be asked again for long.
DECIDERS = {
    "implied": ({}, []),
    "probe": ({"probe.readiness.http": "/ready", "probe.readiness.period": "1h"}, []),
    "exec": ({"probe.readiness.exec": ["true"], "probe.readiness.period": "1h"}, []),
    "notify": ({"probe.readiness.notify": True}, ["notify READY=1"]),
}


@pytest.mark.parametrize("decider", DECIDERS)
def test_a_refused_connection_makes_a_living_worker_unready_until_it_takes_one(panelind, decider):
    settings, steps = DECIDERS[decider]
    port = free_port()
    daemon = panelind(["listen {port}", *steps, "on USR1 stop-listening", "on USR1 print closed", "on USR2 listen {port}"],
                      {"serve.listen": f"127.0.0.1:{port}", "serve.hold": "60s", **settings})
    daemon.ready()
    for times in (1, 2):
        with Client(port) as client, Client(port) as other:
            # It has the connection that was kept open, where there is one.
            other.get("/hang")
            daemon.send(signal.SIGUSR1)
            daemon.wait_message("closed", count=times)
            client.get("/")
            daemon.wait_event("worker_unready", count=times)
            assert http(port, "/ready").status == 503
            daemon.send(signal.SIGUSR2)
            # The request that was refused waited for it.
            assert client.answer().status == 200
        assert http(port, "/ready").status == 200
    assert len(daemon.events("worker_started")) == 1, "readiness restarts nobody"
    for event in daemon.events("worker_unready"):
        assert event["reason"] == "connection refused"
    assert len(daemon.events("probe_failed", probe="connection")) == 2, "one record each time, however long it takes"
    assert daemon.stop() == 0


def datagram_socket(path):
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.bind(path)
    return other


REPLACED = {
    "nothing": (lambda path: None, "no such socket"),
    "a link to itself": (lambda path: os.symlink(path, path), "a loop of links"),
    "a datagram socket": (datagram_socket, "no stream socket"),
}


@pytest.mark.parametrize("what", REPLACED)
def test_what_is_in_place_of_its_socket_makes_a_living_worker_unready(panelind, what):
    replace, reason = REPLACED[what]
    port = free_port()
    daemon = panelind(["dump-state state", "listen unix {socket}"], {"serve.listen": f"127.0.0.1:{port}", "serve.hold": "60s"})
    daemon.ready()
    arguments = json.loads((daemon.directory / "state").read_text())["argv"]
    path = arguments[arguments.index("unix") + 1]
    os.unlink(path)
    kept = replace(path)
    with Client(port) as client:
        client.get("/")
        assert daemon.wait_event("worker_unready")["reason"] == reason, kept
        assert http(port, "/ready").status == 503
    assert daemon.stop() == 0


def test_a_death_under_load_is_a_death_and_no_refused_connection(front):
    """The listener of a process that dies is closed before anybody hears of its end."""
    one = front({"*": [answer(200)]}, {"restart.delay": "0s", "restart.maxDelay": "0s", "serve.heldRequests": 2000})
    with Load(one.target, lambda n: ("GET", f"GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n".encode()), clients=20) as load:
        for generation in range(1, 6):
            one.daemon.ready(generation)
            wait_until(lambda: len(load.outcomes) > generation * 50, "traffic")
            one.kill_worker(generation)
        one.daemon.ready(6)
    assert one.daemon.events("worker_unready") == []
    assert one.daemon.stop() == 0


def test_what_waits_for_a_worker_that_refuses_is_answered_503_by_a_stop(panelind):
    """Nothing of it was sent: it may be made again elsewhere, and no worker has failed on it."""
    port = free_port()
    daemon = panelind(["listen {port}", "on USR1 stop-listening", "on USR1 print closed"],
                      {"serve.listen": f"127.0.0.1:{port}", "serve.hold": "60s"})
    daemon.ready()
    daemon.send(signal.SIGUSR1)
    daemon.wait_message("closed")
    with Client(port) as get, Client(port) as post:
        get.get("/")
        daemon.wait_event("worker_unready")
        post.post("/", b"x")
        daemon.send(signal.SIGTERM)
        for client in (get, post):
            got = client.answer()
            assert (got.status, got.has("retry-after")) == (503, True), got
    assert daemon.wait() == 0
