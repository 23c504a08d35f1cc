# network.py
# Free ports that no other test takes, and HTTP as a client sees it. Loopback only.
# Everything has a timeout; an answer is read whole.

from http import client as http_client
import itertools
import os
import random
import socket
from dataclasses import dataclass, field

# Below the range from which the kernel takes the ports of clients.
_ports = itertools.cycle(random.Random(os.getpid()).sample(range(10_000, 32_000), 22_000))
_reserved = []


def free_port():
    """A port that is free now, and that no other process of these tests gets while this one lives."""
    for port in itertools.islice(_ports, 22_000):
        # An abstract name is taken until its owner dies: a lock that needs no cleaning up.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0panelind-tests-port-{port}")
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(("0.0.0.0", port))
        except OSError:
            claim.close()
            continue
        _reserved.append(claim)
        return port
    raise AssertionError("no port is free")


@dataclass
class HTTPAnswer:
    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""


def _connect(target, timeout):
    """To a port on loopback, or to a unix socket by its path."""
    if isinstance(target, int):
        return http_client.HTTPConnection("127.0.0.1", target, timeout=timeout)
    connection = http_client.HTTPConnection("localhost", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(timeout)
    connection.sock.connect(str(target))
    return connection


def http(target, path="/", method="GET", body=None, headers=None, timeout=10.0):
    """One exchange on a connection of its own. Header names are lower case. OSError if there is no answer."""
    connection = _connect(target, timeout)
    try:
        connection.request(method, path, body=body, headers={"Connection": "close", **(headers or {})})
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return HTTPAnswer(answer.status, names, answer.read())
    except http_client.HTTPException as error:
        raise ConnectionError(f"no answer: {error!r}") from error
    finally:
        connection.close()


def raw_http(port, data, timeout=10.0):
    """Sends bytes and returns all that comes until the other side closes or is silent for the timeout."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
        return answer


def accepts(port, timeout=1.0):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=timeout).close()
        return True
    except OSError:
        return False
