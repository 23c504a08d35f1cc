# test_harness.py
# One start, one answer, one stop in each placement: what every other test stands on. And the equipment of the front's tests.
# Read harness/daemon.py and harness/director.py first.

import contextlib
import itertools
import signal
import socket
import subprocess
import threading

import pytest

from harness import Placement, accepts, free_port, http, wait_until
from harness.director import Director, answer, send
from harness.load import Load
from harness.rawclient import Client, NotHTTP, Truncated, request


def test_a_worker_starts_serves_and_stops_in_each_placement(panelind, placement):
    daemon = panelind(["listen env"], sidecar=True, environment={"PORT": (port := free_port())}, placement=placement)
    daemon.ready()
    assert http(port, "/").status == 200
    assert daemon.health()["state"] == "ready"
    warned = daemon.events("subreaper_refused")
    assert len(warned) == (1 if placement is Placement.REFUSED else 0)
    leader = daemon.worker()
    assert daemon.stop(signal.SIGTERM) == 0
    assert daemon.survivors() == []
    assert not accepts(port), leader
    assert [event["event"] for event in daemon.events()][-2:] == ["worker_exited", "panelind_stopped"]

# -- the scripted upstream and the raw client, without a panelind between them


@pytest.fixture
def upstream():
    """An upstream of its own on a unix socket: (director, its address)."""
    director = Director()
    path = f"{director.directory}/w"
    process = subprocess.Popen(director.command("--uds", path), env={"PANELIND_GENERATION": "1:token"})
    director.wait("listening")
    yield director, path
    director.close()
    # Without the test it has nothing to do.
    assert process.wait(20) is not None


def test_the_upstream_tells_what_it_saw_and_does_what_the_rules_say(upstream):
    director, path = upstream
    director.write({"/a": [["body"], answer(201, b"made")], "POST /a": [["body"], answer(202, b"posted")],
                    "g1 /b": [answer(203, b"first")], "g2 /b": [answer(204)], "*": [["body"], answer(404, b"no")]})
    with Client(path) as client:
        for method, target, wanted in [("GET", "/a", 201), ("POST", "/a", 202), ("GET", "/b?x", 203), ("GET", "/c", 404)]:
            client.send(request(target, b"hello", method=method))
            assert client.answer().status == wanted
    assert [one.target for one in director.requests()] == ["/a", "/a", "/b?x", "/c"]
    assert director.requests()[1].body["data"] == "hello"
    assert list(director.bytes_by_connection().values())[0].startswith(b"GET /a HTTP/1.1\r\nHost: front.test\r\n")
    director.nothing_bad()


def test_the_upstream_names_what_a_front_must_not_send(upstream):
    director, path = upstream
    for data in (b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
                 b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"nonsense\r\n\r\n"):
        with Client(path) as client:
            client.send(data)
            client.until_end()
    assert len(director.find("bad")) == 4
    with pytest.raises(AssertionError):
        director.nothing_bad()


def test_a_gate_waits_until_it_is_released_and_sees_the_other_side_leave(upstream):
    director, path = upstream
    director.write({"/x": [["gate", "go"], answer()]})
    with Client(path) as client:
        client.get("/x")
        director.at_gate("go")
        assert client.is_silent(0.1)
        director.release("go")
        assert client.answer().status == 200
    director.forget("go")
    client = Client(path)
    client.get("/x")
    director.at_gate("go", count=2)
    client.reset()
    assert director.wait_end(director.requests("/x")[1].conn)


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"HTTP/2 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy0\r\n\r\n", b"HTTP/1.1 200 OK\r\nDate: 1\r\nDate: 2\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n",
])
def test_the_raw_client_takes_nothing_that_is_not_http(upstream, raw):
    director, path = upstream
    director.write({"/x": [["body"], send(raw), ["close"]]})
    with Client(path) as client:
        client.get("/x")
        with pytest.raises(NotHTTP):
            client.answer()


@pytest.mark.parametrize("raw", [
    b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
])
def test_the_raw_client_tells_a_truncated_answer(upstream, raw):
    director, path = upstream
    director.write({"/x": [["body"], send(raw), ["close"]]})
    with Client(path) as client:
        client.get("/x")
        with pytest.raises(Truncated):
            client.answer()


def test_the_load_counts_what_failed():
    listener = socket.create_server(("127.0.0.1", 0))
    answers = itertools.cycle([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
                               b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                               b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", b""])

    def serve():
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                one.recv(1000)
                one.sendall(next(answers))
                one.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with Load(listener.getsockname()[1], lambda n: ("GET", request(f"/{n}")), clients=1) as load:
        wait_until(lambda: len(load.outcomes) >= 8, "eight outcomes")
    listener.close()
    assert [one.failed for one in load.outcomes[:8]] == [False, True, True, True] * 2
    assert [one.status for one in load.outcomes[:4]] == [200, 502, 200, None]
