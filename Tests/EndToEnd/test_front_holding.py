# test_front_holding.py
# Requests that come while no worker is ready wait, in order and within bounds; a lost one is made once more or answered 502.
# CONTRACT sections 2 (serve.hold, serve.heldRequests, serve.concurrency) and 5. Read harness/front.py first. Cases F36 to F38.

import json
import os
import signal
import threading
import time

import pytest

from harness import rss_bytes, wait_until
from harness.director import answer, chunked_head, chunk, send
from harness.rawclient import Truncated, request

# The worker comes when the test says so.
LATE = {"*": {"gate": "boot"}}
SECOND_LATE = {"2": {"gate": "boot"}}


def held(front, count, path="/h{}", **options):
    """`count` clients whose requests wait; in order, each is held before the next is sent."""
    clients = []
    for number in range(count):
        client = front.client(**options)
        client.get(path.format(number))
        clients.append(client)
    return clients


def close(clients):
    for client in clients:
        client.close()


def targets(front):
    return [one.target for one in front.director.requests()]


# -- waiting


def test_a_request_before_the_first_worker_waits_for_it(front):
    one = front(boot=LATE, ready=False)
    one.director.wait("environment")
    with one.client() as client:
        client.post("/first", b"hello")
        assert client.is_silent(0.3)
        assert one.state() == "starting"
        one.director.release("boot")
        own = json.loads(client.answer().body)
        assert (own["target"], own["length"], own["generation"]) == ("/first", 5, 1)


def test_a_request_from_the_very_first_moment_is_held(front):
    """The listener is there before the worker's process is."""
    one = front(boot=LATE, ready=False)

    def connect():
        try:
            return one.client()
        except ConnectionRefusedError:
            return None

    with wait_until(connect, "the listener") as client:
        client.get("/early")
        one.director.wait("environment")
        one.director.release("boot")
        assert client.answer().status == 200


@pytest.mark.case("F36")
def test_twenty_kept_connections_survive_a_kill_and_are_served_in_order(front):
    one = front(boot=SECOND_LATE)
    clients = [one.client() for _ in range(20)]
    try:
        for client in clients:
            client.get("/before")
            assert client.answer().status == 200
        one.kill_worker()
        one.daemon.wait_event("worker_started", generation=2)
        for number, client in enumerate(clients):
            client.get(f"/after/{number}")
            # In the order of their coming: the one before has been taken off the socket when its turn in the loop is over.
            wait_until(lambda: one.health()[0] == 200, "a turn of the loop")
        assert all(client.is_silent(0.01) for client in clients)
        assert one.state() == "starting"
        one.director.release("boot")
        for number, client in enumerate(clients):
            got = client.answer()
            assert got.status == 200 and not got.closes
            assert json.loads(got.body)["generation"] == 2
        # Each has a connection of its own to the worker, which accepts them in the order in which they were made.
        after = [seen for seen in one.director.requests() if seen.target.startswith("/after/")]
        after.sort(key=lambda seen: int(seen.conn.rpartition(":")[2]))
        assert [seen.target for seen in after] == [f"/after/{number}" for number in range(20)]
        # The same connections go on.
        for client in clients:
            client.get("/later")
            assert client.answer().status == 200
    finally:
        close(clients)


def test_held_requests_are_served_in_the_order_of_their_coming(front):
    """One at a time at the worker, so that their order can be seen exactly."""
    one = front(boot=LATE, settings={"serve.concurrency": 1}, ready=False)
    one.director.wait("environment")
    clients = []
    try:
        for number in range(30):
            clients += held(one, 1, f"/h{number}")
            assert one.health()[0] == 200
        one.director.release("boot")
        for client in clients:
            assert client.answer().status == 200
        assert targets(one) == [f"/h{number}" for number in range(30)]
    finally:
        close(clients)


def test_an_unready_worker_s_requests_wait(front):
    one = front(settings={"probe.readiness.http": "/alive", "probe.readiness.period": "100ms",
                          "probe.readiness.failures": 1, "sidecar.listen": "none"})
    one.director.rule("/alive", answer(503))
    one.daemon.wait_event("worker_unready")
    with one.client() as client:
        client.post("/x", b"hello")
        assert client.is_silent(0.3)
        assert one.health("/ready")[1]["reason"] == "worker_unready"
        one.director.rule("/alive", answer(200))
        assert client.answer().status == 200
    assert len(one.director.requests("/x")) == 1


def test_requests_wait_through_a_backoff(front):
    one = front(settings={"restart.delay": "1s", "restart.maxDelay": "1s", "restart.jitter": 0})
    one.kill_worker()
    one.daemon.wait_event("worker_backoff")
    begin = time.monotonic()
    got = one.get("/x")
    assert got.status == 200 and json.loads(got.body)["generation"] == 2
    assert time.monotonic() - begin > 0.4


def test_a_held_body_waits_with_the_client_not_in_memory(front):
    """Only heads are kept: 40 uploads of 8 MiB wait without being read."""
    one = front(boot=LATE, ready=False)
    one.director.wait("environment")
    assert one.health()[0] == 200
    before = rss_bytes(one.daemon.pid)
    clients = [one.client() for _ in range(40)]
    try:
        sent = []
        for number, client in enumerate(clients):
            client.send(f"POST /up{number} HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n")
            sent.append(client.send_what_fits(b"z" * 8388608, quiet=0.05))
        assert all(one < 8388608 for one in sent), "they are made to wait"
        grown = rss_bytes(one.daemon.pid) - before
        assert grown < 16 << 20, f"{grown >> 20} MiB more"
        one.director.release("boot")
        results = []

        def finish(number):
            clients[number].send(b"z" * (8388608 - sent[number]))
            results.append(json.loads(clients[number].answer().body)["length"])

        threads = [threading.Thread(target=finish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [8388608] * 4
    finally:
        close(clients)


def test_what_a_held_client_has_sent_of_its_body_is_not_lost(front):
    one = front(boot=LATE, ready=False)
    one.director.wait("environment")
    with one.client() as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("hello "))
        assert client.is_silent(0.1)
        one.director.release("boot")
        one.director.wait_request("/x")
        client.send(chunk("world") + b"0\r\n\r\n")
        assert json.loads(client.answer().body)["length"] == 11


def test_a_held_client_that_expects_100_is_asked_for_its_body_by_the_worker(front):
    """Nobody asks for a body that nobody would take."""
    one = front({"/x": [send("HTTP/1.1 100 Continue\r\n\r\n"), ["body"], ["echo"]]}, boot=LATE, ready=False)
    one.director.wait("environment")
    with one.client() as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert client.is_silent(0.3)
        one.director.release("boot")
        wait_until(lambda: client.buffer or client.fill(), "100 Continue")
        client.send(b"hello")
        got = client.answer()
        assert [status for status, _ in got.interim] == [100]
        assert json.loads(got.body)["length"] == 5


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_held_client_that_leaves_is_forgotten(front, end):
    """Its place is free, and the worker never hears of it."""
    one = front(boot=LATE, settings={"serve.heldRequests": 2}, ready=False)
    one.director.wait("environment")
    first, second = held(one, 2)
    assert wait_until(lambda: one.get("/too-many").status == 503, "both places are taken")
    first.reset() if end == "reset" else first.close()

    def place():
        """A third request, if it waits; a refused one is answered at once."""
        third = one.client()
        third.get("/third")
        if third.is_silent(0.3):
            return third
        third.close()
        return None

    if end == "close":
        # After a FIN the client may still read: that it has gone shows only when something is sent to it.
        assert place() is None
    else:
        with wait_until(place, "the place is free") as third:
            one.director.release("boot")
            assert third.answer().status == 200
    one.director.release("boot")
    assert second.answer().status == 200
    assert one.serves()
    if end == "reset":
        assert "/h0" not in targets(one)
    second.close()


def test_a_held_client_s_half_close_is_no_leaving(front):
    one = front(boot=LATE, ready=False)
    one.director.wait("environment")
    with one.client() as client:
        client.get("/x")
        client.half_close()
        assert client.is_silent(0.2)
        one.director.release("boot")
        assert client.answer().status == 200
        client.ends()


# -- bounds


def refused(got):
    assert got.status == 503, got
    assert int(got.value("retry-after")) >= 1
    return True


@pytest.mark.case("F38")
def test_beyond_the_hold_is_503_with_retry_after(front):
    one = front(boot=LATE, settings={"serve.hold": "500ms"}, ready=False)
    one.director.wait("environment")
    begin = time.monotonic()
    with one.client() as client:
        client.get("/x")
        got = client.answer()
        waited = time.monotonic() - begin
        assert refused(got)
        assert 0.45 <= waited < 3
        # A refusal is no reason to end a connection whose request was read whole.
        one.director.release("boot")
        if not got.closes:
            client.get("/y")
            assert client.answer().status == 200
    assert one.serves()
    assert not one.director.requests("/x")


@pytest.mark.case("F38")
def test_beyond_the_queue_is_503_at_once_while_health_answers(front):
    one = front(boot=LATE, settings={"serve.heldRequests": 5}, ready=False)
    one.director.wait("environment")
    clients = held(one, 5)
    try:
        wait_until(lambda: one.get("/probe-of-the-queue").status == 503, "the queue is full")
        times = []
        for _ in range(20):
            begin = time.monotonic()
            assert refused(one.get("/too-many"))
            assert one.get("/health").status == 200
            ready = one.get("/ready")
            assert ready.status == 503 and ready.has("retry-after")
            times.append(time.monotonic() - begin)
        # The case wants 5 ms of an idle machine, for each of them.
        assert sorted(times)[10] < 0.25
        assert refused(one.post("/too-many", b"hello"))
        one.director.release("boot")
        assert [client.answer().status for client in clients] == [200] * 5
        assert not one.director.requests("/too-many")
    finally:
        close(clients)


def test_the_queue_of_the_default_holds_128(front):
    one = front(boot=LATE, ready=False)
    one.director.wait("environment")
    clients = held(one, 128)
    try:
        def full():
            client = one.client()
            client.get("/more")
            if client.is_silent(1):
                clients.append(client)
                return False
            return refused(client.answer())

        assert wait_until(full, "the queue is full")
        assert len(clients) == 128
        one.director.release("boot")
        assert {client.answer().status for client in clients} == {200}
    finally:
        close(clients)


def test_a_refused_request_with_a_body_does_not_poison_the_connection(front):
    one = front(boot=LATE, settings={"serve.heldRequests": 0}, ready=False)
    one.director.wait("environment")
    with one.client() as client:
        client.send(request("/x", b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n") + request("/health"))
        got = client.answer()
        assert refused(got)
        if got.closes:
            client.ends()
        else:
            assert client.answer().status == 200
    one.director.release("boot")
    one.daemon.ready()
    assert one.serves()
    assert b"evil" not in one.director.all_bytes()


def test_a_worker_given_up_means_503_at_once(front):
    one = front(boot={"*": {"exit": 5}}, ready=False,
                settings={"restart.limit": 1, "restart.onGiveUp": "hold", "sidecar.listen": "none"})
    one.daemon.wait_event("worker_failed")
    begin = time.monotonic()
    assert refused(one.get("/x"))
    assert time.monotonic() - begin < 2
    assert one.health()[0] == 503 and one.state() == "failed"


def test_those_that_wait_when_the_worker_is_given_up_are_answered(front):
    one = front(boot={"*": {"gate": "boot"}}, ready=False,
                settings={"restart.limit": 0, "restart.onGiveUp": "hold", "probe.startup.deadline": "1s"})
    one.director.wait("environment")
    with one.client() as client:
        client.get("/x")
        got = client.answer()
        assert refused(got)
    one.daemon.wait_event("worker_failed")


def test_a_backoff_beyond_the_hold_means_503_at_once(front):
    one = front(settings={"restart.delay": "20s", "restart.maxDelay": "20s", "serve.hold": "3s", "restart.jitter": 0})
    with one.client() as waiting:
        one.kill_worker()
        one.daemon.wait_event("worker_backoff")
        begin = time.monotonic()
        got = one.get("/x")
        assert refused(got)
        assert time.monotonic() - begin < 2
        assert 1 <= int(got.value("retry-after")) <= 25
        waiting.get("/y")
        assert refused(waiting.answer())


def test_more_than_the_concurrency_waits_as_held(front):
    one = front({"/x": [["gate", "go"], answer()]}, {"serve.concurrency": 2, "serve.heldRequests": 2, "serve.hold": "20s"})
    clients = held(one, 2, "/x")
    try:
        one.director.at_gate("go", count=2)
        clients += held(one, 2, "/x")
        wait_until(lambda: one.get("/more").status == 503, "two more wait")
        assert len(one.director.requests("/x")) == 2
        assert one.health()[0] == 200 and one.health("/ready")[0] == 200
        one.director.release("go")
        assert [client.answer().status for client in clients] == [200] * 4
        assert len(one.director.requests("/x")) == 4
    finally:
        close(clients)


def test_more_than_the_concurrency_for_longer_than_the_hold_is_503(front):
    one = front({"/x": [["gate", "go"], answer()]}, {"serve.concurrency": 1, "serve.hold": "500ms"})
    with one.client() as first:
        first.get("/x")
        one.director.at_gate("go")
        assert refused(one.get("/y"))
        one.director.release("go")
        assert first.answer().status == 200
    assert not one.director.requests("/y")


# -- the worker dies with the request


@pytest.mark.case("F37")
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_an_untouched_safe_request_is_made_once_more(front, method):
    one = front({"g1 /x": [["gate", "never"]], "g2 /x": [answer(200, b"" if method == "HEAD" else b"second")]})
    with one.client() as client:
        client.get("/x", method=method)
        one.director.at_gate("never")
        one.kill_worker()
        got = client.answer(method)
        assert got.status == 200 and not got.closes
        client.get("/y")
        assert client.answer().status == 200
    assert [seen.generation for seen in one.director.requests("/x")] == [1, 2]
    assert [seen.method for seen in one.director.requests("/x")] == [method] * 2


@pytest.mark.case("F37")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_any_other_request_runs_once_and_is_502(front, method):
    one = front({"g1 /x": [["body"], ["gate", "never"]]})
    with one.client() as client:
        client.send(request("/x", b"hello", method=method))
        one.director.at_gate("never")
        one.kill_worker()
        assert client.answer().status == 502
    one.daemon.ready(2)
    assert one.serves()
    assert len(one.director.requests("/x")) == 1


@pytest.mark.case("F37")
def test_a_safe_request_with_a_body_is_502(front):
    one = front({"g1 /x": [["body"], ["gate", "never"]]})
    with one.client() as client:
        client.send(request("/x", b"hello", method="GET"))
        one.director.at_gate("never")
        one.kill_worker()
        assert client.answer().status == 502
    one.daemon.ready(2)
    assert len(one.director.requests("/x")) == 1


@pytest.mark.case("F37")
def test_a_request_is_made_twice_and_no_more(front):
    one = front({"g1 /x": [["gate", "never"]], "g2 /x": [["gate", "never"]], "g3 /x": [answer()]})
    with one.client() as client:
        client.get("/x")
        for generation in (1, 2):
            one.director.at_gate("never", count=generation)
            one.kill_worker(generation)
        assert client.answer().status == 502
    assert [seen.generation for seen in one.director.requests("/x")] == [1, 2]


@pytest.mark.case("F37")
def test_an_interim_answer_is_a_first_byte(front):
    one = front({"g1 /x": [send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"), ["gate", "never"]]})
    with one.client() as client:
        client.get("/x")
        one.director.at_gate("never")
        wait_until(lambda: client.buffer or client.fill(), "the hints")
        one.kill_worker()
        assert client.answer().status == 502
    assert len(one.director.requests("/x")) == 1


@pytest.mark.case("F37")
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_that_had_begun_is_aborted(front, framing):
    begin = {"length": [send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")],
             "chunked": [chunked_head(), send(chunk("first"))],
             "close": [send("HTTP/1.1 200 OK\r\n\r\nfirst")]}[framing]
    one = front({"g1 /x": [["body"], *begin, ["gate", "never"]]})
    with one.client() as client:
        client.get("/x")
        got = client.head()
        assert client.piece(got) == b"first"
        one.kill_worker()
        if framing == "close":
            # Nobody can tell the worker's end of file from its death; its exit can.
            try:
                client.rest(got)
            except Truncated:
                pass
        else:
            with pytest.raises(Truncated):
                client.rest(got)
    assert len(one.director.requests("/x")) == 1
    one.daemon.ready(2)
    assert one.serves()


def test_a_death_in_the_middle_of_an_upload_is_502(front):
    one = front({"g1 /up": [["take", 5], ["gate", "never"]]})
    with one.client() as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhello")
        one.director.at_gate("never")
        one.kill_worker()
        got = client.answer()
        assert got.status == 502
        if got.closes:
            client.until_end()
        else:
            client.send(b"x" * 999_995 + request("/next"))
            assert client.answer().status == 200
    one.daemon.ready(2)
    assert one.serves()
    assert len(one.director.requests("/up")) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_waits_behind_the_concurrency_survives_the_death(front, method):
    """The dying worker's listener may outlive its connections by a moment: then a POST has been sent to it, and is 502."""
    one = front({"g1 /x": [["gate", "never"]]}, {"serve.concurrency": 1})
    with one.client() as first, one.client() as second:
        first.post("/x", b"a")
        one.director.at_gate("never")
        second.send(request("/y", b"b" if method == "POST" else None))
        assert second.is_silent(0.2)
        one.kill_worker()
        assert first.answer().status == 502
        got = second.answer()
        one.daemon.ready(2)
        assert got.status == 200 or method == "POST" and got.status == 502
    ran = [seen.generation for seen in one.director.requests("/y")]
    assert ran == ([2] if got.status == 200 else [])


def test_a_stop_signal_from_outside_the_worker_is_a_death_like_another(front):
    """Somebody sends the worker SIGTERM: it drains by itself, and those that come meanwhile wait."""
    one = front({"/x": [["gate", "go"], answer(200, b"x")]}, boot=SECOND_LATE)
    with one.client() as first, one.client() as second:
        first.get("/x")
        one.director.at_gate("go")
        os.kill(one.daemon.worker(), signal.SIGTERM)
        one.director.wait("terminated")
        # It no longer accepts, but still answers.
        second.post("/y", b"hello")
        assert second.is_silent(0.2)
        one.director.release("go")
        assert first.answer().body == b"x"
        one.director.release("boot")
        assert second.answer().status == 200
    assert [seen.generation for seen in one.director.requests("/y")] == [2]


def test_fifty_requests_held_over_three_kills_are_all_served(front):
    """Each worker dies before it listens; nobody is lost but by the hold."""
    one = front(boot={"2": {"gate": "two"}, "3": {"gate": "three"}, "4": {"seconds": 0.1}},
                settings={"serve.hold": "30s"})
    one.kill_worker()
    one.daemon.wait_event("worker_started", generation=2)
    clients = held(one, 50)
    try:
        for generation in (2, 3):
            wait_until(lambda: any(e["generation"] == generation for e in one.director.find("environment")), "it boots")
            one.kill_worker(generation)
            one.daemon.wait_event("worker_started", generation=generation + 1)
        for client in clients:
            got = client.answer()
            assert got.status == 200 and json.loads(got.body)["generation"] == 4
        assert sorted(targets(one)) == sorted(f"/h{number}" for number in range(50))
    finally:
        close(clients)


def test_after_a_freeze_stale_connections_fail_nobody(front):
    """Cloud Run takes the CPU between requests; meanwhile the worker's side may have closed what was kept."""
    one = front({"/x": [["body"], answer(200, b"x"), ["gate", "frozen"], ["close"]]})
    with one.client() as client:
        client.get("/x")
        assert client.answer().body == b"x"
        one.director.at_gate("frozen")
        os.kill(one.daemon.pid, signal.SIGSTOP)
        try:
            one.director.release("frozen")
            one.director.wait("closed", conn=one.director.request("/x").conn)
            # Not idempotent: a stale connection would be its end.
            client.post("/y", b"hello")
            time.sleep(1.2)
        finally:
            os.kill(one.daemon.pid, signal.SIGCONT)
        assert client.answer().status == 200
    assert len(one.director.requests("/y")) == 1
