# test_front_reuse.py
# Connections to the worker: when one is used again, and what its end means for the answer on it. CONTRACT section 5.
# Read harness/front.py first; test_front_crash.py kills under load.

import os
import signal
import time

import pytest

from harness import wait_until
from harness.director import answer, send
from harness.rawclient import Truncated
from test_front_access import line, lines

EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"


def is_stopped(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("placeholder", ["{socket}", "{port}"])
def test_bytes_that_nobody_asked_for_are_never_the_next_answer(front, placeholder):
    """They wait in the kernel beside the request that would take their connection: one turn of the loop sees both."""
    one = front(
        {"/more": [["body"], answer(200, b"mine"), ["gate", "more"], ["send", EVIL], ["note", "sent"]],
         "/other": [["body"], answer(200, b"other")]},
        placeholder=placeholder)
    with one.client() as first, one.client() as second:
        second.get("/other")
        assert second.answer().body == b"other"
        first.get("/more")
        assert first.answer().body == b"mine"
        one.director.at_gate("more")
        os.kill(one.daemon.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: is_stopped(one.daemon.pid), "panelind is stopped")
            second.get("/other")
            one.director.release("more")
            one.director.wait("note")
        finally:
            os.kill(one.daemon.pid, signal.SIGCONT)
        assert second.answer().body == b"other"
    assert one.serves()


def test_a_worker_that_sends_more_than_its_answer_gets_each_request_on_a_connection_of_its_own(front):
    more = answer(200, b"mine")[1] + EVIL
    one = front({"/more": [["body"], ["send", more]], "*": [["body"], answer(200, b"ok")]})
    with one.client() as client:
        for path in ("/a", "/b"):
            client.get(path)
            assert client.answer().body == b"ok"
        client.get("/more")
        assert client.answer().body == b"mine"
        for path in ("/c", "/d", "/e"):
            client.get(path)
            assert client.answer().body == b"ok"
    conn = {path: one.director.request(path).conn for path in ("/a", "/b", "/c", "/d", "/e")}
    assert conn["/a"] == conn["/b"]
    assert len({conn["/b"], conn["/c"], conn["/d"], conn["/e"]}) == 4


def test_a_post_goes_only_where_the_last_answer_is_young(front):
    """The worker may close a kept connection in the moment of its use: a POST would be lost with it."""
    one = front({"*": [["body"], answer(200, b"ok")]})
    with one.client() as client:
        for path in ("/a", "/b"):
            client.post(path, b"x")
            assert client.answer().status == 200
        time.sleep(0.7)  # What is asserted is this wait itself.
        client.get("/c")
        assert client.answer().status == 200
        time.sleep(0.7)
        client.post("/d", b"x")
        assert client.answer().status == 200
    conn = {path: one.director.request(path).conn for path in ("/a", "/b", "/c", "/d")}
    assert conn["/b"] == conn["/c"], "a GET is made again where it is lost"
    assert conn["/d"] != conn["/c"], "a POST is not"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_that_ends_with_its_connection_is_cut_where_that_was_the_workers_death(front, method):
    one = front({"/dies": [["body"], send("HTTP/1.1 200 OK\r\n\r\nhalf of it"), ["gate", "die"], ["die"]]})
    with one.client() as client:
        if method == "GET":
            client.get("/dies")
        else:
            client.post("/dies", b"x")
        one.director.at_gate("die")
        one.director.release("die")
        with pytest.raises(Truncated):
            client.answer()
    one.daemon.ready(2)
    assert one.serves()


def test_a_body_that_ends_with_its_connection_is_whole_where_the_worker_lives_on(front):
    one = front({"/ends": [["body"], send("HTTP/1.1 200 OK\r\n\r\nall of it"), ["close"]]})
    with one.client() as client:
        for _ in range(3):
            client.get("/ends")
            assert client.answer().body == b"all of it"
    assert one.serves()


def test_a_request_that_was_saved_is_no_error_in_the_log(front):
    one = front({"g1 /x": [["body"], ["die"]], "g2 /x": [["body"], answer(200, b"saved")]}, {"log.access": "all"})
    assert one.get("/x").body == b"saved"
    record = line(one, "/x")
    assert record["httpRequest"]["status"] == 200 and record["severity"] == "INFO"
    assert "reason" not in record


def test_what_is_the_clients_fault_is_no_error_in_the_log(front):
    """`errors` are 5xx and slow ones; a body that turns out too long is refused, and said so once."""
    one = front({"*": [["body"], answer(200, b"ok")], "/last": [["body"], answer(500, b"broken")]}, {"serve.bodyLimit": "1KiB"})
    with one.client() as client:
        client.send(b"POST /long HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + b"x" * 2048 + b"\r\n")
        assert client.answer().status == 413
    assert one.daemon.wait_event("request_refused")["status"] == 413
    one.get("/last")
    line(one, "/last")
    assert not lines(one, "/long")
