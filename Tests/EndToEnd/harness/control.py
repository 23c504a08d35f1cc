# control.py
# The control socket from outside: plain HTTP over a unix socket, and the commands that use it.
# Read daemon.py first.

import http.client
import json
import os
import socket
import subprocess

from .daemon import binaries
from .waiting import PATIENCE


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path, timeout=PATIENCE):
        super().__init__("panelind", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Control:
    """The control socket of one daemon."""

    def __init__(self, path):
        self.path = path

    def ask(self, target, method="GET", headers=None, timeout=PATIENCE):
        """Status, headers and body of one answer."""
        connection = UnixConnection(self.path, timeout)
        try:
            connection.request(method, target, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, target):
        """The JSON of a 200."""
        status, headers, body = self.ask(target)
        assert status == 200, (status, body)
        assert headers["Content-Type"] == "application/json"
        return json.loads(body)

    def post(self, target, timeout=PATIENCE):
        """Status and JSON of an operation."""
        status, headers, body = self.ask(target, "POST", timeout=timeout)
        wanted = "application/json" if status == 200 else "application/problem+json"
        assert headers["Content-Type"] == wanted
        return status, json.loads(body)

    def status(self):
        return self.get("/v1/status")

    def why(self):
        return self.get("/v1/why")

    def follow(self, target, headers=None):
        """An open connection and its answer, whose body goes on."""
        connection = UnixConnection(self.path)
        connection.request("GET", target, headers=headers or {})
        return connection, connection.getresponse()


def sse(answer, count):
    """The first `count` events of a stream: dicts of `id`, `event`, `data`."""
    events, current = [], {}
    while len(events) < count:
        raw = answer.readline()
        assert raw, "the stream has ended"
        line = raw.decode().rstrip("\n")
        if not line:
            if current:
                events.append(current)
                current = {}
            continue
        name, _, value = line.partition(": ")
        if name:
            current[name] = value
    return events


def command(*arguments, path=None, directory=None, environment=None, timeout=PATIENCE):
    """Runs `panelind ARGUMENTS`; a CompletedProcess with text."""
    control = ["--control", str(path)] if path else []
    return subprocess.run(
        [str(binaries() / "panelind"), *map(str, arguments), *control],
        cwd=directory,
        env={"PATH": os.environ.get("PATH", ""), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
