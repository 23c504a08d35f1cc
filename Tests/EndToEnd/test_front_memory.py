# test_front_memory.py
# Constant memory for any body, both ways, and backpressure that reaches the sender: CONTRACT section 5. Cases F17 and F18.
# Read harness/front.py first.

import hashlib
import json
import os
import threading
import time

import pytest

from harness import rss_bytes, wait_until
from harness.director import flood_digest, send
from harness.rawclient import Client

SIZE = 256 << 20
# Of panelind's resident memory over a whole transfer.
GROWTH = 8 << 20


class Watch:
    """The highest resident memory of panelind meanwhile."""

    def __init__(self, front):
        self.pid = front.daemon.pid
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def __enter__(self):
        self.first = self.highest = rss_bytes(self.pid)
        self.thread.start()
        return self

    def _look(self):
        while not self.over.wait(0.02):
            self.highest = max(self.highest, rss_bytes(self.pid))

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    @property
    def growth(self):
        return self.highest - self.first


def warm(front):
    """What is allocated once is not growth."""
    assert front.post("/warm", b"x" * (1 << 20)).status == 200
    assert front.get("/warm-down").size == 1 << 20


WARM = {"/warm-down": [["body"], send("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"), ["flood", 1 << 20]]}


@pytest.mark.case("F17")
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_to_a_slow_reader_grows_nothing_and_slows_the_client(front, framing):
    """The case has 100 MiB at 1 MB/s; here the worker does not read at all, then reads 256 MiB as it comes."""
    one = front({**WARM, "/up": [["gate", "read"], ["body"], ["echo"]]}, {"serve.bodyLimit": "none"})
    warm(one)
    pattern = bytes(range(256)) * 4096
    with Watch(one) as watch, one.client() as client:
        begin = b"POST /up HTTP/1.1\r\nHost: h\r\n"
        if framing == "length":
            client.send(begin + b"Content-Length: %d\r\n\r\n" % SIZE)
            piece = pattern
        else:
            client.send(begin + b"Transfer-Encoding: chunked\r\n\r\n")
            piece = b"%x\r\n%b\r\n" % (len(pattern), pattern)
        one.director.at_gate("read")
        count = SIZE // len(pattern)
        blocked = client.send_what_fits(piece * 40, quiet=1)
        assert blocked < 24 << 20, "the client is made to wait"
        assert watch.growth < GROWTH, f"{watch.growth >> 10} KiB more while nobody reads"
        one.director.release("read")
        stream = memoryview(piece * 40)[blocked:]
        client.send(stream)
        for _ in range(count - 40):
            client.send(piece)
        if framing == "chunked":
            client.send(b"0\r\n\r\n")
        own = json.loads(client.answer().body)
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(pattern)
    assert (own["length"], own["sha"]) == (SIZE, digest.hexdigest())
    print(f"grown by {watch.growth >> 10} KiB")
    assert watch.growth <= GROWTH


@pytest.mark.case("F18")
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_download_to_a_slow_reader_grows_nothing_and_blocks_the_worker(front, framing):
    """The case has 1 GiB at 1 MB/s; here the client does not read at all, then reads 256 MiB as it comes."""
    head = {"length": f"Content-Length: {SIZE}\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "close": ""}[framing]
    steps = [["body"], send(f"HTTP/1.1 200 OK\r\n{head}\r\n"), ["flood", SIZE, 65536 if framing == "chunked" else None],
             ["note", "sent"], *([send(b"0\r\n\r\n")] if framing == "chunked" else []), ["close"]]
    one = front({**WARM, "/down": steps})
    warm(one)
    with Watch(one) as watch, one.client(receive_buffer=65536) as client:
        client.get("/down")
        got = client.head()
        # The worker's thread sleeps in its write, and stays there.
        time.sleep(1)
        assert not one.director.find("note", name="sent")
        assert watch.growth < GROWTH, f"{watch.growth >> 10} KiB more while nobody reads"
        digest = hashlib.sha256()
        while (piece := client.piece(got, keep=False)) is not None:
            digest.update(piece)
    assert got.size == SIZE and digest.hexdigest() == flood_digest(SIZE)
    print(f"grown by {watch.growth >> 10} KiB")
    assert watch.growth <= GROWTH


def test_twenty_slow_readers_at_once_grow_little(front):
    """Each may hold what its buffers hold, and no more."""
    size = 16 << 20
    one = front({**WARM, "/down": [["body"], send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"), ["flood", size]]})
    warm(one)
    clients = []
    with Watch(one) as watch:
        for _ in range(20):
            client = Client(one.target, receive_buffer=65536)
            client.get("/down")
            clients.append((client, client.head()))
        time.sleep(1)
        held = watch.growth
        for client, got in clients:
            client.rest(got, keep=False)
            assert got.complete and got.size == size
            client.close()
    print(f"held {held >> 10} KiB")
    assert held < 20 << 20


def test_an_idle_front_makes_no_wake_up(front):
    """Connections that say nothing have no timers of their own."""
    one = front(settings={"probe.readiness.http": "/ready", "probe.readiness.period": "60s"})
    clients = [one.client() for _ in range(10)]
    for client in clients:
        client.get("/x")
        assert client.answer().status == 200
    # The connections to the worker are given up after 3 s.
    wait_until(lambda: not [c for c in one.director.find("open") if not one.director.find("closed", conn=c["conn"])],
               "the pooled connections are closed", timeout=15)
    time.sleep(0.5)

    def switches():
        total = 0
        for task in os.listdir(f"/proc/{one.daemon.pid}/task"):
            with open(f"/proc/{one.daemon.pid}/task/{task}/status") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
        return total

    before = switches()
    time.sleep(3)
    assert switches() - before <= 1
    for client in clients:
        client.close()
