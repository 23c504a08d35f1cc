# test_front_upgrade.py
# WebSocket and any other upgrade: a byte tunnel after 101, an ordinary answer without. CONTRACT section 5.
# Read harness/front.py first. Cases F31 to F33. Real WebSocket clients: test_front_clients.py.

import json
import random
import time

import pytest

from harness import wait_until
from harness.director import WEBSOCKET_KEY, answer, send, upgraded, websocket_accept
from harness.rawclient import Truncated, all_taken, request

FIELDS = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {WEBSOCKET_KEY}",
          "Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Extensions: permessage-deflate"]
ACCEPTED = upgraded("websocket", "Sec-WebSocket-Protocol: chat")
TUNNEL = {"/ws": [ACCEPTED, ["tunnel"]]}


def open_tunnel(client, path="/ws", *lines):
    client.get(path, *(lines or FIELDS))
    got = client.head()
    assert got.status == 101, got
    return got


@pytest.mark.case("F31")
@pytest.mark.parametrize("first", [False, True], ids=["second request", "first request"])
def test_an_upgrade_with_bytes_glued_to_it_becomes_a_tunnel(front, first):
    one = front(TUNNEL)
    with one.client() as client:
        if not first:
            client.send(request("/before", b"hello"))
            assert client.answer().status == 200
        client.send(request("/ws", None, *FIELDS) + b"\x81\x05hello")
        got = client.head()
        assert got.status == 101
        assert got.value("upgrade").lower() == "websocket"
        assert "upgrade" in got.value("connection").lower()
        assert got.value("sec-websocket-accept") == websocket_accept()
        assert got.value("sec-websocket-protocol") == "chat"
        assert client.read(7) == b"\x81\x05hello"
        # A mebibyte both ways, of any bytes.
        data = random.Random(31).randbytes(1 << 20)
        import threading

        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        assert client.read(len(data)) == data
        sender.join()
    seen = one.director.request("/ws")
    assert seen.value("upgrade").lower() == "websocket"
    assert "upgrade" in seen.value("connection").lower()
    for line in FIELDS[2:]:
        name, _, value = line.partition(": ")
        assert seen.value(name) == value


def test_what_the_worker_glues_to_its_101_is_not_lost(front):
    one = front({"/ws": [send(ACCEPTED[1] + "first frame"), ["tunnel"]]})
    with one.client() as client:
        open_tunnel(client)
        assert client.read(11) == b"first frame"
        client.send(b"x")
        assert client.read(1) == b"x"


@pytest.mark.case("F32")
@pytest.mark.parametrize("status", [200, 403, 426])
def test_a_refused_upgrade_is_an_answer_like_another(front, status):
    one = front({"/ws": [["body"], answer(status, b"no", "X-A: 1")]})
    with one.client() as client:
        client.get("/ws", *FIELDS)
        got = client.answer()
        assert (got.status, got.body, got.value("x-a")) == (status, b"no", "1")
        assert not got.closes
        # The next request on the same connection, and one more.
        client.get("/next")
        assert client.answer().status == 200
        client.send(request("/next", b"hello"))
        assert json.loads(client.answer().body)["length"] == 5


@pytest.mark.case("F32")
def test_a_request_behind_a_refused_upgrade_is_served(front):
    """What was glued to it was the next request after all."""
    one = front({"/ws": [["body"], ["gate", "go"], answer(403, b"no")]})
    with one.client() as client:
        client.send(request("/ws", None, *FIELDS) + request("/behind", b"hello"))
        one.director.at_gate("go")
        assert client.is_silent(0.1)
        one.director.release("go")
        assert client.answer().status == 403
        assert json.loads(client.answer().body)["target"] == "/behind"
    one.director.nothing_bad()


@pytest.mark.case("F33")
@pytest.mark.parametrize("end", ["client FIN", "client RST", "worker FIN", "worker RST", "worker close"])
def test_the_end_of_one_side_is_the_other_s(front, end):
    worker = {"worker FIN": [["gate", "go"], ["shut"], ["hang"]], "worker RST": [["gate", "go"], ["reset"]],
              "worker close": [["gate", "go"], ["close"]]}.get(end, [["tunnel"]])
    one = front({"/ws": [ACCEPTED, *worker]})
    client = one.client()
    open_tunnel(client)
    conn = one.director.request("/ws").conn
    begin = time.monotonic()
    if end == "client FIN":
        client.send(b"last words")
        client.half_close()
        # The worker reads to the end, answers, and closes.
        assert client.read(10) == b"last words"
        assert client.ends() == "eof"
        assert one.director.wait_end(conn)[0] == "eof"
    elif end == "client RST":
        client.reset()
        one.director.wait_end(conn)
    else:
        one.director.release("go")
        how = client.ends()
        if end != "worker RST":
            assert how == "eof"
    assert time.monotonic() - begin < 5
    client.close()
    assert one.serves()


def test_after_one_side_s_fin_the_other_may_still_send(front):
    one = front({"/ws": [ACCEPTED, ["take", 4], ["gate", "go"], send("and more"), ["close"]]})
    with one.client() as client:
        open_tunnel(client)
        client.send(b"last")
        client.half_close()
        conn = one.director.request("/ws").conn
        one.director.at_gate("go")
        wait_until(lambda: one.director.find("eof", conn=conn), "the FIN")
        one.director.release("go")
        assert client.read(8) == b"and more"
        assert client.ends() == "eof"


@pytest.mark.parametrize("fields", [
    ["Connection: keep-alive, Upgrade", "Upgrade: my-protocol/2"],
    ["connection: UPGRADE", "upgrade: My-Protocol/2"],
    ["Connection: Upgrade", "Connection: keep-alive", "Upgrade: a", "Upgrade: my-protocol/2"],
])
def test_any_protocol_may_be_upgraded_to(front, fields):
    one = front({"/any": [upgraded("my-protocol/2"), ["tunnel"]]})
    with one.client() as client:
        open_tunnel(client, "/any", *fields)
        client.send(b"\0\1\2GET / HTTP/1.1\r\n\r\n")
        assert client.read(21) == b"\0\1\2GET / HTTP/1.1\r\n\r\n"
    assert "my-protocol/2" in ",".join(one.director.request("/any").values("upgrade")).lower()


def test_bytes_of_a_tunnel_are_no_requests(front):
    one = front(TUNNEL)
    with one.client() as client:
        open_tunnel(client)
        client.send(request("/health") + request("/evil"))
        wanted = request("/health") + request("/evil")
        assert client.read(len(wanted)) == wanted
    assert not one.director.requests("/evil")


def test_a_tunnel_in_single_bytes(front):
    one = front(TUNNEL)
    with one.client() as client:
        open_tunnel(client)
        for byte in b"one by one":
            client.send(bytes([byte]))
            assert client.read(1) == bytes([byte])


def test_an_upgrade_is_held_like_any_request(front):
    one = front(TUNNEL, boot={"*": {"gate": "boot"}}, ready=False)
    one.director.wait("environment")
    with one.client() as client:
        client.send(request("/ws", None, *FIELDS) + b"early")
        assert client.is_silent(0.2)
        one.director.release("boot")
        assert client.head().status == 101
        assert client.read(5) == b"early"


def test_an_upgrade_counts_as_in_flight(front):
    one = front(TUNNEL, {"serve.concurrency": 1})
    with one.client() as client, one.client() as waiting:
        open_tunnel(client)
        waiting.get("/x")
        assert waiting.is_silent(0.3)
        client.close()
        assert waiting.answer().status == 200


def test_an_idle_tunnel_is_not_cut(front):
    one = front(TUNNEL, {"serve.idleTimeout": "500ms", "serve.headerTimeout": "500ms", "serve.responseTimeout": "500ms"})
    with one.client() as client:
        open_tunnel(client)
        assert client.is_silent(1.5)
        client.send(b"still here")
        assert client.read(10) == b"still here"


def test_the_worker_s_death_ends_its_tunnels(front):
    one = front(TUNNEL)
    with one.client() as client:
        open_tunnel(client)
        one.kill_worker()
        client.ends()
    one.daemon.ready(2)
    assert one.serves()


def test_an_upgrade_whose_worker_dies_before_101_is_tried_once_more(front):
    """It is a GET without body and without a first byte of answer."""
    one = front({"g1 /ws": [["gate", "never"]], "g2 /ws": [ACCEPTED, ["tunnel"]]})
    with one.client() as client:
        client.get("/ws", *FIELDS)
        one.director.at_gate("never")
        one.kill_worker()
        assert client.head().status == 101
        client.send(b"x")
        assert client.read(1) == b"x"


def test_backpressure_holds_in_a_tunnel(front):
    """A side that does not read stops the other; nothing piles up between them."""
    from harness import rss_bytes

    one = front({"/ws": [ACCEPTED, ["gate", "read"], ["tunnel"]], "/flood": [ACCEPTED, ["flood", 64 << 20], ["note", "sent"]]})
    before = rss_bytes(one.daemon.pid)
    with one.client(receive_buffer=4096) as client:
        open_tunnel(client)
        sent = client.send_what_fits(b"x" * (64 << 20), quiet=1)
        assert sent < 16 << 20
        assert rss_bytes(one.daemon.pid) - before < 8 << 20
    with one.client(receive_buffer=4096) as client:
        open_tunnel(client, "/flood")
        # Time enough for all of it, if somebody took it.
        time.sleep(0.5)
        assert not one.director.find("note", name="sent")
        assert rss_bytes(one.daemon.pid) - before < 8 << 20
    assert one.serves()


@pytest.mark.parametrize("version, fields", [
    ("1.0", FIELDS), ("1.1", ["Upgrade: websocket"]), ("1.1", ["Connection: Upgrade"]),
], ids=["HTTP/1.0", "without Connection", "without Upgrade"])
def test_half_an_upgrade_is_none(front, version, fields):
    """RFC 9110 section 7.8: ignored in HTTP/1.0, and without its half."""
    one = front()
    with one.client() as client:
        client.get("/x", *fields, version=version)
        assert client.answer().status == 200
    seen = one.director.request("/x")
    assert not (seen.has("upgrade") and any("upgrade" in value.lower() for value in seen.values("connection")))


def test_an_upgrade_split_at_any_byte_has_the_same_outcome(module_front):
    import shutil
    import tempfile

    directory = tempfile.mkdtemp(prefix="pu-", dir="/tmp")
    try:
        one = module_front({"/ws": [ACCEPTED, ["tunnel"]]}, listen=f"unix:{directory}/s")
        data = request("/ws", None, *FIELDS[:4]) + b"\x81\x05hello\0"
        clients = []
        for split in range(len(data)):
            client = one.client()
            client.send(data[:split])
            clients.append(client)
        all_taken(clients)
        for split, client in enumerate(clients):
            client.send(data[split:])
        for split, client in enumerate(clients):
            assert client.head().status == 101, split
            try:
                assert client.read(8) == b"\x81\x05hello\0", split
            except Truncated as error:
                raise AssertionError(f"split at {split}") from error
            client.close()
        one.director.nothing_bad()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
