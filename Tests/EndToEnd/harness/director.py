# director.py
# The test's side of upstream.py: writes its script, opens its gates, and keeps what it saw, over all its generations.
# Read upstream.py for the steps, front.py for how both stand behind a panelind.

import base64
import fcntl
import hashlib
import json
import pathlib
import select
import shutil
import socket
import struct
import sys
import tempfile
import termios
import threading
import time
from dataclasses import dataclass, field

from .waiting import PATIENCE, TimedOut, wait_until

HERE = pathlib.Path(__file__).resolve().parent


@dataclass
class Request:
    """A request as the worker saw it; `body` is None until it was read to its end."""

    conn: str
    generation: int
    method: str
    target: str
    head: bytes
    t: float
    body: dict | None = None
    headers: list = field(default_factory=list)

    def values(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name):
        found = self.values(name)
        assert len(found) == 1, f"{name}: {found} in {self.head!r}"
        return found[0]

    def has(self, name):
        return bool(self.values(name))


class Director:
    """Where upstreams report. Everything that comes is in `events`, in the order of its coming."""

    def __init__(self):
        # Short, because a socket's path is.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="pu-", dir="/tmp"))
        self.path = self.directory / "c"
        self.script = self.directory / "script"
        self.events = []
        self.news = threading.Condition()
        self.released = set()
        self.gates = {}
        self._rules, self._more = {}, {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(1024)
        self._sockets = set()
        self.write({})
        threading.Thread(target=self._accept, daemon=True).start()

    def command(self, where="--uds", address="{socket}"):
        """The worker's command list."""
        python = [sys.executable, "-S", "-E", str(HERE / "upstream.py")]
        return [*python, where, address, "--control", str(self.path), "--script", str(self.script)]

    def write(self, rules=None, **more):
        """The whole script anew: rules, and boot and term where given."""
        if rules is not None:
            self._rules = {key: steps for key, steps in rules.items()}
        self._more.update(more)
        new = self.directory / "new"
        new.write_text(json.dumps({"rules": self._rules, **self._more}))
        new.rename(self.script)

    def rule(self, key, *steps):
        """One more rule."""
        self.write({**self._rules, key: list(steps)})

    def close(self):
        self._listener.close()
        with self.news:
            sockets = list(self._sockets)
        for one in sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        shutil.rmtree(self.directory, ignore_errors=True)

    def _accept(self):
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            with self.news:
                self._sockets.add(one)
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one):
        """Reads one process's reports. Taken off the socket and written down under one lock: see `_settle`."""
        process, rest = {}, b""
        poll = select.poll()
        poll.register(one, select.POLLIN)
        try:
            while True:
                poll.poll()
                with self.news:
                    piece = one.recv(1 << 20)
                    *whole, rest = (rest + piece).split(b"\n")
                    for line in whole:
                        self._take(one, json.loads(line), process)
                    self.news.notify_all()
                    if not piece:
                        break
        except (OSError, ValueError):
            pass
        finally:
            with self.news:
                self._sockets.discard(one)
                self.news.notify_all()
            one.close()

    def _take(self, one, event, process):
        if "gate" in event:
            if event["gate"] in self.released:
                one.sendall(b"x")
            else:
                # Until the waiter goes.
                self.gates.setdefault(event["gate"], []).append(one)
            return
        if "hello" in event:
            process.update(pid=event["hello"], generation=event["generation"])
            event = {"kind": "hello", "t": time.monotonic()}
        self.events.append({**event, **process})

    def _settle(self):
        """Under the lock: all that the upstreams have reported so far is in `events`.

        They report before they answer, so that whoever has seen an answer finds its request.
        """
        while any(_unread(one) for one in self._sockets):
            self.news.wait(0.01)

    # -- what the test does

    def release(self, *names):
        """Opens gates, for those that wait and for all to come."""
        with self.news:
            self.released.update(names)
            waiting = [one for name in names for one in self.gates.pop(name, [])]
            for one in waiting:
                try:
                    one.sendall(b"x")
                except OSError:
                    pass

    def forget(self, *names):
        """Shuts gates again."""
        with self.news:
            self.released.difference_update(names)

    # -- what it saw

    def _matching(self, kind, fields):
        return [
            event for event in self.events
            if event["kind"] == kind and all(event.get(key) == value for key, value in fields.items())
        ]

    def find(self, kind, **fields):
        with self.news:
            self._settle()
            return self._matching(kind, fields)

    def wait(self, kind, count=1, timeout=PATIENCE, **fields):
        """The `count`-th event of this kind with these fields."""
        end = time.monotonic() + timeout
        with self.news:
            while True:
                found = self._matching(kind, fields)
                if len(found) >= count:
                    return found[count - 1]
                left = end - time.monotonic()
                if left <= 0:
                    last = [f"{one['kind']} {one.get('target', one.get('name', ''))}" for one in self.events[-12:]]
                    raise TimedOut(f"the worker did not see: {kind} {fields} number {count}; last: {last}")
                self.news.wait(left)

    def wait_end(self, conn, timeout=PATIENCE):
        """Waits until the front has left this connection; returns "eof" or "reset", and when."""
        wait_until(lambda: self.find("eof", conn=conn) or self.find("reset", conn=conn),
                   f"the front left {conn}", timeout)
        event = (self.find("eof", conn=conn) + self.find("reset", conn=conn))[0]
        return event["kind"], event["t"]

    def at_gate(self, name, count=1, timeout=PATIENCE):
        """Waits until the upstream has come to this gate `count` times."""
        return self.wait("gate", count, timeout, name=name)

    def requests(self, target=None, probes=False, generation=None):
        """The requests whose head came; panelind's own questions only if asked for."""
        found, latest = [], {}
        with self.news:
            self._settle()
            events = list(self.events)
        for event in events:
            if event["kind"] == "head":
                lines = event["data"].split("\r\n")[1:]
                headers = [tuple(part.strip(" \t") for part in line.split(":", 1)) for line in lines]
                one = Request(event["conn"], event["generation"], event["method"], event["target"],
                              event["data"].encode("latin-1"), event["t"], None, headers)
                latest[event["conn"]] = one
                found.append(one)
            elif event["kind"] == "body":
                latest[event["conn"]].body = event
        return [
            one for one in found
            if (probes or one.target != "/ready") and target in (None, one.target)
            and generation in (None, one.generation)
        ]

    def request(self, target):
        """The only one with this target."""
        found = self.requests(target, probes=True)
        assert len(found) == 1, f"{len(found)} requests for {target}"
        return found[0]

    def wait_request(self, target, count=1, timeout=PATIENCE):
        """The `count`-th request with this target, as soon as its head is there."""
        self.wait("head", count, timeout, target=target)
        return self.requests(target, probes=True)[count - 1]

    def bytes_by_connection(self):
        """What came on each connection, but for those that carried panelind's own question only."""
        found = {}
        with self.news:
            self._settle()
            events = list(self.events)
        for event in events:
            if event["kind"] == "in":
                found[event["conn"]] = found.get(event["conn"], b"") + event["data"].encode("latin-1")
        return {conn: data for conn, data in found.items() if data.count(b" /ready HTTP/") != data.count(b" HTTP/1.")}

    def all_bytes(self):
        return b"\n--\n".join(self.bytes_by_connection().values())

    def nothing_bad(self):
        """The front never sent what is no HTTP."""
        bad = self.find("bad")
        assert not bad, bad
        extensions = self.find("extension")
        assert not extensions, extensions


def _unread(one):
    try:
        return struct.unpack("i", fcntl.ioctl(one, termios.FIONREAD, b"\0\0\0\0"))[0]
    except (OSError, ValueError):
        return 0


# -- steps


def text(data):
    return data if isinstance(data, str) else data.decode("latin-1")


def send(data):
    return ["send", text(data)]


def answer(status=200, body=b"ok", *lines, reason="OK"):
    """A whole answer with a length: one step."""
    body = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", *lines, "", ""])
    return send(head.encode("latin-1") + body)


def chunk(data):
    data = data.encode() if isinstance(data, str) else data
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked_head(*lines, status="200 OK"):
    return send("\r\n".join([f"HTTP/1.1 {status}", "Transfer-Encoding: chunked", *lines, "", ""]))


def sse_head():
    return chunked_head("Content-Type: text/event-stream", "Cache-Control: no-cache")


WEBSOCKET_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def websocket_accept(key=WEBSOCKET_KEY):
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    return base64.b64encode(digest).decode()


def upgraded(protocol="websocket", *lines):
    own = [f"Sec-WebSocket-Accept: {websocket_accept()}"] if protocol == "websocket" else []
    head = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {protocol}", *own, *lines, "", ""]
    return send("\r\n".join(head))


def flood_digest(count, size=65536):
    """The SHA-256 of what the step `flood` sends."""
    pattern = bytes(range(256)) * 256
    digest = hashlib.sha256()
    while count > 0:
        piece = pattern[: min(size, count)]
        digest.update(piece)
        count -= len(piece)
    return digest.hexdigest()
