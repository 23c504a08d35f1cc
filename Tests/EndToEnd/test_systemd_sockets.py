# test_systemd_sockets.py
# Sockets that systemd passes (sd_listen_fds(3)): chosen by name, kept over panelind's own restart, refused where wrong.
# Read test_socket_mode.py first.

import os
import signal
import socket
import sys
import threading

import pytest

from harness import environment_of, http, wait_until

# Puts the given descriptors at 3 and on, names LISTEN_PID, and becomes panelind.
ADOPT = """
import os, sys
fds = [int(x) for x in sys.argv[1].split(",") if x]
moved = [os.dup2(os.dup(fd), 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(moved): os.dup2(fd, 3 + i)
for i in range(len(fds)): os.set_inheritable(3 + i, True)
os.closerange(3 + len(fds), 200)
if os.environ.get("LISTEN_PID") == "own": os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(sockets, names=None, pid="own", count=None):
    """Options for a daemon that is started as by a socket unit."""
    environment = {"LISTEN_FDS": len(sockets) if count is None else count, "LISTEN_PID": pid}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    numbers = [one.fileno() for one in sockets]
    return {
        "environment": environment,
        "wrapper": [sys.executable, "-c", ADOPT, ",".join(map(str, numbers))],
        "pass_fds": numbers,
    }


def listener():
    return socket.create_server(("127.0.0.1", 0))


def warnings(daemon, text):
    return [r for r in daemon.records if r.get("severity") == "WARNING" and text in r["message"]]


def test_a_socket_is_chosen_by_its_name(panelind):
    with listener() as first, listener() as second:
        port = second.getsockname()[1]
        daemon = panelind(
            ["listen fd 3"], {"serve.mode": "socket", "serve.listen": "systemd:web"},
            **activated([first, second], "admin:web"))
        daemon.ready()
        assert daemon.wait_event("panelind_started")["listen"] == f"127.0.0.1:{port}"
        assert http(port, "/").status == 200
        variables = environment_of(daemon.worker())
        assert variables[b"LISTEN_FDS"] == b"1" and variables[b"LISTEN_FDNAMES"] == b"http"
        assert daemon.stop() == 0


def test_a_unix_socket_that_was_passed_keeps_its_file(panelind, tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        daemon = panelind(["listen fd 3"], {"serve.mode": "socket"}, **activated([one]))
        daemon.ready()
        assert http(path, "/").status == 200
        assert daemon.stop() == 0
        assert path.exists(), "it is the socket unit's"


def test_a_restart_of_panelind_refuses_nobody(panelind):
    """The listener is the unit's: who comes between two panelinds waits in the kernel's queue."""
    with listener() as one:
        port = one.getsockname()[1]
        worker = ["listen fd 3", "on TERM begin drain exit 0 end"]
        settings = {"serve.mode": "socket"}
        daemon = panelind(worker, settings, **activated([one]))
        daemon.ready()
        done, answers, failures = threading.Event(), [], []

        def ask():
            while not done.is_set():
                try:
                    answers.append(http(port, "/", timeout=30).status)
                except OSError as error:
                    failures.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            count = len(answers)
            wait_until(lambda: len(answers) > count + 8, "requests are answered")
            assert daemon.stop() == 0
            daemon = panelind(worker, settings, **activated([one]))
            daemon.ready()
        count = len(answers)
        wait_until(lambda: len(answers) > count + 8, "requests are answered")
        done.set()
        for thread in threads:
            thread.join(40)
        assert failures == []
        assert set(answers) == {200}
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    "pid, count, said",
    [
        ("1", 1, "LISTEN_FDS=1 is not followed: it is meant for pid 1, and this is "),
        ("x", 1, "it is meant for pid x, and this is "),
        (None, 1, "LISTEN_PID does not say for which process it is"),
        ("own", "many", "cannot use LISTEN_FDS=many: not a number from 0 to 1024"),
        ("own", "-1", "cannot use LISTEN_FDS=-1"),
        ("own", "100000000000000000000", "cannot use LISTEN_FDS=1000"),
    ],
)
def test_variables_that_are_not_ours_or_no_numbers_are_one_warning(panelind, pid, count, said):
    with listener() as one:
        daemon = panelind(["notify READY=1"], {"probe.readiness.notify": True}, **activated([one], pid=pid, count=count))
        daemon.ready()
        assert len(warnings(daemon, "LISTEN_FDS")) == 1
        assert warnings(daemon, said)
        assert not {b"LISTEN_FDS", b"LISTEN_PID"} & set(environment_of(daemon.worker()))
        assert daemon.stop() == 0
        assert len(daemon.events("worker_started")) == 1


def datagram():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    return one


def connected():
    ours, theirs = socket.socketpair()
    connected.kept = theirs
    return ours


def not_listening():
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    return one


@pytest.mark.parametrize(
    "make", [datagram, connected, not_listening, lambda: open("/dev/null")],
    ids=["datagram", "connected", "bound only", "no socket"])
def test_what_cannot_be_listened_on_is_71_and_nothing_starts(panelind, make):
    with make() as one:
        daemon = panelind(["listen fd 3"], {"serve.mode": "socket"}, **activated([one]))
        assert daemon.wait() == 71
        assert "descriptor 3 is not a listening stream socket" in daemon.stderr
        assert not daemon.records


def test_more_descriptors_than_there_are_is_71(panelind):
    with listener() as one:
        daemon = panelind(["listen fd 3"], {"serve.mode": "socket"}, **activated([one], count=2))
        assert daemon.wait() == 71
        assert "descriptor 4 is not open" in daemon.stderr
        assert not daemon.records


@pytest.mark.parametrize("listen", ["systemd", "systemd:web"])
def test_a_socket_that_was_not_passed_is_78(panelind, listen):
    daemon = panelind(["listen fd 3"], {"serve.mode": "socket", "serve.listen": listen})
    assert daemon.wait() == 78
    assert f"cannot use serve.listen={listen}: no socket was inherited (LISTEN_FDS)" in daemon.stderr


def test_the_worker_is_replaced_on_the_passed_socket(panelind):
    with listener() as one:
        port = one.getsockname()[1]
        daemon = panelind(
            ["listen fd 3"], {"serve.mode": "socket", "restart.delay": "50ms"}, **activated([one], "web"))
        daemon.ready()
        os.kill(daemon.worker(), signal.SIGKILL)
        assert http(port, "/", timeout=20).status == 200
        assert daemon.stop() == 0
