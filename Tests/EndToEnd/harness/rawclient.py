# rawclient.py
# A client that sends exactly the bytes it is given and reads answers strictly: what is not HTTP/1.1 to the letter is an error.
# Read network.py first; front.py uses it.

import errno
import fcntl
import re
import select
import socket
import struct
import termios
import time
from dataclasses import dataclass, field

from .waiting import PATIENCE, TimedOut, wait_until

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d) ([\t -\xff]*)")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)


class NotHTTP(AssertionError):
    """The answer breaks RFC 9112."""


class Truncated(AssertionError):
    """The connection ended inside an answer, or before it; `answer` is what had come, or None."""

    def __init__(self, how, answer=None):
        super().__init__(f"{how} {'before an answer' if answer is None else f'inside of {answer!r}'}")
        self.how, self.answer = how, answer


@dataclass
class Answer:
    """One final answer, with the interim ones before it."""

    status: int
    reason: bytes
    headers: list
    minor: int
    framing: str
    interim: list = field(default_factory=list)
    body: bytes = b""
    trailers: list = field(default_factory=list)
    complete: bool = False
    # (instant, bytes) of each piece of the body as it came.
    pieces: list = field(default_factory=list)
    length: int | None = None
    size: int = 0

    def values(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name):
        found = self.values(name)
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def has(self, name):
        return bool(self.values(name))

    @property
    def closes(self):
        return any("close" in value.lower() for value in self.values("connection"))

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.framing} {len(self.body)} bytes {self.body[:200]!r}>"


class Client:
    """One connection. `target`: a port, (host, port), or a unix socket's path."""

    def __init__(self, target, timeout=PATIENCE, receive_buffer=None, source=None):
        if isinstance(target, int):
            target = ("127.0.0.1", target)
        if isinstance(target, tuple):
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        else:
            family, target = socket.AF_UNIX, str(target)
        self.socket = socket.socket(family)
        self.timeout = timeout
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind(source)
        self.socket.connect(target)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.end = None
        self.refused = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- sending

    def send(self, data):
        """All of it; False if the other side no longer takes it."""
        data = data.encode("latin-1") if isinstance(data, str) else data
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError) as error:
            self.refused = error
            return False

    def send_what_fits(self, data, quiet=0.5):
        """As much as is taken until nothing is for `quiet` seconds; how much that was."""
        sent = 0
        view = memoryview(data)
        self.socket.setblocking(False)
        try:
            while sent < len(data) and self._is(select.POLLOUT, quiet):
                sent += self.socket.send(view[sent : sent + 65536])
        except (BrokenPipeError, ConnectionResetError) as error:
            self.refused = error
        finally:
            self.socket.settimeout(self.timeout)
        return sent

    def untaken(self):
        """Bytes sent that the other side has not read (unix sockets) or acknowledged (TCP): SIOCOUTQ of tcp(7)."""
        value = fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0\0\0\0")
        return struct.unpack("i", value)[0]

    def get(self, path="/", *lines, method="GET", host="front.test", version="1.1"):
        """Sends a plain request."""
        head = "\r\n".join([f"{method} {path} HTTP/{version}", f"Host: {host}", *lines, "", ""])
        return self.send(head.encode("latin-1"))

    def post(self, path, body, *lines, method="POST"):
        body = body.encode() if isinstance(body, str) else body
        return self.send(request(path, body, *lines, method=method))

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()

    # -- receiving

    def fill(self, deadline=None):
        """Takes what comes; False at the end, which is then in `end`."""
        if self.end:
            return False
        left = self.timeout if deadline is None else deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            piece = self.socket.recv(262144)
        except TimeoutError:
            raise TimedOut(f"nothing came for {self.timeout:g} s; before: {self.buffer[-300:]!r}") from None
        except ConnectionResetError:
            self.end = "reset"
            return False
        finally:
            self.socket.settimeout(self.timeout)
        if not piece:
            self.end = "eof"
            return False
        self.buffer += piece
        return True

    def is_silent(self, seconds=0.2):
        """Nothing comes, not even the end, for so long."""
        return not self.buffer and not self._is(select.POLLIN, seconds)

    def _is(self, event, seconds):
        """Whether poll(2) says so within this time; select(2) does not know descriptors beyond 1023."""
        poll = select.poll()
        poll.register(self.socket, event)
        return bool(poll.poll(seconds * 1000))

    def _line(self, what, limit=1 << 20):
        while b"\n" not in self.buffer:
            if len(self.buffer) > limit:
                raise NotHTTP(f"{what} without an end: {self.buffer[:200]!r}")
            if not self.fill():
                return None
        line, _, self.buffer = self.buffer.partition(b"\n")
        if not line.endswith(b"\r"):
            raise NotHTTP(f"a bare LF in {what}: {line!r}")
        line = line[:-1]
        if b"\r" in line or b"\0" in line:
            raise NotHTTP(f"CR or NUL in {what}: {line!r}")
        return line

    def _fields(self, answer):
        found = []
        while True:
            line = self._line("a field")
            if line is None:
                raise Truncated(self.end, answer)
            if not line:
                return found
            match = FIELD.fullmatch(line)
            if not match:
                raise NotHTTP(f"not a field: {line!r}")
            found.append((match[1].decode(), match[2].decode("latin-1")))

    def head(self, method="GET"):
        """The head of the next final answer; its body is then read with `piece` or `rest`."""
        interim = []
        while True:
            line = self._line("a status line")
            if line is None:
                raise Truncated(self.end, None if not self.buffer else self.buffer)
            match = STATUS_LINE.fullmatch(line)
            if not match:
                raise NotHTTP(f"not a status line: {line!r}")
            status = int(match[2])
            headers = self._fields(line)
            answer = Answer(status, match[3], headers, int(match[1]), "none", interim)
            if status >= 200 or status == 101:
                break
            interim.append((status, headers))
        self._frame(answer, method)
        return answer

    @staticmethod
    def _frame(answer, method):
        lengths, codings = answer.values("content-length"), answer.values("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise NotHTTP(f"ambiguous framing: {answer.headers}")
        if lengths and not re.fullmatch(r"\d+", lengths[0]):
            raise NotHTTP(f"Content-Length: {lengths[0]}")
        if codings and codings[0].lower() != "chunked":
            raise NotHTTP(f"Transfer-Encoding: {codings[0]}")
        for name in ("date", "server", "content-type"):
            if len(answer.values(name)) > 1:
                raise NotHTTP(f"{name} twice: {answer.headers}")
        answer.length = int(lengths[0]) if lengths else None
        if answer.status in (101, 204) and (lengths or codings):
            raise NotHTTP(f"framing in a {answer.status}")
        if method == "HEAD" or answer.status in (101, 204, 304):
            answer.complete = True
        elif codings:
            if answer.minor == 0:
                raise NotHTTP("chunked in HTTP/1.0")
            answer.framing = "chunked"
        elif lengths:
            answer.framing = "length"
            answer.complete = answer.length == 0
        else:
            answer.framing = "close"

    def piece(self, answer, keep=True):
        """The next bytes of the body, or None at its end."""
        if answer.complete:
            return None
        data = self._piece(answer)
        if data is not None:
            answer.size += len(data)
            if keep:
                answer.body += data
                answer.pieces.append((time.monotonic(), data))
        return data

    def _piece(self, answer):
        if answer.framing == "chunked":
            line = self._line("a chunk size")
            if line is None:
                raise Truncated(self.end, answer)
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", line):
                raise NotHTTP(f"chunk size {line!r}")
            size = int(line, 16)
            if size == 0:
                answer.trailers = self._fields(answer)
                answer.complete = True
                return None
            while len(self.buffer) < size + 2:
                if not self.fill():
                    # What has come of the chunk has come.
                    answer.body += self.buffer[:size]
                    raise Truncated(self.end, answer)
            data, end, self.buffer = self.buffer[:size], self.buffer[size : size + 2], self.buffer[size + 2 :]
            if end != b"\r\n":
                raise NotHTTP(f"a chunk without its end: {end!r}")
            return data
        if not self.buffer and not self.fill():
            if answer.framing == "close" and self.end == "eof":
                answer.complete = True
                return None
            raise Truncated(self.end, answer)
        limit = len(self.buffer) if answer.framing == "close" else answer.length - answer.size
        data, self.buffer = self.buffer[:limit], self.buffer[limit:]
        if answer.framing == "length" and answer.size + len(data) == answer.length:
            answer.complete = True
        return data

    def rest(self, answer, keep=True):
        """Reads the body to its end."""
        while self.piece(answer, keep) is not None:
            pass
        return answer

    def answer(self, method="GET"):
        """The next whole answer."""
        return self.rest(self.head(method))

    def until_body(self, answer, text):
        """Reads on until the body contains this."""
        text = text.encode() if isinstance(text, str) else text
        while text not in answer.body:
            if self.piece(answer) is None:
                raise AssertionError(f"the answer ended without {text!r}: {answer!r}")
        return answer

    def read(self, count):
        """Raw bytes, of a tunnel."""
        while len(self.buffer) < count:
            if not self.fill():
                raise Truncated(self.end, self.buffer)
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def until_end(self, within=PATIENCE):
        """All that still comes, and how it ended: "eof" or "reset"."""
        deadline = time.monotonic() + within
        while self.fill(deadline):
            pass
        data, self.buffer = self.buffer, b""
        return data, self.end

    def ends(self, within=PATIENCE):
        """The connection ends, and nothing comes before that; returns "eof" or "reset"."""
        data, how = self.until_end(within)
        assert not data, f"more came before the end: {data[:300]!r}"
        return how


def request(path="/", body=None, *lines, method=None, host="front.test", version="1.1"):
    """The bytes of a plain request."""
    method = method or ("GET" if body is None else "POST")
    own = [] if body is None else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"{method} {path} HTTP/{version}", f"Host: {host}", *own, *lines, "", ""])
    return head.encode("latin-1") + (body or b"")


def exchange(target, data, method="GET", **options):
    """One request on a connection of its own."""
    with Client(target, **options) as client:
        client.send(data)
        return client.answer(method)


def fetch(target, path="/", *lines, **options):
    return exchange(target, request(path, None, "Connection: close", *lines), **options)


def refused(target):
    """Nobody listens there."""
    try:
        Client(target, timeout=5).close()
        return False
    except (ConnectionRefusedError, FileNotFoundError):
        return True


def all_taken(clients, what="what was sent is read"):
    """Waits until the other side has read everything from these unix sockets."""
    wait_until(lambda: all(one.untaken() == 0 for one in clients), what, every=0.001)


def reset_by(error):
    return isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE)
