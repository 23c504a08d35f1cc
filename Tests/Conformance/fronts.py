# fronts.py
# The cases about requests: held over a crash, made again or not, drained, refused, streamed.
# A proxy's worker is kept by the kit, which starts it half a second after its death. Read cases.py first.

import socket
import threading
import time

from harness import free_port, http, raw_http
from cases import answers, case, expect, records, until, up
from contenders import Want


def front(bed, *steps):
    port = free_port()
    run = bed.start(Want([up(bed), *steps, "listen 127.0.0.1:WORKER"], front=port, delay="500ms"))
    until(lambda: answers(port, "/pid"), "the front does not serve")
    return run, port


def worker(bed):
    return records(bed / "up")[-1][0]


class Later(threading.Thread):
    """A request beside the test."""

    def __init__(self, port, path, **options):
        super().__init__(daemon=True)
        self.port, self.path, self.options, self.got = port, path, options, None
        self.start()

    def run(self):
        try:
            self.got = http(self.port, self.path, timeout=25, **self.options).status
        except OSError as error:
            self.got = f"{type(error).__name__}"

    def result(self):
        self.join(30)
        return self.got


def crash(port):
    """The worker ends within this request, which is a POST: nobody makes it again."""
    try:
        return http(port, "/do", "POST", b"signal-self KILL", timeout=25).status
    except OSError as error:
        return type(error).__name__


@case("Front", "requests that come while the worker restarts wait and are answered", "front hold")
def held(bed):
    _, port = front(bed)
    crash(port)
    asked = [Later(port, "/pid") for _ in range(10)]
    got = [one.result() for one in asked]
    expect(got == [200] * 10, f"answers {', '.join(sorted(set(map(str, got))))}")


@case("Front", "a GET whose worker dies before answering is made again on the next", "front hold")
def get_again(bed):
    _, port = front(bed)
    asked = Later(port, "/slow?ms=1200")
    time.sleep(0.5)
    crash(port)
    got = asked.result()
    expect(got == 200, f"answer {got}")


@case("Front", "a POST whose worker dies reaches no worker twice", "front")
def post_once(bed):
    _, port = front(bed)
    # Each worker that it reaches dies of it.
    got = http(port, "/crash", "POST", b"x", timeout=25).status
    until(lambda: answers(port, "/pid"), "the front does not serve", 30)
    time.sleep(1)
    count = len(records(bed / "up")) - 1
    expect(count == 1 and got in (502, 503, 504), f"it reached {count} workers, answer {got}")


@case("Front", "a stop lets a request in flight end, and then ends", "front")
def drained(bed):
    run, port = front(bed)
    asked = Later(port, "/slow?ms=1500")
    time.sleep(0.5)
    code, took = run.stop()
    expect(asked.result() == 200, f"answer {asked.result()}")
    expect(code is not None and took < 9, f"after {took:.1f} s")


@case("Front", "a request with Content-Length and Transfer-Encoding, or two lengths, is refused, not repaired", "front")
def framing(bed):
    _, port = front(bed)
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
    for what, lines in [("length and coding", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                        ("two lengths", b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello")]:
        status = raw_http(port, head + lines, 5)[:12]
        expect(status.endswith(b" 400"), f"{what}: {status.decode(errors='replace')}")


@case("Front", "server-sent events come as they are sent", "front")
def events(bed):
    _, port = front(bed)
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET /stream?n=5&ms=600 HTTP/1.1\r\nHost: h\r\n\r\n")
        begin, data = time.monotonic(), b""
        while data.count(b"data:") < 2:
            piece = connection.recv(65536)
            expect(piece, "it ended")
            data += piece
        expect(time.monotonic() - begin < 2.2, f"the second after {time.monotonic() - begin:.1f} s")


@case("Front", "after an upgrade bytes pass both ways", "front")
def upgrade(bed):
    _, port = front(bed)
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            expect(piece, "it ended")
            head += piece
        expect(b" 101 " in head.split(b"\r\n")[0], head.split(b"\r\n")[0].decode(errors="replace"))
        connection.sendall(b"both ways")
        got = head.split(b"\r\n\r\n", 1)[1]
        while len(got) < 9:
            piece = connection.recv(100)
            expect(piece, "it ended")
            got += piece
        expect(got == b"both ways", f"{got}")
