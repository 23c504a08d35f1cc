# test_front_framing.py
# Framing is judged before anything reaches the worker: CONTRACT section 5. Ambiguous: 400 and close, never repaired.
# Read harness/front.py first. Cases F02 to F10, F14, F27, and the splits at every byte.

import json
import time

import pytest

from harness.director import answer
from harness.rawclient import Client, Truncated, all_taken, request

H = "Host: front.test\r\n"


def head(*lines, start="POST /evil HTTP/1.1"):
    return ("\r\n".join([start, *lines, "", ""])).encode("latin-1")


def with_length(value):
    return head("Host: h", f"Content-Length: {value}") + b"hello"


def with_coding(value, body=b"5\r\nhello\r\n0\r\n\r\n"):
    return head("Host: h", f"Transfer-Encoding: {value}") + body


# (name, case, bytes, statuses). After each: the connection is closed, and the worker has seen nothing of it.
BAD_HEADS = [
    ("CL and TE", "F02", head("Host: h", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", {400}),
    ("TE and CL", "F02", head("Host: h", "Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n", {400}),
    ("CL 0 and TE", "F02", head("Host: h", "Content-Length: 0", "Transfer-Encoding: chunked") + b"0\r\n\r\n", {400}),
    ("two unequal CL", "F03", head("Host: h", "Content-Length: 5", "Content-Length: 6") + b"hello!", {400}),
    ("two equal CL", "F03", head("Host: h", "Content-Length: 5", "Content-Length: 5") + b"hello", {400}),
    ("CL list", "F03", with_length("5, 6"), {400}),
    ("CL list of equals", "F03", with_length("5, 5"), {400}),
    ("CL +5", "F03", with_length("+5"), {400}),
    ("CL -5", "F03", with_length("-5"), {400}),
    ("CL 5 x", "F03", with_length("5 x"), {400}),
    ("CL 0x5", "F03", with_length("0x5"), {400}),
    ("CL 5.0", "F03", with_length("5.0"), {400}),
    ("CL empty", "F03", with_length(""), {400}),
    ("CL of 20 digits", "F03", with_length("99999999999999999999"), {400, 413}),
    ("CL beyond 64 bits", "F03", with_length("18446744073709551621"), {400, 413}),
    ("CL in other digits", "F03", with_length("\xb25"), {400}),
    ("TE xchunked", "F04", with_coding("xchunked"), {400, 501}),
    ("TE chunked, identity", "F04", with_coding("chunked, identity"), {400, 501}),
    ("TE identity", "F04", with_coding("identity"), {400, 501}),
    ("TE gzip, chunked", "F04", with_coding("gzip, chunked"), {400, 501}),
    ("TE gzip", "F04", with_coding("gzip"), {400, 501}),
    ("TE chunked twice", "F04", with_coding("chunked, chunked"), {400, 501}),
    ("TE in two fields", "F04", head("Host: h", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
     + b"0\r\n\r\n", {400, 501}),
    ("TE in two fields, identity", "F04", head("Host: h", "Transfer-Encoding: chunked", "Transfer-Encoding: identity")
     + b"0\r\n\r\n", {400, 501}),
    ("TE after VT", "F04", with_coding("\x0bchunked"), {400, 501}),
    ("TE quoted", "F04", with_coding('"chunked"'), {400, 501}),
    ("TE with a parameter", "F04", with_coding("chunked;q=1"), {400, 501}),
    ("TE empty", "F04", with_coding(""), {400, 501}),
    ("TE in HTTP/1.0", "F04", head("Host: h", "Transfer-Encoding: chunked", start="POST /evil HTTP/1.0")
     + b"0\r\n\r\n", {400, 501}),
    ("space before the colon", "F05", head("Host: h", "Transfer-Encoding : chunked") + b"0\r\n\r\n", {400}),
    ("tab before the colon", "F05", head("Host: h", "X-A\t: 1"), {400}),
    ("obs-fold", "F05", head("Host: h", "X-A: 1", " 2"), {400}),
    ("obs-fold by tab", "F05", head("Host: h", "X-A: 1", "\t2"), {400}),
    ("a folded coding", "F05", head("Host: h", "Transfer-Encoding:", " chunked") + b"0\r\n\r\n", {400}),
    ("a space before the first field", "F05", head(" Host: h"), {400}),
    ("a space before a field", "F05", head(" X-A: 1", "Host: h"), {400}),
    ("bare LF everywhere", "F05", b"GET /evil HTTP/1.1\nHost: h\n\n", {400}),
    ("bare LF after the request line", "F05", b"GET /evil HTTP/1.1\nHost: h\r\n\r\n", {400}),
    ("bare LF after a field", "F05", b"GET /evil HTTP/1.1\r\nHost: h\nX-A: 1\r\n\r\n", {400}),
    ("bare LF as the empty line", "F05", b"GET /evil HTTP/1.1\r\nHost: h\r\n\n", {400}),
    ("bare CR in a value", "F05", head("Host: h", "X-A: 1\r2"), {400}),
    ("bare CR in a name", "F05", head("Host: h", "X\rA: 1"), {400}),
    ("NUL in a value", "F05", head("Host: h", "X-A: 1\x002"), {400}),
    ("NUL in a name", "F05", head("Host: h", "X\x00A: 1"), {400}),
    ("NUL in the target", "F05", head("Host: h", start="GET /ev\x00il HTTP/1.1"), {400}),
    ("no colon", "F05", head("Host: h", "X-A"), {400}),
    ("no name", "F05", head("Host: h", ": 1"), {400}),
    ("a space in a name", "F05", head("Host: h", "X A: 1"), {400}),
    ("a bracket in a name", "F05", head("Host: h", "X(A): 1"), {400}),
    ("a byte beyond ASCII in a name", "F05", head("Host: h", "X-\xe9: 1"), {400}),
    ("DEL in a value", "F05", head("Host: h", "X-A: 1\x7f2"), {400}),
    ("no Host", "F08", head(start="GET /evil HTTP/1.1"), {400}),
    ("two Hosts", "F08", head("Host: a", "Host: b", start="GET /evil HTTP/1.1"), {400}),
    ("two equal Hosts", "F08", head("Host: a", "Host: a", start="GET /evil HTTP/1.1"), {400}),
    ("two Hosts in HTTP/1.0", "F08", head("Host: a", "Host: b", start="GET /evil HTTP/1.0"), {400}),
    ("a space in Host", "F08", head("Host: a b", start="GET /evil HTTP/1.1"), {400}),
    ("letters for a port in Host", "F08", head("Host: a:b", start="GET /evil HTTP/1.1"), {400}),
    ("an address without brackets in Host", "F08", head("Host: ::1", start="GET /evil HTTP/1.1"), {400}),
    ("an open bracket in Host", "F08", head("Host: [::1", start="GET /evil HTTP/1.1"), {400}),
    ("a list as Host", "F08", head("Host: a, b", start="GET /evil HTTP/1.1"), {400}),
    ("a path in Host", "F08", head("Host: a/b", start="GET /evil HTTP/1.1"), {400}),
    ("a user in Host", "F08", head("Host: u@a", start="GET /evil HTTP/1.1"), {400}),
    ("another host in the target", "F09", head("Host: me", start="GET http://other/evil HTTP/1.1"), {400}),
    ("another port in the target", "F09", head("Host: me:1", start="GET http://me:2/evil HTTP/1.1"), {400}),
    ("a user in the target", "F09", head("Host: me", start="GET http://u@me/evil HTTP/1.1"), {400}),
    ("another scheme in the target", "F09", head("Host: me", start="GET ftp://me/evil HTTP/1.1"), {400}),
    ("a target without a slash", "F09", head("Host: me", start="GET evil HTTP/1.1"), {400}),
    ("an asterisk with GET", "F09", head("Host: me", start="GET * HTTP/1.1"), {400}),
    ("a byte beyond ASCII in the target", "F09", head("Host: me", start="GET /ev\xc3\xa9il HTTP/1.1"), {400}),
    ("a broken byte in the target", "F09", head("Host: me", start="GET /ev\xffil HTTP/1.1"), {400}),
    ("CONNECT", "F10", head("Host: h:1", start="CONNECT h:1 HTTP/1.1"), {405}),
    ("TRACE", "F10", head("Host: h", start="TRACE /evil HTTP/1.1"), {405}),
    ("Expect: 200-ok", "F14", head("Host: h", "Expect: 200-ok", "Content-Length: 5") + b"hello", {417}),
    ("two expectations", "F14", head("Host: h", "Expect: 100-continue, magic", "Content-Length: 5") + b"hello", {417}),
    ("no version", "F05", b"GET /evil\r\nHost: h\r\n\r\n", {400, 505}),
    ("HTTP/2.0 in words", "F10", head("Host: h", start="GET /evil HTTP/2.0"), {400, 505}),
    ("HTTP/3.7", "F10", head("Host: h", start="GET /evil HTTP/3.7"), {400, 505}),
    ("a version in lower case", "F05", head("Host: h", start="GET /evil http/1.1"), {400, 505}),
    ("a version of two digits", "F05", head("Host: h", start="GET /evil HTTP/1.10"), {400, 505}),
    ("a version without a dot", "F05", head("Host: h", start="GET /evil HTTP/1"), {400, 505}),
    ("two spaces", "F05", head("Host: h", start="GET  /evil HTTP/1.1"), {400}),
    ("a space at the end of the line", "F05", head("Host: h", start="GET /evil HTTP/1.1 "), {400, 505}),
    ("a space in the target", "F05", head("Host: h", start="GET /ev il HTTP/1.1"), {400, 505}),
    ("a tab for a space", "F05", head("Host: h", start="GET\t/evil HTTP/1.1"), {400}),
    ("a bracket in the method", "F05", head("Host: h", start="G(T /evil HTTP/1.1"), {400, 501}),
    ("TLS", "F05", bytes.fromhex("16030102000100 01fc0303") + b"\r\n\r\n", {400}),
]


def statuses_then_end(client):
    """The one answer, and the end of the connection after it."""
    got = client.answer()
    client.ends()
    return got


@pytest.mark.parametrize("data, wanted", [
    pytest.param(data, wanted, id=name, marks=pytest.mark.case(case)) for name, case, data, wanted in BAD_HEADS])
def test_a_bad_head_is_refused_closed_and_never_reaches_the_worker(framing_front, data, wanted):
    front = framing_front
    with front.client() as client:
        client.send(data)
        got = statuses_then_end(client)
    assert got.status in wanted, got
    assert got.closes, "the answer says that the connection ends"
    assert front.serves()
    assert b"evil" not in front.director.all_bytes()


@pytest.fixture(scope="module")
def framing_front(module_front):
    """One for all tests that leave nothing behind in it."""
    return module_front({"/good": [["body"], answer(200, b"good")]})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_follows_a_refused_request_is_not_looked_at(framing_front, method):
    front = framing_front
    with front.client() as client:
        client.send(head("Host: h", "Content-Length: 5", "Transfer-Encoding: chunked", start=f"{method} /evil HTTP/1.1")
                    + b"0\r\n\r\n" + request("/evil-smuggled"))
        assert statuses_then_end(client).status == 400
    assert front.serves()
    assert b"evil" not in front.director.all_bytes()


SMUGGLED = b"GET /evil-smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

PROBES = {
    # The length covers what chunked would end, and the other way round; and codings one side might not see.
    "CL.TE": head("Host: h", f"Content-Length: {len(SMUGGLED) + 5}", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n" + SMUGGLED,
    "TE.CL": head("Host: h", "Content-Length: 4", "Transfer-Encoding: chunked")
    + b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n",
    "TE.TE": head("Host: h", "Content-Length: 4", "Transfer-Encoding: chunked", "Transfer-encoding: cow")
    + b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n",
    "CL.0": head("Host: h", "Content-Length: 0", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
    "an LF before the coding": head("Host: h", f"X: x\nTransfer-Encoding: chunked\r\nContent-Length: {len(SMUGGLED) + 5}")
    + b"0\r\n\r\n" + SMUGGLED,
    "a VT before the coding": head("Host: h", f"Content-Length: {len(SMUGGLED) + 5}", "Transfer-Encoding:\x0bchunked")
    + b"0\r\n\r\n" + SMUGGLED,
    "a space after the coding's name": head(
        "Host: h", f"Content-Length: {len(SMUGGLED) + 5}", "Transfer-Encoding : chunked") + b"0\r\n\r\n" + SMUGGLED,
    "a fold before the coding": head(
        "Host: h", f"Content-Length: {len(SMUGGLED) + 5}", "X: y", " Transfer-Encoding: chunked")
    + b"0\r\n\r\n" + SMUGGLED,
}


@pytest.mark.case("F07")
@pytest.mark.parametrize("name", PROBES)
def test_a_smuggled_request_never_reaches_the_worker(framing_front, name):
    front = framing_front
    with front.client() as client:
        client.send(PROBES[name] + request("/second"))
        got = statuses_then_end(client)
    assert got.status == 400
    assert front.serves()
    assert b"evil" not in front.director.all_bytes() and b"/second" not in front.director.all_bytes()


BAD_CHUNKS = {
    "a size of 17 digits": b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "a size of 64 bits": b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "a prefixed size": b"0x5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "an extension without a size": b";ext\r\nhello\r\n0\r\n\r\n",
    "a size that is none": b"5g\r\nhello\r\n0\r\n\r\n",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "no CRLF after the data": b"5\r\nhello0\r\n\r\n",
    "more data than announced": b"5\r\nhelloX\r\n0\r\n\r\n",
    "LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "LF after the last size": b"5\r\nhello\r\n0\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
    "a trailer that is none": b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    "a folded trailer": b"5\r\nhello\r\n0\r\nA: 1\r\n 2\r\n\r\n",
    "an endless extension": b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "an endless trailer": b"5\r\nhello\r\n0\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
    "a thousand trailers": b"5\r\nhello\r\n0\r\n" + b"A: 1\r\n" * 1000 + b"\r\n",
}


@pytest.mark.case("F06")
@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_bad_chunk_is_refused_and_the_worker_never_sees_the_request_whole(framing_front, name):
    front = framing_front
    target = "/broken-" + name.replace(" ", "-")
    with front.client() as client:
        client.send(head("Host: h", "Transfer-Encoding: chunked", start=f"POST {target} HTTP/1.1") + BAD_CHUNKS[name])
        got = statuses_then_end(client)
    assert got.status in ({400, 413, 431} if "endless" in name or "thousand" in name else {400}), got
    assert front.serves()
    # Its head may have been on its way; a whole body may not, nor a second use of that connection.
    for one in front.director.requests(target):
        assert one.body is None
        front.director.wait_end(one.conn)
        later = [other for other in front.director.requests(probes=True) if other.conn == one.conn and other.t > one.t]
        assert not later


@pytest.mark.case("F06")
def test_a_chunk_s_extension_is_dropped(framing_front):
    front = framing_front
    data = (b"5;name=value\r\nhello\r\n000A;x=\"y;z\"\r\n0123456789\r\n0;last\r\n\r\n")
    with front.client() as client:
        client.send(head("Host: h", "Transfer-Encoding: chunked", start="POST /extended HTTP/1.1") + data)
        got = client.answer()
    assert got.status == 200
    seen = front.director.requests("/extended")[-1]
    assert seen.body["data"] == "hello0123456789"
    assert b"name=value" not in front.director.all_bytes() and b"last" not in front.director.all_bytes()
    front.director.nothing_bad()


@pytest.mark.case("F08")
def test_http_1_0_needs_no_host(framing_front):
    with framing_front.client() as client:
        client.send(b"GET /good HTTP/1.0\r\n\r\n")
        got = client.answer()
        assert (got.status, got.body) == (200, b"good")
        client.ends()


@pytest.mark.case("F09")
def test_an_absolute_target_of_the_same_host_is_served_as_a_path(framing_front):
    front = framing_front
    with front.client() as client:
        client.get("http://Front.Test/absolute/%2e?a=b", host="front.test")
        got = json.loads(client.answer().body)
    assert got["target"] == "/absolute/%2e?a=b"
    assert [value.lower() for name, value in got["headers"] if name.lower() == "host"] == ["front.test"]


def test_an_asterisk_is_a_target_of_options(framing_front):
    with framing_front.client() as client:
        client.get("*", method="OPTIONS")
        assert json.loads(client.answer().body)["target"] == "*"


@pytest.mark.case("F10")
@pytest.mark.parametrize("pieces", [1, 24], ids=["whole", "in single bytes"])
def test_an_http_2_preface_is_closed_within_a_second(framing_front, pieces):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    with framing_front.client() as client:
        begin = time.monotonic()
        if pieces == 1:
            client.send(preface + b"\0\0\0\4\0\0\0\0\0")
        else:
            for byte in preface:
                client.send(bytes([byte]))
        try:
            assert client.answer().status in (400, 505)
        except Truncated:
            pass
        client.until_end()
        # One second, and the slowness of the machine.
        assert time.monotonic() - begin < 2.5
    assert framing_front.serves()


def test_empty_lines_before_a_request_are_skipped(framing_front):
    """RFC 9112 section 2.2: at least one."""
    with framing_front.client() as client:
        client.send(b"\r\n" + request("/good"))
        assert client.answer().body == b"good"
        client.send(b"\r\n" + request("/good"))
        assert client.answer().body == b"good"


@pytest.mark.case("F27")
def test_a_good_request_before_a_malformed_one_is_answered_in_full(front):
    one = front({"/slow": [["gate", "go"], answer(200, b"x" * 100_000)]})
    with one.client() as client:
        client.send(request("/slow") + b"GET /evil HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + request("/evil-after"))
        one.director.at_gate("go")
        assert client.is_silent(0.1)
        one.director.release("go")
        first = client.answer()
        assert (first.status, len(first.body)) == (200, 100_000)
        assert client.answer().status == 400
        client.ends()
    assert one.serves()
    assert b"evil" not in one.director.all_bytes()


def test_a_malformed_request_after_a_body_is_refused(framing_front):
    with framing_front.client() as client:
        client.send(request("/good", b"hello") + b"garbage\r\n\r\n")
        assert client.answer().body == b"good"
        assert client.answer().status == 400
        client.ends()


def test_garbage_is_survived(framing_front):
    import random

    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    words = [request("/good"), request("/good", b"hello"), b"\r\n\r\n", b"\0", b"Host:", b"HTTP/1.1\r\n", b"0\r\n\r\n",
             b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"GET ", b"/evil ", b"\n", b"\r"]
    for _ in range(150):
        data = b"".join(dice.choice([*words, dice.randbytes(dice.randrange(60))]) for _ in range(dice.randrange(1, 9)))
        with framing_front.client() as client:
            client.send(data)
            if dice.random() < 0.3:
                client.reset()
            else:
                client.half_close()
                client.until_end()
    assert framing_front.serves()


# -- every byte


def chunked(*pieces, trailers=b""):
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n" + trailers + b"\r\n"


# `%03d` is the number of the split, so that its request can be found at the worker.
VALID = {
    "GET": [request("/s%03d?a=b", None, "Accept: */*", "X-A: 1")],
    "HEAD": [request("/s%03d", None, method="HEAD")],
    "POST with a length": [request("/s%03d", b"hello world", "Content-Type: text/plain")],
    "POST in chunks": [
        head("Host: h", "Transfer-Encoding: chunked", start="POST /s%03d HTTP/1.1")
        + b"4;x=y\r\nwiki\r\n" + chunked(b"pedia in chunks")],
    "POST in chunks with a trailer": [
        head("Host: h", "Transfer-Encoding: Chunked", "Trailer: X-T", start="PUT /s%03d HTTP/1.1")
        + chunked(b"abc", b"\r\n0\r\n\r\n", trailers=b"X-T: 1\r\n")],
    "HTTP/1.0": [b"GET /s%03d HTTP/1.0\r\nHost: h\r\n\r\n"],
    "two in one": [request("/s%03d", b"first body"), request("/t%03d")],
    "absolute": [request("http://front.test/s%03d")],
}
REFUSED = {
    "CL and TE": PROBES["CL.TE"],
    "two Hosts": head("Host: a", "Host: b", start="GET /evil HTTP/1.1"),
    "a bare LF": b"GET /evil HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
    "a fold": head("Host: h", "X-A: 1", "\t2"),
}


def outcome(got):
    """What must not depend on the split."""
    body = got.body
    if body and got.status == 200:
        own = json.loads(body)
        own["target"] = own["target"][:2]
        headers = sorted([name.lower(), value] for name, value in own["headers"])
        own["headers"] = [pair for pair in headers if pair[0] != "x-request-id"]
        body = json.dumps(own, sort_keys=True)
    return got.status, got.framing, body, sorted(name.lower() for name, _ in got.headers)


def at_every_split(front, data_of, read):
    """Sends data_of(n) split at n, for each n; the first piece is read by panelind before the second is sent."""
    clients, results = [], []
    size = len(data_of(1))
    try:
        for split in range(size):
            client = Client(front.target)
            client.send(data_of(split)[:split])
            clients.append(client)
        all_taken(clients, "panelind has read the first pieces")
        for split, client in enumerate(clients):
            client.send(data_of(split)[split:])
        for split, client in enumerate(clients):
            results.append(read(client))
    finally:
        for client in clients:
            client.close()
    return results


@pytest.fixture(scope="module")
def unix_front(module_front, tmp_path_factory):
    """On a unix socket, where a client can see that what it sent has been read."""
    import shutil
    import tempfile

    directory = tempfile.mkdtemp(prefix="pu-", dir="/tmp")
    yield module_front(listen=f"unix:{directory}/public")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("name", VALID)
def test_a_valid_request_split_at_any_byte_has_the_same_outcome(unix_front, name):
    parts = VALID[name]

    def data_of(split):
        return b"".join(part.replace(b"%03d", b"%03d" % split) for part in parts)

    def read(client):
        return [outcome(client.answer("HEAD" if part.startswith(b"HEAD") else "GET")) for part in parts]

    results = at_every_split(unix_front, data_of, read)
    wrong = [split for split, result in enumerate(results) if result != results[0]]
    assert not wrong, f"split at {wrong[:20]}: {results[wrong[0]]} instead of {results[0]}"
    assert [one[0] for one in results[0]] == [200] * len(parts), results[0]
    unix_front.director.nothing_bad()


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_split_at_any_byte_is_refused_alike(unix_front, name):
    def read(client):
        got = client.answer()
        client.ends()
        return got.status

    assert set(at_every_split(unix_front, lambda split: REFUSED[name], read)) == {400}
    assert unix_front.serves()
    assert b"evil" not in unix_front.director.all_bytes()


@pytest.mark.parametrize("name", VALID)
def test_a_valid_request_in_single_bytes_has_the_same_outcome(unix_front, name):
    parts = [part.replace(b"%03d", b"999") for part in VALID[name]]
    with unix_front.client() as client:
        for byte in b"".join(parts):
            client.send(bytes([byte]))
            all_taken([client])
        for part in parts:
            assert client.answer("HEAD" if part.startswith(b"HEAD") else "GET").status == 200
    unix_front.director.nothing_bad()
