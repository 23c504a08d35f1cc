# test_sidecar.py
# The sidecar answers whatever its clients do: bodies, pipelines, slow ones, idle ones, garbage.
# Read harness/network.py first.

import random
import resource
import select
import socket
import time

import pytest

from harness import fd_count, is_alive, raw_http, wait_until

NOTIFY = {"probe.readiness.notify": True}


@pytest.fixture
def ready(panelind):
    daemon = panelind(["notify READY=1"], NOTIFY, sidecar=True)
    daemon.ready()
    return daemon


def connect(daemon, timeout=10):
    return socket.create_connection(("127.0.0.1", daemon.sidecar_port), timeout=timeout)


def statuses(answer):
    """The status of each answer in a stream of them."""
    found = []
    while answer:
        head, separator, rest = answer.partition(b"\r\n\r\n")
        assert separator, answer[:200]
        found.append(int(head.split(b" ")[1]))
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        answer = rest[length:]
    return found


def still_answers(daemon):
    begin = time.monotonic()
    answer = daemon.get("/ready")
    assert answer.status == 200
    assert time.monotonic() - begin < 5
    assert is_alive(daemon.pid)
    assert not daemon.events("worker_exited")


def test_a_get_with_a_body_is_answered_and_the_next_one_too(ready):
    data = (
        b"GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
        b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert statuses(raw_http(ready.sidecar_port, data)) == [200, 200, 200]


def test_pipelined_requests_are_answered_in_order(ready):
    targets = [b"/ready", b"/nothing", b"/health", b"/ready?x"] * 50
    data = b"".join(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" for target in targets)
    data += b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert statuses(raw_http(ready.sidecar_port, data)) == [200, 404, 200, 200] * 50 + [200]


def test_a_request_in_single_bytes_is_answered(ready):
    with connect(ready) as connection:
        for byte in b"GET /ready HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 50 + b"\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_closes_its_half_is_answered(ready):
    with connect(ready) as connection:
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        assert statuses(answer) == [200]


@pytest.mark.parametrize("data, wanted", [
    (b"GET /ready HTTP/1.1\r\n\r\n", {400}),
    (b"GET /ready HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    (b"GET /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", {400}),
    (b"GET /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    (b"GET /ready HTTP/1.1\nHost: a\n\n", {400}),
    (b"GET /ready HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", {400}),
    (b"POST /ready HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", {400, 501}),
    (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {414}),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n", {431}),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(120)) + b"\r\n", {431}),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", {405, 400}),
    (b"POST /ready HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n", {417}),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", {400}),
], ids=lambda value: None if isinstance(value, set) else value[:40].decode("latin-1").replace("\r\n", "|"))
def test_bad_framing_is_refused_and_the_connection_closed(ready, data, wanted):
    begin = time.monotonic()
    found = statuses(raw_http(ready.sidecar_port, data))
    assert len(found) == 1 and found[0] in wanted
    assert time.monotonic() - begin < 8, "the connection was left open"
    still_answers(ready)


def test_an_http_2_preface_is_closed_within_a_second(ready):
    begin = time.monotonic()
    raw_http(ready.sidecar_port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    assert time.monotonic() - begin < 3
    still_answers(ready)


def test_garbage_is_survived(ready):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    pieces = [b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n", b"\0", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"Host:"]
    for _ in range(100):
        data = b"".join(dice.choice([*pieces, dice.randbytes(dice.randrange(200))]) for _ in range(dice.randrange(1, 8)))
        with connect(ready) as connection:
            try:
                connection.sendall(data)
                if dice.random() < 0.3:
                    # Linger 0: the close is a reset.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            except OSError:
                pass
    still_answers(ready)


@pytest.mark.case("C45", "C54")
def test_1500_idle_connections_do_not_shut_health_out_nor_delay_the_stop(ready):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    connections = []
    try:
        for number in range(1500):
            connection = connect(ready)
            # A third says nothing, a third half a head, a third asked once and stays.
            if number % 3 == 1:
                connection.sendall(b"GET /ready HTTP/1.1\r\nHost")
            if number % 3 == 2:
                connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            connections.append(connection)
        for connection in connections[2::3]:
            assert connection.recv(15).startswith(b"HTTP/1.1 200")
        times = []
        for _ in range(50):
            begin = time.monotonic()
            assert ready.get("/health").status == 200
            times.append(time.monotonic() - begin)
        # The research wants 20 ms at p99 on an idle machine.
        assert sorted(times)[25] < 0.25
        assert ready.stop() == 0
        assert ready.took < 5
    finally:
        for connection in connections:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_beyond_the_descriptors_do_not_shut_health_out(panelind):
    """With 200 descriptors: old idle connections give way to new ones."""
    import sys

    limited = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); os.execv(sys.argv[1], sys.argv[1:])"
    daemon = panelind(["notify READY=1"], NOTIFY, sidecar=True, wrapper=[sys.executable, "-c", limited])
    daemon.ready()
    connections = []
    try:
        for _ in range(400):
            connections.append(connect(daemon))

        def answers():
            # A connection that is a moment old is not given up for a newer one: the first tries may be refused.
            try:
                return daemon.get("/ready", timeout=3).status == 200
            except OSError:
                return False

        wait_until(answers, "an answer among 400 idle clients", timeout=15)
    finally:
        for connection in connections:
            connection.close()
    still_answers(daemon)


def test_a_client_that_never_reads_is_dropped_not_buffered(ready):
    from harness import rss_bytes

    before = rss_bytes(ready.pid)
    request = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    with connect(ready) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        end = time.monotonic() + 3
        sent = 0
        while time.monotonic() < end and sent < 64 << 20:
            if not select.select([], [connection], [], 0.5)[1]:
                break  # It no longer reads from us: backpressure.
            try:
                sent += connection.send(request)
            except OSError:
                break
        still_answers(ready)
        assert rss_bytes(ready.pid) - before < 24 << 20, f"after {sent} bytes"


def test_descriptors_do_not_leak(ready):
    before = fd_count(ready.pid)
    for _ in range(200):
        with connect(ready) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(100)
    wait_until(lambda: fd_count(ready.pid) <= before, "the connections' descriptors are closed")
