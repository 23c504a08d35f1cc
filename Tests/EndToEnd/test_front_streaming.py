# test_front_streaming.py
# Bodies stream both ways as they come: chunked, lengths, events, interim answers, early answers, broken ones. CONTRACT section 5.
# Read harness/front.py first. Cases F01, F12, F13, F19 to F26, F28, F29.

import json
import time

import pytest

from harness import wait_until
from harness.director import answer, chunk, chunked_head, flood_digest, send, sse_head
from harness.rawclient import Truncated, request

CHUNKED = "Transfer-Encoding: chunked"


def post_head(target, *lines):
    return ("\r\n".join([f"POST {target} HTTP/1.1", "Host: h", *lines, "", ""])).encode()


# -- whole answers


@pytest.mark.case("F01")
def test_an_answer_passes_as_it_is(front):
    raw = ("HTTP/1.1 203 Whatever It Says\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer: the worker's\r\n"
           "Content-Type: text/x; charset=\"a\"\r\nSet-Cookie: a=1; Path=/\r\nX-Empty:\r\nSet-Cookie: b=2\r\n"
           "Keep-Alive: timeout=5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\n"
           "X-Long: " + "y" * 5000 + "\r\nContent-Length: 2\r\n\r\nok")
    one = front({"/x": [["body"], send(raw)]})
    with one.client() as client:
        client.get("/x")
        got = client.answer()
        assert (got.status, got.reason, got.body) == (203, b"Whatever It Says", b"ok")
        assert got.value("date") == "Mon, 01 Jan 2024 00:00:00 GMT"
        assert got.value("server") == "the worker's"
        assert got.value("content-type") == 'text/x; charset="a"'
        assert got.values("set-cookie") == ["a=1; Path=/", "b=2"]
        assert got.value("x-empty") == ""
        assert got.value("x-long") == "y" * 5000
        assert got.value("content-length") == "2"
        for name in ("keep-alive", "x-hop", "proxy-connection"):
            assert not got.has(name), name
        assert not got.closes
        # And the connection is good for another.
        client.get("/x")
        assert client.answer().body == b"ok"
    with one.client() as client:
        client.get("/x", version="1.0")
        assert client.answer().body == b"ok"
        client.ends()


@pytest.mark.parametrize("status", [200, 201, 206, 301, 302, 400, 404, 418, 429, 500, 502, 503, 504, 599])
def test_every_status_of_the_worker_passes(streaming_front, status):
    one = streaming_front
    one.director.rule(f"/status/{status}", ["body"], answer(status, b"body", "Retry-After: 7", reason="Mine"))
    got = one.get(f"/status/{status}")
    assert (got.status, got.reason, got.body, got.value("retry-after")) == (status, b"Mine", b"body", "7")


@pytest.fixture(scope="module")
def streaming_front(module_front):
    """One for tests that add rules of their own."""
    return module_front()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "X"])
def test_every_method_passes(streaming_front, method):
    with streaming_front.client() as client:
        client.send(request("/method", b"body", method=method))
        own = json.loads(client.answer().body)
        assert (own["method"], own["length"]) == (method, 4)


@pytest.mark.case("F25")
@pytest.mark.parametrize("method, raw, length", [
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "1000"),
    ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "5"),
    ("HEAD", "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", "9"),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\nhello", None),
    ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", None),
    ("DELETE", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", None),
    ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n", "1000"),
    ("GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\nhello", None),
    ("GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello", None),
], ids=lambda value: None if value is None else value.replace("\r\n", "|")[:70])
def test_what_has_no_body_brings_none(streaming_front, method, raw, length):
    one = streaming_front
    one.director.rule("/bodiless", ["body"], send(raw), ["note", "sent"])
    with one.client() as client:
        client.get("/bodiless", method=method)
        status = int(raw.split(" ")[1])
        if status == 205:
            got = client.answer(method)
            assert (got.status, got.body) == (205, b"")
        else:
            got = client.head(method)
            assert got.status == status
        if length:
            assert got.value("content-length") == length
        # What is left of it never turns up before, or as, the next answer.
        client.get("/next")
        following = client.answer()
        assert following.status == 200 and json.loads(following.body)["target"] == "/next"
    assert one.serves()
    if "hello" in raw:
        used = one.director.requests("/bodiless")[-1]
        later = [other for other in one.director.requests(probes=True) if other.conn == used.conn and other.t > used.t]
        assert not later, "a connection with bytes left over is not used again"


@pytest.mark.case("F21")
@pytest.mark.parametrize("start", ["HTTP/1.0 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nConnection: close"])
def test_an_answer_that_ends_with_its_connection_becomes_chunked(streaming_front, start):
    one = streaming_front
    one.director.rule("/until-close", ["body"], send(f"{start}\r\nX-A: 1\r\n\r\nfirst "), ["gate", f"more {start}"],
                      send("second"), ["close"])
    with one.client() as client:
        client.get("/until-close")
        got = client.head()
        assert (got.status, got.framing, got.value("x-a")) == (200, "chunked", "1")
        assert client.piece(got) == b"first ", "it comes as it is sent"
        one.director.release(f"more {start}")
        assert client.rest(got).body == b"first second"
        client.get("/next")
        assert client.answer().status == 200
    with one.client() as client:
        client.get("/until-close", version="1.0")
        got = client.answer()
        assert (got.framing, got.body) == ("close", b"first second")


def test_an_old_worker_s_answer_with_a_length_keeps_it(streaming_front):
    one = streaming_front
    one.director.rule("/old", ["body"], send("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold"), ["close"])
    for _ in range(3):
        got = one.get("/old")
        assert (got.status, got.framing, got.body, got.minor) == (200, "length", b"old", 1)


def test_chunked_becomes_close_for_an_http_1_0_client(streaming_front):
    one = streaming_front
    one.director.rule("/chunks", ["body"], chunked_head(), send(chunk("one ") + chunk("two") + b"0\r\n\r\n"))
    with one.client() as client:
        client.get("/chunks", version="1.0")
        got = client.answer()
        assert (got.framing, got.body) == ("close", b"one two")
        assert not got.has("transfer-encoding")


def test_an_http_1_0_client_may_keep_its_connection(streaming_front):
    """What `ab -k` does; nobody has to grant it."""
    with streaming_front.client() as client:
        client.get("/a", "Connection: keep-alive", version="1.0")
        got = client.answer()
        assert got.status == 200
        if any("keep-alive" in value.lower() for value in got.values("connection")):
            client.get("/b", version="1.0")
            assert client.answer().status == 200
        client.ends()


# -- chunks as they come


@pytest.mark.case("F20")
def test_chunks_arrive_as_they_are_sent(front):
    one = front({"/x": [["body"], chunked_head("X-A: 1"), ["gate", "1"], send(chunk("first")), ["gate", "2"],
                        send(chunk("second")), ["gate", "3"], send(b"0\r\n\r\n")]})
    with one.client() as client:
        client.get("/x")
        got = client.head()
        assert (got.framing, got.value("x-a")) == ("chunked", "1"), "the head comes before any body"
        assert not got.has("content-length")
        one.director.release("1")
        assert client.piece(got) == b"first"
        one.director.release("2")
        assert client.piece(got) == b"second"
        one.director.release("3")
        assert client.piece(got) is None
        client.get("/y")
        assert client.answer().status == 200


@pytest.mark.case("F20")
def test_chunks_in_crumbs_and_with_extensions_arrive_whole(streaming_front):
    one = streaming_front
    raw = b"".join(b"%x;a=%d\r\n%b\r\n" % (number, number, b"z" * number) for number in range(1, 40)) + b"0;end\r\n\r\n"
    one.director.rule("/crumbs", ["body"], chunked_head(), *[send(raw[n : n + 3]) for n in range(0, len(raw), 3)])
    with one.client() as client:
        client.get("/crumbs")
        assert client.answer().body == b"z" * sum(range(1, 40))
        client.get("/next")
        assert client.answer().status == 200


TRAILERS = (
    b"X-Checksum: abc\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nConnection: close\r\n"
    b"Set-Cookie: evil=1\r\nAuthorization: evil\r\nContent-Type: text/evil\r\nX-Last: z\r\n")


@pytest.mark.case("F20")
@pytest.mark.parametrize("wanted", [True, False], ids=["TE: trailers", "no TE"])
def test_trailers_reach_a_client_that_wants_them(streaming_front, wanted):
    """RFC 9110 section 6.5: fields of framing, routing and authentication never pass as trailers."""
    one = streaming_front
    one.director.rule("/trailers", ["body"], chunked_head("Trailer: X-Checksum, X-Last"),
                      send(chunk("body") + b"0\r\n" + TRAILERS + b"\r\n"))
    with one.client() as client:
        client.get("/trailers", *(["TE: trailers", "Connection: TE"] if wanted else []))
        got = client.answer()
        assert got.body == b"body"
        names = [name.lower() for name, _ in got.trailers]
        assert names == (["x-checksum", "x-last"] if wanted else []), got.trailers
        client.get("/next")
        assert client.answer().status == 200


def test_a_request_s_trailers_pass_but_for_those_that_mean_something_else(streaming_front):
    one = streaming_front
    with one.client() as client:
        client.send(post_head("/request-trailers", CHUNKED, "Trailer: X-Checksum") + chunk("body") + b"0\r\n" + TRAILERS
                    + b"\r\n")
        own = json.loads(client.answer().body)
    assert own["length"] == 4
    names = [name.lower() for name, _ in own["trailers"]]
    assert set(names) <= {"x-checksum", "x-last"}, names
    assert "x-checksum" in names
    assert b"evil" not in one.director.request("/request-trailers").head


def test_an_upload_in_chunks_streams_and_stays_chunked(front):
    one = front({"/up": [["take", len(chunk("first"))], ["note", "first"], ["hang"]]})
    with one.client() as client:
        client.send(post_head("/up", CHUNKED) + chunk("first"))
        head = one.director.wait_request("/up")
        assert head.value("transfer-encoding").lower() == "chunked" and not head.has("content-length")
        # It came although the client holds back the rest.
        one.director.wait("note", name="first")


def test_an_upload_with_a_length_streams_and_keeps_it(front):
    one = front({"/up": [["take", 5], ["note", "first"], ["hang"]]})
    with one.client() as client:
        client.send(post_head("/up", "Content-Length: 10") + b"first")
        assert one.director.wait_request("/up").value("content-length") == "10"
        one.director.wait("note", name="first")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_of_binary_bytes_arrives_equal(streaming_front, framing):
    import hashlib
    import random

    data = random.Random(7).randbytes(3_000_001)
    with streaming_front.client() as client:
        if framing == "length":
            client.send(request("/binary", data))
        else:
            sizes = [1, 2, 3, 1000, 65536, 65537, 100_000]
            client.send(post_head("/binary", CHUNKED))
            rest, number = data, 0
            while rest:
                size = sizes[number % len(sizes)]
                client.send(chunk(rest[:size]))
                rest, number = rest[size:], number + 1
            client.send(b"0\r\n\r\n")
        own = json.loads(client.answer().body)
    assert (own["length"], own["sha"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", [None, 10_000], ids=["length", "chunked"])
def test_a_download_of_binary_bytes_arrives_equal(streaming_front, size):
    import hashlib

    total = 5_000_000
    first = chunked_head() if size else send(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")
    one = streaming_front
    one.director.rule(f"/down{size}", ["body"], first, ["flood", total, size], *([send(b"0\r\n\r\n")] if size else []))
    got = one.get(f"/down{size}")
    assert hashlib.sha256(got.body).hexdigest() == flood_digest(total, size or 65536)


# -- server-sent events


@pytest.mark.case("F19")
def test_events_are_flushed_at_once_and_never_timed_out(front):
    """The case has one a second for two minutes; here each waits for the client to have the one before."""
    count = 20
    events = [step for n in range(count) for step in (["gate", f"e{n}"], send(chunk(f"data: {n}\n\n")))]
    one = front({"/sse": [["body"], sse_head(), *events, send(b"0\r\n\r\n")]},
                {"serve.idleTimeout": "1s", "serve.responseTimeout": "1s", "serve.headerTimeout": "1s"})
    with one.client() as client:
        client.get("/sse", "Accept: text/event-stream")
        got = client.head()
        assert got.value("content-type") == "text/event-stream"
        assert not got.has("content-length")
        for number in range(count):
            if number == 10:
                # Longer than every limit there is.
                assert client.is_silent(2.5)
            one.director.release(f"e{number}")
            assert client.piece(got) == f"data: {number}\n\n".encode()
        assert client.piece(got) is None


def test_many_streams_at_once_are_all_flushed(front):
    one = front({"/sse": [["body"], sse_head(), ["gate", "go"], send(chunk("data: x\n\n")), ["gate", "TERM"],
                          send(b"0\r\n\r\n"), ["close"]]})
    clients = [one.client() for _ in range(60)]
    try:
        for client in clients:
            client.get("/sse")
        heads = [client.head() for client in clients]
        one.director.at_gate("go", count=60)
        one.director.release("go")
        for client, got in zip(clients, heads):
            assert client.piece(got) == b"data: x\n\n"
    finally:
        for client in clients:
            client.close()


# -- interim answers and Expect


@pytest.mark.case("F24")
def test_interim_answers_pass_to_those_that_know_them(streaming_front):
    one = streaming_front
    hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\n\r\n"
    one.director.rule("/hints", ["body"], send(hints), ["gate", "hints"], send("HTTP/1.1 102 Processing\r\n\r\n" + hints),
                      answer(200, b"final"))
    with one.client() as client:
        client.get("/hints")
        wait_until(lambda: client.buffer or client.fill(), "the hints come before the answer is ready")
        one.director.release("hints")
        got = client.answer()
        assert got.body == b"final"
        assert [status for status, _ in got.interim] == [103, 102, 103]
        assert got.interim[0][1] == [("Link", "</a.css>; rel=preload"), ("Link", "</b.js>")]
        client.get("/next")
        assert client.answer().interim == []
    with one.client() as client:
        client.get("/hints", version="1.0")
        got = client.answer()
        assert (got.body, got.interim) == (b"final", [])


@pytest.mark.case("F12")
def test_100_continue_comes_from_the_worker_and_the_body_after_it(front):
    one = front({"/up": [["gate", "continue"], send("HTTP/1.1 100 Continue\r\n\r\n"), ["body"], ["echo"]]})
    with one.client() as client:
        client.send(post_head("/up", "Content-Length: 5", "Expect: 100-continue"))
        one.director.at_gate("continue")
        assert one.director.request("/up").value("expect").lower() == "100-continue"
        assert client.is_silent(), "nobody has asked for the body yet"
        one.director.release("continue")
        wait_until(lambda: client.buffer or client.fill(), "100 Continue")
        assert client.buffer == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert one.director.find("body", target="/up") == []
        client.send(b"hello")
        got = client.answer()
        assert [status for status, _ in got.interim] == [100], "once"
        assert json.loads(got.body)["length"] == 5
        client.get("/next")
        assert client.answer().status == 200


@pytest.mark.case("F12")
def test_a_body_that_does_not_wait_for_100_is_passed_on(front):
    """RFC 9110 section 10.1.1: a client need not wait; a worker need not answer 100."""
    one = front()
    with one.client() as client:
        client.send(post_head("/up", "Content-Length: 5", "Expect: 100-continue"))
        one.director.wait_request("/up")
        client.send(b"hello")
        assert json.loads(client.answer().body)["length"] == 5
        client.send(post_head("/up", CHUNKED, "Expect: 100-Continue") + chunk("hello") + b"0\r\n\r\n")
        assert json.loads(client.answer().body)["length"] == 5


@pytest.mark.case("F13")
@pytest.mark.parametrize("status", [401, 413])
@pytest.mark.parametrize("framing", ["Content-Length: 100000", CHUNKED], ids=["length", "chunked"])
def test_a_refusal_instead_of_100_is_passed_on_and_the_connection_closed(front, status, framing):
    one = front({"/up": [answer(status, b"no"), ["hang"]]})
    with one.client() as client:
        client.send(post_head("/up", framing, "Expect: 100-continue"))
        got = client.answer()
        assert (got.status, got.body, got.interim) == (status, b"no", [])
        assert got.closes
        client.ends()
    assert one.serves()
    used = one.director.request("/up").conn
    one.director.wait_end(used)
    assert all(other.conn != used or other.target == "/up" for other in one.director.requests(probes=True))


@pytest.mark.case("F13")
def test_an_early_answer_to_an_upload_reaches_the_client_while_it_still_sends(front):
    """What a worker does that refuses a large upload after the head; a browser or curl must see why."""
    one = front({"/up": [answer(401, b"who are you?", "Connection: close"), ["close"]]}, {"serve.bodyLimit": "none"})
    with one.client() as client:
        client.send(post_head("/up", "Content-Length: 100000000"))
        client.send_what_fits(b"x" * 1_000_000, quiet=0.2)
        got = client.answer()
        assert (got.status, got.body) == (401, b"who are you?")
    assert one.serves()


def test_an_early_answer_and_a_whole_upload_are_both_fine(front):
    """The answer begins before the body ends, and both go on: what streaming agents do."""
    one = front({"/duplex": [chunked_head(), ["take", 6], send(chunk("got 1")), ["take", 6], send(chunk("got 2")),
                             ["take", 5], send(b"0\r\n\r\n"), ["close"]]})
    with one.client() as client:
        client.send(post_head("/duplex", CHUNKED))
        got = client.head()
        client.send(chunk("1"))
        assert client.piece(got) == b"got 1"
        client.send(chunk("2"))
        assert client.piece(got) == b"got 2"
        client.send(b"0\r\n\r\n")
        assert client.piece(got) is None


# -- broken answers


BROKEN = {
    "CL and TE": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "two CL": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two equal CL": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "CL list": "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    "CL -1": "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
    "CL +5": "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "CL of 20 digits": "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    "TE gzip, chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "TE identity": "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
    "TE twice": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a status of two digits": "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": "HTTP/1.1 2000 High\r\nContent-Length: 0\r\n\r\n",
    "a status of letters": "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": "HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n",
    "no status": "HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "another protocol": "ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no HTTP at all": "Traceback (most recent call last):\n  File\n\n",
    "an empty line": "\r\n\r\n",
    "binary": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "bare LF": "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "bare LF after a field": "HTTP/1.1 200 OK\r\nX-A: 1\nContent-Length: 5\r\n\r\nhello",
    "obs-fold": "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 5\r\n\r\nhello",
    "space before the colon": "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "no colon": "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 5\r\n\r\nhello",
    "NUL in a value": "HTTP/1.1 200 OK\r\nX-A: 1\x002\r\nContent-Length: 5\r\n\r\nhello",
    "CR in a value": "HTTP/1.1 200 OK\r\nX-A: 1\r2\r\nContent-Length: 5\r\n\r\nhello",
    "a head of 70 KiB": "HTTP/1.1 200 OK\r\nX-A: " + "y" * 70_000 + "\r\nContent-Length: 5\r\n\r\nhello",
    "a head of 2 MiB": "HTTP/1.1 200 OK\r\n" + ("X-A: " + "y" * 8000 + "\r\n") * 262 + "Content-Length: 5\r\n\r\nhello",
    "101 fields": "HTTP/1.1 200 OK\r\n" + "X-A: 1\r\n" * 100 + "Content-Length: 5\r\n\r\nhello",
    "an endless status line": "HTTP/1.1 200 " + "y" * 100_000 + "\r\n\r\n",
    "101 unasked": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "nothing": "",
    "half a head": "HTTP/1.1 200 OK\r\nContent-Le",
}


@pytest.mark.case("F23")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_502_and_its_connection_is_not_used_again(streaming_front, name):
    one = streaming_front
    target = "/broken-" + name.replace(" ", "-")
    ends = name in ("nothing", "half a head")
    one.director.rule(target, ["body"], send(BROKEN[name]), ["close"] if ends else ["hang"])
    with one.client() as client:
        client.get(target)
        got = client.answer()
        assert got.status == 502, got
        assert b"hello" not in got.body and b"Traceback" not in got.body
    used = {request.conn: request.t for request in one.director.requests(target)}
    assert one.serves()
    if not ends:
        for conn in used:
            one.director.wait_end(conn)
    assert not [other for other in one.director.requests(probes=True) if other.t > used.get(other.conn, other.t)]
    assert len(one.daemon.events("worker_started")) == 1


@pytest.mark.case("F22")
@pytest.mark.parametrize("name, raw", [
    ("length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789"),
    ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"),
    ("inside a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n0123456789"),
    ("before the last CRLF", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n"),
    ("a chunk size that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\nxyz\r\n"),
    ("a chunk without its end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789abc\r\n0\r\n\r\n"),
    ("a negative chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n-1\r\n\r\n"),
])
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_truncated_answer_is_truncated_for_the_client(streaming_front, name, raw, end, version):
    one = streaming_front
    gate = f"{name} {end} {version}"
    # So that the client has a part of it before the end comes.
    head, _, body = raw.partition("\r\n\r\n")
    one.director.rule("/cut", ["body"], send(head + "\r\n\r\n"), ["gate", gate], send(body), ["gate", gate + " end"], [end])
    with one.client() as client:
        client.get("/cut", version=version)
        got = client.head()
        assert got.status == 200
        one.director.release(gate)
        client.until_body(got, b"0123456789") if "inside" not in name or version == "1.0" else None
        one.director.release(gate + " end")
        if version == "1.0" and got.framing == "close":
            # The only sign that there is in HTTP/1.0.
            data, how = client.until_end()
            assert how == "reset", "a clean end would say that all has come"
        else:
            with pytest.raises(Truncated) as caught:
                client.rest(got)
            assert not caught.value.answer.complete
    assert one.serves()


@pytest.mark.case("F22")
def test_a_truncation_leaves_a_line_with_its_reason(front):
    one = front({"/cut": [["body"], send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789"), ["close"]]})
    with pytest.raises(Truncated):
        one.get("/cut")

    def told():
        return [record for record in one.daemon.records if "/cut" in json.dumps(record) and "stream" not in record]

    record = wait_until(told, "a record of it")[0]
    assert "truncat" in json.dumps(record).lower(), record


VALID_ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 11\r\n\r\nhello\r\n\r\n!!",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0\r\n\r\n01234\r\n0\r\nX-T: 1\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\nok",
    "close": b"HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nuntil the end",
    "no body": b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
}


@pytest.mark.parametrize("name", VALID_ANSWERS)
def test_a_valid_answer_split_at_any_byte_has_the_same_outcome(front, name):
    raw = VALID_ANSWERS[name]
    ends = [["close"]] if name == "close" else []
    one = front({f"/{split}": [["body"], send(raw[:split]), ["gate", "rest"], send(raw[split:]), *ends]
                 for split in range(1, len(raw))})
    clients = [one.client() for _ in range(1, len(raw))]
    try:
        for split, client in enumerate(clients, 1):
            client.get(f"/{split}", "TE: trailers", "Connection: TE")
        one.director.at_gate("rest", count=len(clients))
        one.director.release("rest")
        outcomes = []
        for client in clients:
            got = client.answer()
            names = sorted(key.lower() for key, _ in got.headers)
            outcomes.append((got.status, got.framing, got.body, got.trailers, got.interim, names))
            client.get("/next")
            assert client.answer().status == 200
    finally:
        for client in clients:
            client.close()
    wrong = [split for split, outcome in enumerate(outcomes, 1) if outcome != outcomes[0]]
    assert not wrong, f"split at {wrong[:10]}: {outcomes[wrong[0] - 1]} instead of {outcomes[0]}"


def test_garbage_of_a_worker_is_never_passed_on_as_http(front):
    """Mutants of valid answers: each is 502, a cut, or an answer; never what is no HTTP, and never the next one's."""
    import random

    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    rules, count = {}, 150
    for number in range(count):
        raw = bytearray(dice.choice(list(VALID_ANSWERS.values())))
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(len(raw))
            match dice.randrange(3):
                case 0:
                    raw[place] = dice.choice([dice.randrange(256), 10, 13, 0, 32, 58, 48])
                case 1:
                    del raw[place : place + dice.randrange(1, 5)]
                    raw = raw or bytearray(b"x")
                case _:
                    raw[place:place] = dice.choice([b"\r\n", b"\n", b"\0", b"0\r\n\r\n", b"Content-Length: 3\r\n", b"HTTP/1.1 200 OK\r\n"])
        rules[f"/{number}"] = [["body"], send(bytes(raw)), ["close"]]
    one = front(rules)
    outcomes = set()
    for number in range(count):
        with one.client() as client:
            client.get(f"/{number}")
            try:
                got = client.answer()
                outcomes.add(got.status)
                if not got.closes:
                    client.get("/next")
                    assert json.loads(client.answer().body)["target"] == "/next"
            except Truncated:
                outcomes.add("cut")
    assert one.serves()
    assert {502, "cut"} <= outcomes
    assert len(one.daemon.events("worker_started")) == 1


EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def test_an_answer_after_the_answer_goes_to_nobody(front):
    """Response splitting: what a worker sends beyond its answer is not the next client's."""
    one = front({"/two": [["body"], send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + EVIL)]})
    with one.client() as client:
        for _ in range(5):
            client.get("/two")
            assert client.answer().body == b"ok"
            client.get("/good")
            assert b"evil" not in client.answer().body


def test_an_answer_on_an_idle_connection_goes_to_nobody(front):
    one = front({"/late": [["body"], answer(200, b"ok"), ["note", "answered"], ["gate", "late"], send(EVIL), ["note", "late"]]})
    with one.client() as client:
        client.get("/late")
        assert client.answer().body == b"ok"
        one.director.release("late")
        one.director.wait("note", name="late")
        for _ in range(5):
            client.get("/good")
            assert b"evil" not in client.answer().body


def test_a_worker_that_closes_its_idle_connections_fails_nobody(front):
    """uvicorn does so after 5 s, and says nothing of it in the answer before."""
    one = front({"/x": [["body"], answer(200, b"x"), ["close"]]})
    with one.client() as client:
        for _ in range(30):
            client.get("/x")
            assert client.answer().body == b"x"
    with one.client() as client:
        for number in range(10):
            client.get(f"/x?{number}")
            assert client.answer().body == b"x"
            # Its end is there before the next request is, which may not be sent twice.
            one.director.wait("closed", conn=one.director.request(f"/x?{number}").conn)
            client.post("/y", b"hello")
            assert client.answer().status == 200


# -- pipelines and ends


@pytest.mark.case("F26")
def test_pipelined_requests_are_answered_in_order_one_at_a_time(front):
    one = front({"/0": [["gate", "slow"], answer(200, b"0")], **{f"/{n}": [answer(200, str(n))] for n in range(1, 5)}})
    with one.client() as client:
        client.send(b"".join(request(f"/{n}") for n in range(5)))
        one.director.at_gate("slow")
        assert client.is_silent(0.1)
        assert [seen.target for seen in one.director.requests()] == ["/0"]
        one.director.release("slow")
        assert [client.answer().body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    assert [seen.target for seen in one.director.requests()] == [f"/{n}" for n in range(5)]


@pytest.mark.case("F26")
def test_a_long_pipeline_with_bodies_is_answered_in_order(streaming_front):
    count = 150
    data = b"".join(
        request(f"/p{n}", b"b" * n) if n % 3 else post_head(f"/p{n}", CHUNKED) + chunk(b"c" * (n + 1)) + b"0\r\n\r\n"
        for n in range(count))
    with streaming_front.client() as client:
        assert client.send_what_fits(data, quiet=5) == len(data)
        for number in range(count):
            own = json.loads(client.answer().body)
            assert own["target"] == f"/p{number}"
            assert own["length"] == (number if number % 3 else number + 1)


def test_health_in_a_pipeline_keeps_its_place(front):
    one = front({"/slow": [["gate", "slow"], answer(200, b"slow")]})
    with one.client() as client:
        client.send(request("/slow") + request("/health") + request("/a"))
        one.director.at_gate("slow")
        assert client.is_silent(0.1)
        one.director.release("slow")
        assert client.answer().body == b"slow"
        assert json.loads(client.answer().body)["status"] == "ok"
        assert client.answer().status == 200


def test_connection_close_ends_after_the_answer(streaming_front):
    with streaming_front.client() as client:
        client.send(request("/a", None, "Connection: close") + request("/not-served"))
        got = client.answer()
        assert got.status == 200 and got.closes
        client.ends()
    assert streaming_front.serves()
    assert not streaming_front.director.requests("/not-served")


def test_the_worker_s_connection_close_is_between_the_two_of_them(streaming_front):
    one = streaming_front
    one.director.rule("/worker-closes", ["body"], answer(200, b"x", "Connection: close"), ["close"])
    with one.client() as client:
        for _ in range(3):
            client.get("/worker-closes")
            got = client.answer()
            assert got.body == b"x" and not got.closes


@pytest.mark.case("F28")
@pytest.mark.parametrize("body", [None, b"hello"], ids=["GET", "POST"])
def test_a_client_that_closes_its_half_is_answered(front, body):
    one = front({"/slow": [["body"], ["gate", "go"], chunked_head(), send(chunk("a")), ["gate", "more"],
                           send(chunk("b") + b"0\r\n\r\n")]})
    with one.client() as client:
        client.send(request("/slow", body))
        client.half_close()
        one.director.at_gate("go")
        assert client.is_silent(0.2)
        one.director.release("go")
        got = client.head()
        assert client.piece(got) == b"a"
        conn = one.director.request("/slow").conn
        assert not one.director.find("eof", conn=conn), "the end of the client's half is not the worker's business"
        one.director.release("more")
        assert client.rest(got).body == b"ab"
        client.ends()


@pytest.mark.case("F28")
def test_the_end_in_the_middle_of_a_request_is_one(front):
    one = front()
    with one.client() as client:
        client.send(post_head("/half", "Content-Length: 10") + b"hello")
        one.director.wait_request("/half")
        client.half_close()
        data, _ = client.until_end()
        assert not data or data.startswith(b"HTTP/1.1 400")
    one.director.wait_end(one.director.request("/half").conn)
    assert one.director.request("/half").body is None
    with one.client() as client:
        client.send(b"GET /half-a-head HTTP/1.1\r\nHost:")
        client.half_close()
        client.until_end()
    assert one.serves()


@pytest.mark.case("F29")
@pytest.mark.parametrize("moment", ["working", "answering", "uploading"])
def test_a_client_s_reset_closes_the_worker_s_connection_within_a_second(front, moment):
    rules = {
        "working": [["body"], ["gate", "never"]],
        "answering": [["body"], chunked_head(), send(chunk("a")), ["gate", "never"]],
        "uploading": [["gate", "never"]],
    }
    one = front({"/x": rules[moment], "/next": [answer()]}, {"serve.concurrency": 1, "log.access": "all"})
    client = one.client()
    client.send(post_head("/x", "Content-Length: 10") + b"hello" if moment == "uploading" else request("/x"))
    one.director.at_gate("never")
    if moment == "answering":
        client.piece(client.head())
    begin = time.monotonic()
    client.reset()
    how, when = one.director.wait_end(one.director.request("/x").conn)
    assert when - begin < 1.5, "one second, and the slowness of the machine"
    # And its place is free.
    assert one.get("/next").status == 200
    record = wait_until(
        lambda: [r for r in one.daemon.records if r.get("httpRequest", {}).get("requestUrl", "").endswith("/x")],
        "a record of it")[0]
    assert record["httpRequest"]["status"] == (200 if moment == "answering" else 499)


def test_a_hundred_resets_leave_nothing_behind(front):
    from harness import fd_count

    one = front({"/x": [["body"], chunked_head(), ["repeat", 100, [send(chunk("a" * 10_000))]], ["gate", "never"]]})
    assert one.serves()
    before = fd_count(one.daemon.pid)
    for number in range(100):
        client = one.client()
        client.get("/x")
        if number % 2:
            client.piece(client.head())
        client.reset()
    wait_until(lambda: fd_count(one.daemon.pid) <= before + 2, "the descriptors are closed")
    assert one.serves()
