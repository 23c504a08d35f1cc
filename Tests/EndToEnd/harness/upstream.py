# upstream.py
# A worker behind the front that does exactly what the test wrote into its script, and tells the test every byte it saw.
# It runs as a process of its own, with the standard library only. Read director.py, the test's side, next.
"""upstream.py (--uds PATH | --port N) --control SOCKET --script FILE

The script is JSON: {"rules": {KEY: [STEP, ...]}, "boot": {...}, "term": "drain" | "ignore" | "die"}, read afresh for every request.
KEY is a target, a path without its query, or "*"; before it may stand "METHOD " and before that "gN " for generation N only.
The most exact key wins. Bytes are latin-1 texts.

    ["body"]            read the request's body to its end      ["echo"]      answer with what was asked, as JSON
    ["send", TEXT]      these bytes                             ["tunnel"]    send back all that comes, until its end
    ["flood", N, SIZE]  N bytes of a pattern; as chunks if SIZE ["gate", X]   wait until the test releases X; "TERM": the signal
    ["shut"] ["close"] ["reset"]                                ["hang"]      wait for the other side's end
    ["repeat", N, STEPS]                                        ["note", X]   tell the test
    ["pause", SECONDS]  a duration of work, not a wait          ["die"]       SIGKILL to itself
    ["take", N]         read N bytes without looking at them
"""

import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import threading
import time

# Bytes of one connection that are told to the test; more are only counted.
TOLD = 256 << 10
PATTERN = bytes(range(256)) * 256


def readable(*files):
    """Waits for one of them; select(2) does not know descriptors beyond 1023."""
    poll = select.poll()
    for one in files:
        poll.register(one, select.POLLIN)
    found = {number for number, _ in poll.poll()}
    return [one for one in files if (one if isinstance(one, int) else one.fileno()) in found]


class Over(Exception):
    """This connection is done."""


class Control:
    """The way to the test."""

    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()
        self.socket = self.connect({"hello": os.getpid(), "generation": GENERATION})
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        """Without the test there is nothing to do."""
        self.socket.recv(1)
        os._exit(1)

    def connect(self, first):
        one = socket.socket(socket.AF_UNIX)
        one.connect(self.path)
        one.sendall(json.dumps(first).encode() + b"\n")
        return one

    def tell(self, kind, **fields):
        line = json.dumps({"kind": kind, "t": time.monotonic(), **fields}).encode() + b"\n"
        try:
            with self.lock:
                self.socket.sendall(line)
        except OSError:
            # The test is over.
            os._exit(1)


class Script:
    """The script file; looked at again for every request."""

    def __init__(self, path):
        self.path = path
        self.stamp = None

    def read(self):
        found = os.stat(self.path)
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp != self.stamp:
            with open(self.path) as file:
                self.value = json.load(file)
            self.stamp = stamp
        return self.value

    def steps(self, method, target):
        rules = self.read()["rules"]
        for own in (f"g{GENERATION} ", ""):
            for verb in (f"{method} ", ""):
                for what in (target, target.split("?")[0], "*"):
                    found = rules.get(own + verb + what)
                    if found is not None:
                        return found
        return [["body"], ["echo"]]


class Connection:
    def __init__(self, sock, number, control, script):
        self.sock, self.control, self.script = sock, control, script
        self.id = f"{os.getpid()}:{number}"
        self.buffer = b""
        self.ended = False
        self.told_end = False
        self.told = 0
        self.busy = False

    def tell(self, kind, **fields):
        self.control.tell(kind, conn=self.id, **fields)

    def run(self):
        self.tell("open")
        try:
            while self.exchange():
                pass
        except Over:
            pass
        except ConnectionError as error:
            self.tell("reset", why=type(error).__name__)
        except OSError as error:
            self.tell("reset", why=str(error))
        finally:
            self.sock.close()
            self.tell("closed")
            CONNECTIONS.discard(self)
            leave_if_done()

    # -- reading

    def fill(self):
        """Takes what comes; False at the end."""
        if self.ended:
            return False
        piece = self.sock.recv(262144)
        if not piece:
            self.ended = True
            if not self.told_end:
                self.tell("eof")
            return False
        if self.told < TOLD:
            self.tell("in", data=piece[: TOLD - self.told].decode("latin-1"))
        self.told += len(piece)
        self.buffer += piece
        return True

    def take(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                self.tell("partial", data=self.buffer[:1000].decode("latin-1"))
                raise Over
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def line(self):
        while b"\n" not in self.buffer:
            if len(self.buffer) > 1 << 20 or not self.fill():
                self.tell("partial", data=self.buffer[:1000].decode("latin-1"))
                raise Over
        line, _, self.buffer = self.buffer.partition(b"\n")
        if not line.endswith(b"\r"):
            self.bad("a bare LF")
        return line[:-1]

    def bad(self, why):
        """What a front must never send."""
        self.tell("bad", why=why, data=self.buffer[:1000].decode("latin-1"))
        raise Over

    def exchange(self):
        while b"\r\n\r\n" not in self.buffer:
            self.busy = bool(self.buffer)
            if TERMINATED and not self.buffer and TERM_MODE == "drain":
                return False
            if not self.buffer:
                # Idle: the signal ends it too.
                if self.sock not in readable(self.sock, TERM_PIPE) and TERM_MODE == "drain":
                    return False
            if not self.fill():
                if self.buffer:
                    self.tell("partial", data=self.buffer[:1000].decode("latin-1"))
                return False
        self.busy = True
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.parse(head)
        self.tell("head", data=head.decode("latin-1"), method=self.method, target=self.target)
        for step in self.script.steps(self.method, self.target):
            self.perform(step)
        if not self.upgraded:
            self.read_body()
        self.busy = False
        return not self.upgraded and not self.closes

    def parse(self, head):
        first, *lines = head.split(b"\r\n")
        words = first.decode("latin-1").split(" ")
        if len(words) != 3 or {10, 13} & set(b"".join([first, *lines])):
            self.bad("a head that is none")
        self.method, self.target, self.version = words
        self.headers = []
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or not name or name != name.strip():
                self.bad(f"a field that is none: {line!r}")
            self.headers.append([name, value.strip(" \t")])

        def values(name):
            return [value for key, value in self.headers if key.lower() == name]

        lengths, codings = values("content-length"), values("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            self.bad("framing that is ambiguous")
        self.chunked = codings == ["chunked"]
        if codings and not self.chunked:
            self.bad(f"coding {codings}")
        self.length = int(lengths[0]) if lengths else 0
        self.closes = any("close" in value.lower() for value in values("connection"))
        self.read = not self.chunked and not self.length
        self.body, self.total, self.digest, self.trailers = b"", 0, hashlib.sha256(), []
        self.upgraded = False

    def eat(self, data):
        self.total += len(data)
        self.digest.update(data)
        if len(self.body) < TOLD:
            self.body += data[: TOLD - len(self.body)]

    def eat_count(self, count):
        while count:
            if not self.buffer and not self.fill():
                self.tell("partial", data="", total=self.total)
                raise Over
            data, self.buffer = self.buffer[:count], self.buffer[count:]
            self.eat(data)
            count -= len(data)

    def read_body(self):
        if self.read:
            return
        self.read = True
        if self.chunked:
            while True:
                text = self.line()
                try:
                    size = int(text.split(b";")[0], 16)
                except ValueError:
                    self.bad(f"chunk size {text!r}")
                if b";" in text:
                    self.tell("extension", data=text.decode("latin-1"))
                if size == 0:
                    break
                self.eat_count(size)
                if self.take(2) != b"\r\n":
                    self.bad("a chunk without its end")
            while line := self.line():
                name, _, value = line.decode("latin-1").partition(":")
                self.trailers.append([name, value.strip()])
        else:
            self.eat_count(self.length)
        self.tell("body", data=self.body.decode("latin-1"), total=self.total, sha=self.digest.hexdigest(),
                  trailers=self.trailers, target=self.target)

    # -- steps

    def perform(self, step):
        name, *arguments = step
        getattr(self, "do_" + name)(*arguments)

    def do_body(self):
        self.read_body()

    def do_send(self, text):
        self.sock.sendall(text.encode("latin-1"))

    def do_echo(self):
        own = {"method": self.method, "target": self.target, "version": self.version, "headers": self.headers,
               "length": self.total, "sha": self.digest.hexdigest(), "trailers": self.trailers,
               "generation": GENERATION, "pid": os.getpid()}
        body = b"" if self.method == "HEAD" else json.dumps(own).encode()
        head = (f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(json.dumps(own))}\r\n"
                "Server: upstream\r\n\r\n")
        self.sock.sendall(head.encode() + body)

    def do_tunnel(self):
        self.upgraded = True
        while True:
            if self.buffer:
                data, self.buffer = self.buffer, b""
                self.sock.sendall(data)
            ready = readable(self.sock, *([] if TERMINATED else [TERM_PIPE]))
            if self.sock in ready and not self.fill():
                self.sock.shutdown(socket.SHUT_WR)
                return
            if TERM_PIPE in ready and TERM_MODE == "drain":
                # What an application does with its open WebSockets.
                self.sock.sendall(b"goodbye")
                raise Over

    def do_flood(self, count, size=None):
        """`count` bytes of the pattern, in one piece of the offset each, so that the digest can be foretold."""
        sent = 0
        while sent < count:
            piece = PATTERN[: min(size or len(PATTERN), count - sent)]
            self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if size else piece)
            sent += len(piece)

    def do_gate(self, name):
        self.tell("gate", name=name)
        if name == "TERM":
            gate = TERM_PIPE
        else:
            gate = self.control.connect({"gate": name})
        # The other side's end is seen without reading, so that backpressure stays what it is.
        poll = select.poll()
        poll.register(gate, select.POLLIN)
        if not self.ended and not self.told_end:
            poll.register(self.sock, select.POLLRDHUP)
        while True:
            found = dict(poll.poll())
            if self.sock.fileno() in found:
                poll.unregister(self.sock)
                self.told_end = True
                error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self.tell("reset", why=os.strerror(error)) if error else self.tell("eof")
            if (gate if isinstance(gate, int) else gate.fileno()) in found:
                if name != "TERM":
                    gate.close()
                self.tell("passed", name=name)
                return

    def do_shut(self):
        self.sock.shutdown(socket.SHUT_WR)

    def do_close(self):
        # Not a reset: what has come is taken first.
        self.sock.setblocking(False)
        try:
            while self.fill():
                pass
        except BlockingIOError:
            pass
        raise Over

    def do_reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Over

    def do_hang(self):
        self.upgraded = True
        while self.fill():
            self.buffer = b""

    def do_take(self, count):
        self.take(count)

    def do_pause(self, seconds):
        time.sleep(seconds)

    def do_repeat(self, count, steps):
        while count != 0:
            for step in steps:
                self.perform(step)
            count -= 1

    def do_note(self, name):
        self.tell("note", name=name)

    def do_die(self):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


CONNECTIONS = set()
# "3" and a token of panelind's run behind it.
GENERATION = int((re.match(r"\d+", os.environ.get("PANELIND_GENERATION", "")) or ["0"])[0])
TERM_PIPE, TERM_WRITE = os.pipe()
TERM_MODE = "drain"
TERMINATED = False
# The test has been told of it: the main thread does so, and before that nobody leaves.
TOLD_TERM = False


def leave_if_done():
    if TOLD_TERM and TERM_MODE == "drain" and not any(one.busy for one in list(CONNECTIONS)):
        os._exit(0)


def main():
    global TERM_MODE, TERMINATED, TOLD_TERM
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    script = Script(arguments["--script"])
    boot = script.read().get("boot", {})
    TERM_MODE = script.read().get("term", "drain")
    terminated = threading.Event()

    def on_term(*_):
        global TERMINATED
        TERMINATED = True
        if not terminated.is_set():
            terminated.set()
            os.write(TERM_WRITE, b"x")

    signal.signal(signal.SIGTERM, signal.SIG_DFL if TERM_MODE == "die" else on_term)
    control = Control(arguments["--control"])
    control.tell("environment", value={key: value for key, value in os.environ.items()}, arguments=sys.argv[1:])
    own = boot.get(str(GENERATION), boot.get("*", {}))
    if "gate" in own:
        if TERM_PIPE in readable(control.connect({"gate": own["gate"]}), TERM_PIPE) and TERM_MODE == "drain":
            os._exit(0)
    if "seconds" in own:
        time.sleep(own["seconds"])
    if "exit" in own:
        os._exit(own["exit"])
    if "--uds" in arguments:
        listener = socket.socket(socket.AF_UNIX)
        try:
            os.unlink(arguments["--uds"])
        except FileNotFoundError:
            pass
        listener.bind(arguments["--uds"])
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(arguments["--port"])))
    listener.listen(1024)
    control.tell("listening")
    threading.stack_size(256 << 10)
    number = 0
    while True:
        ready = readable(listener, *([] if TOLD_TERM else [TERM_PIPE]))
        if TERM_PIPE in ready:
            control.tell("terminated")
            TOLD_TERM = True
            if TERM_MODE == "drain":
                break
            continue
        sock, _ = listener.accept()
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number += 1
        one = Connection(sock, number, control, script)
        CONNECTIONS.add(one)
        threading.Thread(target=one.run, daemon=True).start()
    # As a good server does: no new connections, those that are busy end, the idle ones are closed.
    listener.close()
    leave_if_done()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
