# test_socket_mode.py
# Socket mode: panelind holds the listening socket, so that nothing is refused while workers come and go.
# Read harness/network.py first.

import json
import os
import signal
import socket
import threading
import time

import pytest

from harness import PATIENCE, environment_of, free_port, http, wait_until


def socket_settings(port, **more):
    return {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}", "restart.delay": "50ms", **more}


class Clients:
    """Several clients that ask, each on a new connection, until told to stop; every outcome is kept."""

    def __init__(self, target, count=4, path="/pid"):
        self.answered = []
        self.failed = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(target, path), daemon=True) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self, target, path):
        while not self._stop.is_set():
            try:
                answer = http(target, path, timeout=20)
                self.answered.append((answer.status, answer.body))
            except OSError as error:
                self.failed.append(error)

    def refused(self):
        return [error for error in self.failed if isinstance(error, (ConnectionRefusedError, FileNotFoundError))]

    def wait_more(self, count):
        before = len(self.answered)
        wait_until(lambda: len(self.answered) >= before + count, f"{count} more answers")


@pytest.mark.parametrize("step", ["listen fd 3", "listen activated"])
def test_kill_9_of_the_worker_refuses_nobody(panelind, step, placement):
    """Requests that a worker had accepted die with it; all others wait in the kernel's queue and are answered."""
    port = free_port()
    words = [step]
    daemon = panelind(words, socket_settings(port), placement=placement)
    daemon.ready()
    with Clients(port) as clients:
        clients.wait_more(20)
        for generation in range(1, 4):
            os.kill(daemon.worker(generation), signal.SIGKILL)
            daemon.ready(generation=generation + 1)
            clients.wait_more(20)
    assert not clients.refused()
    # At most the one request per client that was in the worker's hands when it was killed.
    assert len(clients.failed) <= 3 * 4, clients.failed
    assert {status for status, _ in clients.answered} == {200}
    assert len({body for _, body in clients.answered}) == 4


def test_a_request_during_the_backoff_waits_for_the_next_worker(panelind):
    port = free_port()
    daemon = panelind(["listen fd 3"], socket_settings(port, **{"restart.delay": "1s", "restart.jitter": 0}))
    daemon.ready()
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.wait_event("worker_backoff")
    begin = time.monotonic()
    assert http(port, "/", timeout=20).status == 200
    assert time.monotonic() - begin > 0.3
    assert daemon.worker(2)


def test_a_request_before_the_first_worker_listens_waits(panelind, tmp_path):
    file = tmp_path / "go"
    port = free_port()
    daemon = panelind([f"wait-file {file}", "listen fd 3"], socket_settings(port))
    daemon.wait_event("worker_started")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(http(port, "/", timeout=20).status))
    thread.start()
    file.touch()
    thread.join(20)
    assert answers == [200]


def test_what_the_worker_inherits(panelind, tmp_path):
    port = free_port()
    daemon = panelind(
        [f"dump-state {tmp_path}/state", "listen activated"], socket_settings(port), environment={"PORT": "1234"})
    daemon.ready()
    state = json.loads((tmp_path / "state").read_text())
    environment = state["environment"]
    assert environment["LISTEN_FDS"] == "1"
    assert environment["LISTEN_PID"] == str(daemon.worker())
    assert environment["LISTEN_FDNAMES"]
    assert "PORT" not in environment, "PORT is unset in socket mode"
    assert int(environment["PANELIND_STOP_SECONDS"]) >= 1
    assert environment["PANELIND_GENERATION"].startswith("1")
    descriptors = {int(entry["fd"]) for entry in state["fds"]} if isinstance(state["fds"], list) else {
        int(number) for number in state["fds"]}
    assert {0, 1, 2, 3} <= descriptors
    assert not {number for number in descriptors if 3 < number < 1000 and number not in (4, 5)}, state["fds"]


def test_the_placeholder_alone_means_socket_mode(panelind):
    from harness import scripted_worker

    port = free_port()
    daemon = panelind(
        command=[*scripted_worker("listen"), "fd", "{fd}"], settings={"serve.listen": f"127.0.0.1:{port}"})
    daemon.ready()
    assert daemon.wait_event("panelind_started")["mode"] == "socket"
    assert http(port, "/").status == 200


def test_nagle_is_off_on_what_the_worker_accepts(panelind):
    """TCP_NODELAY is inherited from the listener (tcp(7)): looked at from inside the worker."""
    port = free_port()
    script = (
        "import socket\nl = socket.socket(fileno=3)\nwhile True:\n c, _ = l.accept()\n"
        " on = c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)\n c.recv(4096)\n"
        " c.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nX-Nodelay: %d\\r\\nContent-Length: 0\\r\\n\\r\\n' % (on != 0))\n"
        " c.close()\n")
    daemon = panelind(command=["python3", "-c", script], settings=socket_settings(port))
    daemon.ready()
    assert http(port, "/").headers["x-nodelay"] == "1"


def test_a_unix_listener(panelind, tmp_path):
    path = tmp_path / "public"
    daemon = panelind(["listen fd 3"], {"serve.mode": "socket", "serve.listen": f"unix:{path}", "restart.delay": "50ms"})
    daemon.ready()
    with Clients(path, count=2) as clients:
        clients.wait_more(5)
        os.kill(daemon.worker(), signal.SIGKILL)
        daemon.ready(generation=2)
        clients.wait_more(5)
    assert not clients.refused()
    assert daemon.stop() == 0
    assert not path.exists()


def test_a_stale_unix_socket_is_taken_over_and_a_living_one_is_not(panelind, tmp_path):
    path = tmp_path / "public"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    settings = {"serve.mode": "socket", "serve.listen": f"unix:{path}"}
    first = panelind(["listen fd 3"], settings)
    first.ready()
    second = panelind(["listen fd 3"], settings)
    assert second.wait() == 71
    assert str(path) in second.stderr
    assert http(path, "/").status == 200


def test_a_plain_file_in_the_way_is_not_removed(panelind, tmp_path):
    path = tmp_path / "public"
    path.write_text("precious")
    daemon = panelind(["listen fd 3"], {"serve.mode": "socket", "serve.listen": f"unix:{path}"})
    assert daemon.wait() == 71
    assert path.read_text() == "precious"


def test_the_wildcard_of_ipv6_serves_both(panelind):
    port = free_port()
    daemon = panelind(["listen fd 3"], {"serve.mode": "socket", "serve.listen": f"[::]:{port}"})
    daemon.ready()
    with socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert http(port, "/").status == 200, "IPv4 too, as on Cloud Run"


def test_an_inherited_listener(panelind, tmp_path):
    """LISTEN_FDS is ours: serve.listen is the inherited socket by default."""
    import sys

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    adopt = (
        "import os, sys\nfd = int(sys.argv[1])\nif fd != 3: os.dup2(fd, 3)\nos.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web')\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n")
    daemon = panelind(
        ["listen activated"], {"serve.mode": "socket", "restart.delay": "50ms"},
        wrapper=[sys.executable, "-c", adopt, listener.fileno()], pass_fds=[listener.fileno()])
    listener.close()
    daemon.ready()
    assert http(port, "/").status == 200
    os.kill(daemon.worker(), signal.SIGKILL)
    assert http(port, "/", timeout=20).status == 200
    assert environment_of(daemon.worker(2))[b"LISTEN_FDS"] == b"1"
    assert daemon.stop() == 0


def test_a_stop_finishes_what_the_worker_has_in_flight(panelind):
    """The worker drains itself in socket mode: TERM at once, its request completes."""
    port = free_port()
    daemon = panelind(["listen fd 3", "on TERM begin drain exit 0 end"], socket_settings(port))
    daemon.ready()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(http(port, "/slow?ms=1500", timeout=20).status))
    thread.start()
    wait_until(lambda: connections_to(port), "the request is in flight")
    assert daemon.stop() == 0
    thread.join(20)
    assert answers == [200]
    assert daemon.took < 9


def connections_to(port):
    """Whether a worker holds an accepted connection on this port, by its state in /proc/net/tcp."""
    wanted = f":{port:04X}"
    with open("/proc/net/tcp") as file:
        return [
            line for line in file.read().splitlines()[1:]
            if line.split()[1].endswith(wanted) and line.split()[3] == "01"
        ]


def test_after_the_end_the_port_is_free_at_once(panelind):
    port = free_port()
    daemon = panelind(["listen fd 3"], socket_settings(port))
    daemon.ready()
    with Clients(port, count=2) as clients:
        clients.wait_more(10)
    assert daemon.stop() == 0
    again = panelind(["listen fd 3"], socket_settings(port))
    again.ready()
    assert http(port, "/").status == 200
