# test_front_drain.py
# A stop with traffic: serve, refuse, say goodbye, cut; exit 0 within the budget whatever clients and worker do.
# CONTRACT sections 2 (stop.*) and 5 (Drain). Read harness/front.py first. Cases F39 and F40.

import json
import os
import signal
import socket
import sys
import threading
import time

import pytest

from harness import wait_until
from harness.director import answer, chunk, chunked_head, send, sse_head, upgraded
from harness.rawclient import Client, Truncated, refused, request

SSE = [["body"], sse_head(), send(chunk("data: 1\n\n")), ["gate", "TERM"], send(chunk("data: bye\n\n") + b"0\r\n\r\n"),
       ["close"]]
WEBSOCKET = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
# Serves for 1 s, refuses until 1.5 s, then the signal, KILL at 3.5 s, over at 4 s.
SHORT = {"stop.budget": "4s", "stop.drain": "1500ms"}


def stop(front, drains=True):
    """Sends SIGTERM; the returned function is the time since. Without a worker there is no drain to begin."""
    front.daemon.send(signal.SIGTERM)
    begin = time.monotonic()
    if drains:
        front.daemon.wait_event("drain_begin")
    return lambda: time.monotonic() - begin


def sleep_until(elapsed, moment):
    time.sleep(max(0, moment - elapsed()))


@pytest.mark.case("F39")
def test_every_kind_of_traffic_ends_cleanly_on_cloud_run(front, placement):
    """The case's slow request takes 3 s, after which CONTRACT ends the drain at once; here it takes until the last third."""
    one = front(
        {"/slow": [["gate", "slow"], answer(200, b"slow")], "/sse": SSE},
        {"platform": None}, environment={"K_SERVICE": "agent", "K_REVISION": "agent-1"}, placement=placement)
    with one.client() as slow, one.client() as sse, one.client() as idle, one.client() as kept:
        slow.post("/slow", b"hello")
        sse.get("/sse")
        events = sse.head()
        sse.piece(events)
        for client in (idle, kept):
            client.get("/idle")
            assert client.answer().status == 200
        one.director.at_gate("slow")
        elapsed = stop(one)
        assert one.health()[0] == 200
        status, body = one.health("/ready")
        assert (status, body["state"], body["reason"]) == (503, "draining", "draining")
        sleep_until(elapsed, 1.2)
        # New ones are still served, on a new connection and on a kept one, and told not to come again.
        got = one.get("/new")
        assert got.status == 200 and got.closes
        kept.get("/on-a-kept-connection")
        got = kept.answer()
        assert got.status == 200 and got.closes
        kept.ends()
        # 1 s of delay, and two thirds of 16/3 s of drain, are over after 4.56 s.
        sleep_until(elapsed, 5)
        got = one.get("/too-late")
        assert got.status == 503 and got.closes and got.has("retry-after")
        assert one.health()[0] == 200 and one.health("/ready")[0] == 503
        assert not one.director.find("terminated"), "a plain request is still in flight"
        one.director.release("slow")
        got = slow.answer()
        assert (got.status, got.body) == (200, b"slow") and got.closes
        slow.ends()
        # Now only the stream is left: the signal at once, and the worker's own goodbye.
        assert sse.rest(events).body == b"data: 1\n\ndata: bye\n\n"
        assert one.daemon.wait() == 0
        assert elapsed() < 9.2
        idle.until_end()
    assert not one.director.requests("/too-late")
    assert not one.daemon.survivors()
    assert one.daemon.events("drain_end") and one.daemon.events("worker_exited")[-1]["cause"] == "requested"


@pytest.mark.case("F40")
def test_a_worker_that_ignores_all_with_64_in_flight_is_cut_in_time(front, placement):
    one = front(
        {"/never": [["gate", "never"]], "/begun": [chunked_head(), send(chunk("x")), ["gate", "never"]]},
        {"stop.budget": "3s", "stop.drain": "1s"}, term="ignore", placement=placement)
    clients = [one.client() for _ in range(64)]
    loris = [one.client() for _ in range(10)]
    over = threading.Event()

    def drip():
        for client in loris:
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX-A: ")
        while not over.wait(0.1):
            for client in loris:
                client.send(b"a")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        heads = []
        for number, client in enumerate(clients):
            client.get("/begun" if number % 2 else "/never")
        for client in clients[1::2]:
            heads.append(client.head())
            client.piece(heads[-1])
        one.director.at_gate("never", count=64)
        elapsed = stop(one)
        for client in clients[::2]:
            got = client.answer()
            assert got.status == 504 and got.closes
        # Delay 0 s, drain 1 s, grace 1.5 s.
        assert 2 <= elapsed() < 3.5
        for client, got in zip(clients[1::2], heads):
            with pytest.raises(Truncated):
                client.rest(got)
        assert one.daemon.wait() == 0
        assert elapsed() < 3.7
        assert not one.daemon.survivors()
    finally:
        over.set()
        dripping.join()
        for client in clients + loris:
            client.close()


@pytest.mark.case("F40")
def test_the_default_of_cloud_run_ends_within_nine_seconds(front):
    one = front({"/never": [["gate", "never"]]}, {"platform": None}, term="ignore",
                environment={"K_SERVICE": "agent", "K_REVISION": "agent-1"})
    with one.client() as client:
        client.get("/never")
        one.director.at_gate("never")
        elapsed = stop(one)
        assert client.answer().status == 504
        assert 8 <= elapsed() < 9.2
        assert one.daemon.wait() == 0
        assert elapsed() < 9.5


def test_two_thirds_of_the_drain_are_served_and_the_last_is_refused(front):
    one = front({"/slow": [["gate", "slow"], answer(200, b"slow")]}, SHORT)
    with one.client() as slow:
        slow.get("/slow")
        one.director.at_gate("slow")
        elapsed = stop(one)
        seen = []
        while elapsed() < 1.35:
            begin = elapsed()
            got = one.get("/new")
            assert got.closes and got.status in (200, 503)
            seen.append((begin, elapsed(), got.status))
            time.sleep(0.02)
        assert [end for _, end, status in seen if status == 200], "some are served"
        assert [end for _, end, status in seen if status == 503], "some are refused"
        assert max(begin for begin, _, status in seen if status == 200) < 1.3
        assert min(end for _, end, status in seen if status == 503) > 0.9
        assert one.health()[0] == 200
        one.director.release("slow")
        got = slow.answer()
        assert got.body == b"slow" and got.closes
        assert one.daemon.wait() == 0


def test_an_idle_front_stops_at_once(front):
    one = front()
    clients = [one.client() for _ in range(10)]
    for client in clients[:5]:
        client.get("/x")
        assert client.answer().status == 200
    assert one.daemon.stop() == 0
    assert one.daemon.took < 2
    for client in clients:
        client.ends()
        client.close()
    assert refused(one.target)


def test_a_request_in_flight_is_finished_and_nothing_else_is_waited_for(front):
    one = front({"/slow": [["body"], ["gate", "slow"], answer(200, b"slow")]})
    with one.client() as client:
        client.post("/slow", b"hello")
        one.director.at_gate("slow")
        elapsed = stop(one)
        assert client.is_silent(0.3)
        assert not one.director.find("terminated")
        one.director.release("slow")
        got = client.answer()
        assert got.status == 200 and got.closes
        client.ends()
        assert one.daemon.wait() == 0
        assert elapsed() < 3


def test_a_download_in_flight_is_finished(front):
    one = front({"/big": [["body"], send("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n"), ["flood", 20_000_000]]},
                {"stop.budget": "20s"})
    with one.client(receive_buffer=65536) as client:
        client.get("/big")
        got = client.head()
        stop(one)
        client.rest(got, keep=False)
        assert got.complete and got.size == 20_000_000
        client.ends()
    assert one.daemon.wait() == 0


def test_an_upload_in_flight_is_finished(front):
    one = front()
    with one.client() as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000)
        one.director.wait_request("/up")
        stop(one)
        client.send(b"x" * 500_000)
        got = client.answer()
        assert json.loads(got.body)["length"] == 1_000_000 and got.closes
    assert one.daemon.wait() == 0


def test_only_streams_left_means_the_signal_at_once(front):
    """The drain would last 4 s; the goodbye comes as soon as nothing plain is in flight."""
    one = front({"/sse": SSE, "/ws": [upgraded(), ["tunnel"]], "/slow": [["gate", "slow"], answer(200, b"slow")]},
                {"stop.budget": "9s", "stop.drain": "5s"})
    with one.client() as sse, one.client() as ws, one.client() as slow:
        sse.get("/sse")
        events = sse.head()
        sse.piece(events)
        ws.get("/ws", *WEBSOCKET)
        assert ws.head().status == 101
        slow.get("/slow")
        one.director.at_gate("slow")
        elapsed = stop(one)
        assert slow.is_silent(0.3)
        assert not one.director.find("terminated")
        ws.send(b"still here")
        assert ws.read(10) == b"still here", "a tunnel goes on through the drain"
        one.director.release("slow")
        assert slow.answer().body == b"slow"
        one.director.wait("terminated")
        assert elapsed() < 3
        assert ws.until_end()[0] == b"goodbye"
        assert sse.rest(events).body.endswith(b"data: bye\n\n")
        assert one.daemon.wait() == 0
        assert elapsed() < 4


def test_after_the_signal_new_requests_are_refused_and_health_is_answered(front):
    one = front({"/ws": [upgraded(), ["hang"]]}, SHORT, term="ignore")
    with one.client() as ws:
        ws.get("/ws", *WEBSOCKET)
        assert ws.head().status == 101
        elapsed = stop(one)
        one.director.wait("terminated")
        for _ in range(3):
            got = one.get("/new")
            assert got.status == 503 and got.closes
            assert one.health()[1]["state"] == "stopping" and one.health()[0] == 200
            status, body = one.health("/ready")
            assert (status, body["reason"]) == (503, "stopping")
        data, _ = ws.until_end()
        assert data == b""
        assert one.daemon.wait() == 0
        assert elapsed() < 4.7
    assert not one.director.requests("/new")


def test_a_tunnel_that_nobody_ends_is_cut(front):
    one = front({"/ws": [upgraded(), ["hang"]]}, SHORT, term="ignore")
    with one.client() as ws:
        ws.get("/ws", *WEBSOCKET)
        assert ws.head().status == 101
        assert one.daemon.stop() == 0
        ws.until_end()


@pytest.mark.parametrize("state", ["starting", "backoff"])
def test_without_a_worker_to_come_those_that_wait_are_answered_503_at_once(front, state):
    one = front(boot={"*": {"gate": "boot"}} if state == "starting" else {}, ready=state == "backoff",
                settings={"restart.delay": "30s", "restart.maxDelay": "30s", "serve.hold": "40s", "restart.jitter": 0})
    if state == "starting":
        one.director.wait("environment")
    else:
        one.kill_worker()
        one.daemon.wait_event("worker_backoff")
    clients = [one.client() for _ in range(5)]
    for client in clients:
        client.get("/x")
    assert clients[-1].is_silent(0.2)
    elapsed = stop(one, drains=False)
    for client in clients:
        got = client.answer()
        assert got.status == 503 and got.closes
        client.close()
    assert one.daemon.wait() == 0
    assert elapsed() < 4


def test_a_death_during_the_drain_is_the_end_of_what_it_had(front):
    one = front({"/get": [["gate", "never"]], "/begun": [chunked_head(), send(chunk("x")), ["gate", "never"]]},
                {"stop.drain": "5s"})
    with one.client() as get, one.client() as begun:
        get.get("/get")
        begun.get("/begun")
        got = begun.head()
        begun.piece(got)
        one.director.at_gate("never", count=2)
        elapsed = stop(one)
        one.kill_worker()
        assert get.answer().status in (502, 503), "no other worker will come"
        with pytest.raises(Truncated):
            begun.rest(got)
        assert one.daemon.wait() == 0
        assert elapsed() < 4
    assert len(one.daemon.events("worker_started")) == 1


@pytest.mark.parametrize("kind", ["download", "half a head", "half a body", "silent", "never reads"])
def test_a_stuck_client_never_delays_the_exit(front, kind):
    one = front(
        {"/big": [["body"], send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"), ["flood", 100_000_000]],
         "/x": [["body"], answer(200, b"y" * 1000)]}, SHORT)
    with one.client(receive_buffer=4096) as client:
        if kind == "download":
            client.get("/big")
            client.head()
        elif kind == "half a head":
            client.send(b"GET / HTTP/1.1\r\nHo")
        elif kind == "half a body":
            client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello")
            one.director.wait_request("/x")
        elif kind == "never reads":
            client.send_what_fits(request("/x") * 20_000)
        elapsed = stop(one)
        assert one.daemon.wait() == 0
        assert elapsed() < 4.7
        if kind in ("silent", "half a head"):
            assert elapsed() < 2, "nothing is in flight"


def test_the_listener_is_open_until_the_exit(front):
    one = front({"/slow": [["gate", "slow"], answer(200, b"slow")]}, SHORT, term="ignore")
    with one.client() as slow:
        slow.get("/slow")
        one.director.at_gate("slow")
        elapsed = stop(one)
        connected = 0
        while elapsed() < 3.2:
            # Before the exit nobody is refused by the kernel.
            with one.client() as client:
                client.get("/new")
                assert client.answer().status in (200, 503)
            connected += 1
            time.sleep(0.01)
        assert connected > 10
        assert one.daemon.wait() == 0
        assert refused(one.target)


ADOPT = (
    "import os, sys\nfd = int(sys.argv[1])\nif fd != 3: os.dup2(fd, 3)\nos.set_inheritable(3, True)\n"
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web')\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n")


def test_an_inherited_listener_is_not_accepted_from_once_the_stop_begins(front):
    """The kernel queues for the successor, here the test itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    target = listener.getsockname()[1]
    one = front({"/slow": [["gate", "slow"], answer(200, b"slow")]}, listen="",
                wrapper=[sys.executable, "-c", ADOPT, listener.fileno()], pass_fds=[listener.fileno()])
    one.target = target
    with one.client() as slow, one.client() as kept:
        slow.get("/slow")
        one.director.at_gate("slow")
        kept.get("/x")
        assert kept.answer().status == 200
        stop(one)
        with one.client() as queued:
            queued.get("/for-the-successor")
            assert queued.is_silent(0.5)
            one.director.release("slow")
            assert slow.answer().body == b"slow"
            assert one.daemon.wait() == 0
            assert queued.is_silent(0.1), "neither answered nor reset"
            mine, _ = listener.accept()
            with mine:
                mine.settimeout(20)
                assert mine.recv(1000).startswith(b"GET /for-the-successor ")
    assert not one.director.requests("/for-the-successor")
    listener.close()


def test_during_the_delay_all_is_served_and_ready_is_503(front):
    """What Kubernetes needs: its endpoints are removed while the signal is on its way."""
    one = front(settings={"stop.delay": "1s", "stop.budget": "6s"})
    with one.client() as kept:
        kept.get("/x")
        assert kept.answer().status == 200
        elapsed = stop(one)
        assert one.health("/ready")[0] == 503 and one.health()[0] == 200
        served = 0
        while elapsed() < 0.8:
            assert one.get("/during").status == 200
            served += 1
            time.sleep(0.02)
        kept.get("/x")
        assert kept.answer().status == 200
        assert served > 5
        assert one.daemon.wait() == 0
        assert 1 <= elapsed() < 3.5


def test_a_second_signal_changes_nothing(front):
    one = front({"/slow": [["gate", "slow"], answer(200, b"slow")]})
    with one.client() as slow:
        slow.get("/slow")
        one.director.at_gate("slow")
        stop(one)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            one.daemon.send(number)
        assert slow.is_silent(0.3)
        one.director.release("slow")
        assert slow.answer().body == b"slow"
        assert one.daemon.wait() == 0


def test_a_drain_of_nothing_leaves_the_rest_to_the_worker(front):
    """`stop.drain: 0s`: the signal at once; what the worker still answers within the grace is passed on."""
    one = front({"/slow": [["gate", "TERM"], ["gate", "slow"], answer(200, b"slow")]}, {"stop.drain": "0s"})
    with one.client() as slow:
        slow.get("/slow")
        one.director.at_gate("TERM")
        stop(one)
        one.director.at_gate("slow")
        got = one.get("/new")
        assert got.status == 503 and got.closes
        one.director.release("slow")
        got = slow.answer()
        assert got.body == b"slow" and got.closes
        assert one.daemon.wait() == 0


def test_pipelined_requests_behind_the_last_answer_are_not_lost_silently(front):
    """After an answer with `Connection: close` the client knows that the others were not done."""
    one = front({"/0": [["gate", "slow"], answer(200, b"0")]})
    with one.client() as client:
        client.send(request("/0") + request("/1", b"hello") + request("/2"))
        one.director.at_gate("slow")
        stop(one)
        one.director.release("slow")
        assert client.answer().closes
        client.ends()
        assert one.daemon.wait() == 0
    assert not one.director.requests("/1")


def test_a_stop_of_the_unready_and_of_the_failed_is_quick(front):
    one = front(boot={"*": {"exit": 5}}, ready=False, settings={"restart.limit": 0, "restart.onGiveUp": "hold"})
    one.daemon.wait_event("worker_failed")
    assert one.daemon.stop() == 0
    assert one.daemon.took < 2


def test_the_port_is_free_at_once_for_the_next(front, panelind):
    one = front()
    clients = [one.client() for _ in range(5)]
    for client in clients:
        client.get("/x")
        assert client.answer().status == 200
    assert one.daemon.stop() == 0
    again = front(listen=f"127.0.0.1:{one.target}")
    assert again.serves()
    for client in clients:
        client.close()


def test_nothing_is_left_of_the_private_socket(front):
    one = front()
    path = one.director.wait("environment")["arguments"][1]
    assert os.path.exists(path)
    assert one.daemon.stop() == 0
    assert not os.path.exists(path) and not os.path.exists(os.path.dirname(path))


def test_a_client_that_connects_at_the_moment_of_the_exit_hangs_no_longer_than_that(front):
    """Every connection is answered, or closed by the exit."""
    one = front()
    outcomes, over = [], threading.Event()

    def ask():
        while not over.is_set():
            try:
                with Client(one.target, timeout=15) as client:
                    client.get("/x", "Connection: close")
                    outcomes.append(client.answer().status)
            except ConnectionRefusedError:
                return
            except (Truncated, ConnectionError) as error:
                outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(outcomes) > 20, "they ask")
    assert one.daemon.stop() == 0
    over.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert set(outcomes) <= {200, 503, "Truncated", "ConnectionResetError"}
    assert [one for one in outcomes if one == 200]
    assert sum(one not in (200, 503) for one in outcomes) <= 12, outcomes
