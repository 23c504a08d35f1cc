# test_front_limits.py
# The bounds of a request and of a connection: 413, 414, 431, the timeouts, and how many clients there may be.
# CONTRACT sections 2 (serve.*) and 5. Read harness/front.py first. Cases F11, F15, F16.

import resource
import sys
import threading
import time

import pytest

from harness import fd_count, rss_bytes, wait_until
from harness.director import answer, chunk, chunked_head, send
from harness.rawclient import Client, Truncated, request


@pytest.fixture(scope="module")
def limited_front(module_front):
    return module_front({"/up": [["body"], ["echo"]]}, {"serve.bodyLimit": "1000000B"})


def post(target, *lines):
    return ("\r\n".join([f"POST {target} HTTP/1.1", "Host: h", *lines, "", ""])).encode()


CHUNKED = "Transfer-Encoding: chunked"


def final(client):
    """The one answer, and the end: the rest of what was sent is not read as another request."""
    got = client.answer()
    client.until_end()
    return got


# -- the head


@pytest.mark.case("F11")
@pytest.mark.parametrize("name, lines, wanted", [
    ("70 KiB in one field", ["X-A: " + "y" * 70_000], 431),
    ("70 KiB in ten fields", [f"X-{n}: " + "y" * 7_000 for n in range(10)], 431),
    ("a name of 70 KiB", ["X" * 70_000 + ": 1"], 431),
    ("101 fields", [f"X-{n}: 1" for n in range(100)], 431),
    ("1000 fields", ["X: 1"] * 1000, 431),
    ("2 MiB", ["X-A: " + "y" * (2 << 20)], 431),
])
def test_a_head_beyond_the_limit_is_431(limited_front, name, lines, wanted):
    with limited_front.client() as client:
        client.send(request("/too-large", None, *lines))
        got = final(client)
    assert got.status == wanted and got.closes
    assert limited_front.serves()
    assert not limited_front.director.requests("/too-large")


@pytest.mark.case("F11")
@pytest.mark.parametrize("size", [16_385, 20_480, 60_000])
def test_a_target_beyond_16_kib_is_414(limited_front, size):
    with limited_front.client() as client:
        client.get("/" + "x" * (size - 1))
        got = final(client)
    assert got.status == 414 and got.closes
    assert limited_front.serves()


@pytest.mark.case("F11")
def test_what_is_within_the_limits_passes(limited_front):
    with limited_front.client() as client:
        client.get("/" + "x" * 16_383)
        assert client.answer().status == 200
        client.get("/fields", *[f"X-{n}: 1" for n in range(99)])
        assert client.answer().status == 200, "with Host these are 100 fields"
        client.get("/large", "X-A: " + "y" * 60_000)
        assert client.answer().status == 200
    assert len(limited_front.director.request("/large").value("x-a")) == 60_000


@pytest.mark.parametrize("start, wanted", [(b"GET / HTTP/1.1\r\nHost: h\r\nX-A: ", 431), (b"GET /", 414)], ids=["field", "target"])
def test_an_endless_head_is_answered_while_it_comes(limited_front, start, wanted):
    """Nobody waits for its end, nor keeps it; what still comes is thrown away for a moment and then cut off."""
    before = rss_bytes(limited_front.daemon.pid)
    with limited_front.client() as client:
        client.send(start + b"y" * (1 << 20))
        assert client.answer().status == wanted
        end = time.monotonic() + 20
        while time.monotonic() < end and client.send(b"y" * 65536):
            pass
        assert client.refused, "it may send for ever"
    assert limited_front.serves()
    assert rss_bytes(limited_front.daemon.pid) - before < 8 << 20


# -- the body


@pytest.mark.case("F15")
@pytest.mark.parametrize("length, wanted", [(1_000_000, 200), (1_000_001, 413), (10**15, 413)])
def test_a_length_beyond_the_limit_is_413_before_the_worker_hears_of_it(limited_front, length, wanted):
    target = f"/length/{length}"
    with limited_front.client() as client:
        client.send(post(target, f"Content-Length: {length}"))
        if wanted == 200:
            client.send(b"x" * length)
        got = client.answer()
        assert got.status == wanted
        if wanted == 413:
            assert got.closes
            client.ends()
    assert limited_front.serves()
    if wanted == 413:
        assert target.encode() not in limited_front.director.all_bytes()


@pytest.mark.case("F15")
def test_413_instead_of_100_continue(limited_front):
    with limited_front.client() as client:
        client.send(post("/expect", "Content-Length: 1000001", "Expect: 100-continue"))
        got = client.answer()
        assert (got.status, got.interim) == (413, [])


@pytest.mark.case("F15")
def test_a_client_that_sends_all_before_it_reads_learns_of_413(limited_front):
    """As `requests` does: 8 MiB are sent blindly; a reset would hide the answer."""
    with limited_front.client() as client:
        client.send(request("/blind", b"x" * 8_000_000))
        assert client.answer().status == 413
    assert limited_front.serves()


@pytest.mark.case("F16")
def test_a_chunked_body_that_crosses_the_limit_is_413_and_the_worker_s_connection_is_aborted(limited_front):
    one = limited_front
    with one.client() as client:
        client.send(post("/crossing", CHUNKED))
        one.director.wait_request("/crossing")
        client.send(chunk(b"x" * 600_000))
        client.send(chunk(b"x" * 400_000))
        client.send(chunk(b"x") + b"0\r\n\r\n")
        got = final(client)
    assert got.status == 413 and got.closes
    used = one.director.request("/crossing")
    assert used.body is None
    one.director.wait_end(used.conn)
    assert one.serves()
    assert one.director.request("/crossing").body is None
    assert not [seen for seen in one.director.requests(probes=True) if seen.conn == used.conn and seen.t > used.t]


@pytest.mark.case("F16")
def test_a_chunked_body_at_the_limit_passes(limited_front):
    with limited_front.client() as client:
        client.send(post("/at-the-limit", CHUNKED) + chunk(b"x" * 600_000) + chunk(b"x" * 400_000) + b"0\r\n\r\n")
        assert client.answer().status == 200
    assert limited_front.director.request("/at-the-limit").body["total"] == 1_000_000


@pytest.mark.case("F16")
def test_a_body_that_crosses_the_limit_after_the_answer_has_begun_is_a_reset(limited_front):
    one = limited_front
    one.director.rule("/begun", chunked_head(), send(chunk("x")), ["hang"])
    with one.client() as client:
        client.send(post("/begun", CHUNKED) + chunk(b"x"))
        got = client.head()
        client.piece(got)
        client.send(chunk(b"x" * 1_000_000))
        with pytest.raises(Truncated):
            client.rest(got)
    assert one.serves()


def test_without_a_body_limit_more_passes(front):
    one = front(settings={"serve.bodyLimit": "none"})
    with one.client() as client:
        client.send(request("/up", b"x" * 40_000_000))
        assert client.answer().status == 200
    assert one.director.request("/up").body["total"] == 40_000_000


def test_the_default_limit_is_32_mib(front):
    one = front()
    with one.client() as client:
        client.send(post("/a", f"Content-Length: {(32 << 20) + 1}"))
        assert client.answer().status == 413
    with one.client() as client:
        client.send(request("/b", b"x" * (32 << 20)))
        assert client.answer().status == 200


def test_a_body_in_ten_thousand_chunks_passes(limited_front):
    with limited_front.client() as client:
        client.send(post("/tiny", CHUNKED) + chunk(b"x") * 10_000 + b"0\r\n\r\n")
        assert client.answer().status == 200
    assert limited_front.director.request("/tiny").body["total"] == 10_000


# -- time


@pytest.mark.case("F40")
@pytest.mark.parametrize("kind", ["half a head", "dripping", "second request"])
def test_a_head_that_does_not_come_is_cut_off(front, kind):
    one = front(settings={"serve.headerTimeout": "1s", "serve.idleTimeout": "30s"})
    with one.client() as client:
        if kind == "second request":
            client.get("/x")
            assert client.answer().status == 200
        begin = time.monotonic()
        over = threading.Event()
        client.send(b"GET /slow HTTP/1.1\r\nHost: h\r\nX-A: ")

        def drip():
            while not over.wait(0.1) and client.send(b"a"):
                pass

        dripping = threading.Thread(target=drip)
        if kind == "dripping":
            dripping.start()
        try:
            data, _ = client.until_end()
        finally:
            over.set()
            if kind == "dripping":
                dripping.join()
        assert 0.9 <= time.monotonic() - begin < 4
        assert not data or data.startswith(b"HTTP/1.1 408 "), data
    assert one.serves()


def test_a_connection_that_never_said_anything_is_idle(front):
    """Balancers and browsers open some in advance."""
    one = front(settings={"serve.idleTimeout": "1500ms", "serve.headerTimeout": "500ms"})
    with one.client() as client:
        begin = time.monotonic()
        assert client.ends() == "eof"
        assert 1.4 <= time.monotonic() - begin < 4


def test_an_idle_connection_is_closed_after_the_idle_timeout_and_not_before(front):
    one = front(settings={"serve.idleTimeout": "1500ms", "serve.headerTimeout": "500ms"})
    with one.client() as client:
        for _ in range(2):
            client.get("/x")
            assert client.answer().status == 200
            assert client.is_silent(0.9), "idle is not a slow head"
        begin = time.monotonic()
        client.get("/x")
        assert client.answer().status == 200
        assert client.ends() == "eof"
        assert 1.4 <= time.monotonic() - begin < 4


def test_a_slow_body_is_no_slow_head_and_no_idle_client(front):
    one = front(settings={"serve.headerTimeout": "500ms", "serve.idleTimeout": "500ms"})
    with one.client() as client:
        client.send(post("/up", "Content-Length: 3"))
        for _ in range(3):
            assert client.is_silent(0.7)
            client.send(b"x")
        assert client.answer().status == 200


def test_a_slow_worker_is_waited_for_without_a_response_timeout(front):
    one = front({"/slow": [["body"], ["gate", "go"], answer()]},
                {"serve.headerTimeout": "300ms", "serve.idleTimeout": "300ms"})
    with one.client() as client:
        client.get("/slow")
        assert client.is_silent(1.5)
        one.director.release("go")
        assert client.answer().status == 200


def test_no_first_byte_within_the_response_timeout_is_504(front):
    one = front({"/never": [["body"], ["gate", "never"]]}, {"serve.responseTimeout": "700ms"})
    with one.client() as client:
        begin = time.monotonic()
        client.get("/never")
        assert client.answer().status == 504
        assert 0.65 <= time.monotonic() - begin < 4
    used = one.director.request("/never").conn
    one.director.wait_end(used)
    assert one.serves()
    assert len(one.daemon.events("worker_started")) == 1


def test_the_response_timeout_is_about_the_first_byte_only(front):
    one = front({"/slow": [["body"], chunked_head(), ["gate", "go"], send(chunk("x") + b"0\r\n\r\n")]},
                {"serve.responseTimeout": "500ms"})
    with one.client() as client:
        client.get("/slow")
        got = client.head()
        assert client.is_silent(1.2)
        one.director.release("go")
        assert client.rest(got).body == b"x"


# -- how many


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_1500_idle_connections_shut_nobody_out_and_do_not_delay_the_stop(front, many_descriptors):
    one = front(settings={"serve.headerTimeout": "60s"})
    assert one.serves()
    before = rss_bytes(one.daemon.pid)
    clients = []
    try:
        for number in range(1500):
            client = one.client()
            # A third says nothing, a third half a head, a third asked once and stays.
            if number % 3 == 1:
                client.send(b"GET /x HTTP/1.1\r\nHost")
            if number % 3 == 2:
                client.get("/x" if number % 2 else "/health")
            clients.append(client)
        for client in clients[2::3]:
            assert client.answer().status == 200
        grown = rss_bytes(one.daemon.pid) - before
        times = []
        for number in range(40):
            begin = time.monotonic()
            assert one.get("/health" if number % 2 else "/x").status == 200
            times.append(time.monotonic() - begin)
        assert sorted(times)[20] < 0.25
        # All of them are still there.
        for client in clients[2::150]:
            client.get("/x")
            assert client.answer().status == 200
        assert grown < 64 << 20, f"{grown / 1500:.0f} bytes each"
        assert one.daemon.stop() == 0
        assert one.daemon.took < 5
    finally:
        for client in clients:
            client.close()


def test_connections_beyond_the_descriptors_do_not_shut_others_out(front):
    """With 200 descriptors: what is idle gives way, and the worker is still reached."""
    limited = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); os.execv(sys.argv[1], sys.argv[1:])"
    one = front(wrapper=[sys.executable, "-c", limited])
    clients = []
    try:
        for _ in range(400):
            clients.append(one.client())

        def answers(path):
            # A connection that is a moment old is not given up for a newer one: the first tries may be refused.
            try:
                return one.get(path, timeout=3).status == 200
            except (OSError, AssertionError):
                return False

        wait_until(lambda: answers("/health"), "health among 400 idle clients", timeout=15)
        wait_until(lambda: answers("/x"), "the worker among 400 idle clients", timeout=15)
        assert fd_count(one.daemon.pid) < 200
    finally:
        for client in clients:
            client.close()
    assert one.serves()
    assert len(one.daemon.events("worker_started")) == 1


def test_slow_heads_by_the_hundred_shut_nobody_out(front):
    one = front(settings={"serve.headerTimeout": "2s"})
    clients = [one.client() for _ in range(300)]
    try:
        for client in clients:
            client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Le")
        for _ in range(10):
            assert one.serves()
        for client in clients:
            client.until_end()
    finally:
        for client in clients:
            client.close()
    assert one.serves()


@pytest.mark.parametrize("path", ["/health", "/x"])
def test_a_client_that_never_reads_is_made_to_wait_not_buffered(front, path):
    one = front({"/x": [["body"], answer(200, b"y" * 1000)]})
    assert one.serves()
    before = rss_bytes(one.daemon.pid)
    with one.client(receive_buffer=4096) as client:
        # The kernel's buffers take some mebibytes.
        sent = client.send_what_fits(request(path) * 1_000_000, quiet=1)
        assert sent < 24 << 20
        assert one.serves()
        assert rss_bytes(one.daemon.pid) - before < 8 << 20, f"after {sent} bytes"


def test_descriptors_do_not_leak(front):
    one = front({"/cut": [["body"], send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"), ["close"]],
                 "/bad": [["body"], send("nonsense\r\n\r\n"), ["close"]]})
    assert one.serves()

    def round():
        for _ in range(30):
            assert one.get("/x").status == 200
            assert one.post("/bad").status == 502
            assert one.get("/health").status == 200
            with pytest.raises(Truncated):
                one.get("/cut")
            with Client(one.target) as client:
                client.send(b"GET /x HTTP/1.1\nbad\r\n\r\n")
                assert client.answer().status == 400

    round()
    before = fd_count(one.daemon.pid)
    round()
    # An idle connection to the worker may be kept for 3 s.
    wait_until(lambda: fd_count(one.daemon.pid) <= before + 1, "the connections' descriptors are closed")


def test_pooled_connections_to_the_worker_are_used_again(front):
    one = front()
    with one.client() as client:
        for number in range(20):
            client.get(f"/{number}")
            assert client.answer().status == 200
    conns = {seen.conn for seen in one.director.requests()}
    assert len(conns) <= 2, "one after the other they share a connection"
