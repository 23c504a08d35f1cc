# test_hostile_peers.py
# Strangers against panelind: clients of the front and the sidecar, other users and other processes of this machine.
# docs/security.md names these tests. What a worker can do is in test_hostile_worker.py; each single limit of the front
# has its test in test_front_limits.py, those of the sidecar and the control socket in test_sidecar.py, test_control.py.

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from harness import environment_of, fd_count, free_port, rss_bytes, wait_until
from harness.control import Control, command
from harness.rawclient import Client

NOTIFY = {"probe.readiness.notify": True}
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
PYTHON = "/usr/bin/python3"
# Users that nobody is.
LONER, OTHER = 0x5EC10000 + os.getpid() % 0x10000, 0x5EC20000 + os.getpid() % 0x10000

FEW_DESCRIPTORS = [
    sys.executable, "-c",
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); os.execv(sys.argv[1], sys.argv[1:])"]


def as_other(*words, **options):
    """Runs a command as a user of its own."""
    return subprocess.run(
        ["setpriv", "--reuid", str(OTHER), "--regid", str(OTHER), "--clear-groups", *map(str, words)],
        capture_output=True, text=True, timeout=60, **options)


FLOOD = """
import socket, sys, time
target, data, kept = sys.argv[1], sys.argv[2].encode().decode('unicode_escape').encode(), int(sys.argv[3])
unix, ones, made = target.startswith('/'), [], 0
while True:
    one = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    one.settimeout(1)
    try:
        one.connect(target if unix else ('127.0.0.1', int(target)))
        one.sendall(data)
    except OSError:
        # Full, or refused: as fast again as a hostile client would.
        one.close()
        time.sleep(0.001)
        continue
    made += 1
    if made == 300: print('on', flush=True)
    ones.append(one)
    if len(ones) > kept: ones.pop(0).close()
"""


class Flood:
    """A process that opens connections to a target as fast as it takes them, sends, and keeps the last so many."""

    def __init__(self, target, data=b"", kept=300):
        self.words = [PYTHON, "-c", FLOOD, str(target), data.decode("latin-1"), str(kept)]

    def __enter__(self):
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def is_on(self):
        """Blocks until 300 connections were made."""
        return self.process.stdout.readline() == "on\n"


@pytest.mark.parametrize("data", [b"", b"GET /x HTTP/1.1\r\nHost: h\r\nX-A: " + b"y" * 2000], ids=["silent", "half a head"])
def test_floods_of_all_sockets_beyond_the_descriptors_leave_health_and_restarts(front, data):
    """With 200 descriptors, connections to front, sidecar and control socket at once; the worker is killed in it."""
    one = front(settings={"control.path": "c.sock"}, wrapper=FEW_DESCRIPTORS, sidecar=True)
    daemon = one.daemon
    control = daemon.directory / "c.sock"
    assert one.serves()
    before = rss_bytes(daemon.pid)

    def answers(ask):
        # A connection that is a moment old is not given up for a newer one: a try may be refused.
        try:
            return ask() == 200
        except (OSError, AssertionError):
            return False

    with Flood(one.target, data) as first, Flood(daemon.sidecar_port, data) as second, Flood(control, data) as third:
        assert first.is_on() and second.is_on() and third.is_on()
        for path in ("/health", "/x"):
            wait_until(lambda: answers(lambda: one.get(path, timeout=2).status), f"{path} in the flood", timeout=150)
        wait_until(
            lambda: answers(lambda: daemon.get("/health", timeout=2).status), "the sidecar in the flood", timeout=150)
        os.kill(daemon.worker(), signal.SIGKILL)
        daemon.wait_event("worker_exited", generation=1)
        generation = wait_until(
            lambda: [e["generation"] for e in daemon.events("worker_ready") if e["generation"] > 1], "the next worker")[0]
        wait_until(
            lambda: answers(lambda: one.get("/x", timeout=2).status), f"g{generation} is reached in the flood",
            timeout=150)
        wait_until(lambda: answers(lambda: one.get("/health", timeout=2).status), "health after the restart")
        assert fd_count(daemon.pid) <= 200
        assert rss_bytes(daemon.pid) - before < 48 << 20
    assert one.serves()
    # Who may open it may end panelind too: a flood of it is its owner's, and only the others' places are to be safe.
    wait_until(lambda: answers(lambda: Control(control).ask("/v1/status", timeout=2)[0]), "the control socket")
    assert daemon.stop() == 0
    assert daemon.took < 8
    assert daemon.survivors() == []


def test_unfinished_heads_by_the_hundred_grow_little(front):
    """60 KB each, within the limit of a head, never finished: what is kept is bounded, and given back."""
    one = front(settings={"serve.headerTimeout": "3s"})
    assert one.serves()
    before = rss_bytes(one.daemon.pid)
    clients = []
    try:
        for _ in range(300):
            client = one.client()
            client.send(b"GET /x HTTP/1.1\r\nHost: h\r\nX-A: " + b"y" * 60_000)
            clients.append(client)
        assert one.serves()
        assert rss_bytes(one.daemon.pid) - before < 80 << 20
        for client in clients:
            client.until_end()
    finally:
        for client in clients:
            client.close()
    assert one.serves()
    assert fd_count(one.daemon.pid) < 60


def test_slow_bodies_by_the_hundred_do_not_shut_health_out(front):
    """They take the worker's places; that costs others of the worker's answers, never panelind's own."""
    one = front(settings={"serve.concurrency": 20, "serve.hold": "500ms", "serve.heldRequests": 10})
    clients = []
    try:
        for _ in range(200):
            client = one.client()
            client.send(b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nx")
            clients.append(client)
        for _ in range(20):
            assert one.get("/health", timeout=5).status == 200
            assert one.get("/x", timeout=10).status in (200, 503)
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: one.get("/x").status == 200, "the places are free again")
    assert one.serves()


@pytest.mark.parametrize("target", ["/v1/status", "/v1/logs?lines=10000", "/v1/events"])
def test_pipelined_requests_to_the_control_socket_are_made_to_wait(panelind, target):
    daemon = panelind(
        ["print 10000 lines bytes 200", "notify READY=1"], {**NOTIFY, "control.path": "c.sock"}, sidecar=True)
    daemon.ready()
    wait_until(lambda: len(daemon.messages()) >= 10_000, "its lines")
    before = rss_bytes(daemon.pid)
    with Client(daemon.directory / "c.sock", receive_buffer=4096) as client:
        client.send_what_fits(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode() * 100_000, quiet=1)
        assert daemon.get("/health").status == 200
        assert command("status", path=daemon.directory / "c.sock").returncode == 0
        assert rss_bytes(daemon.pid) - before < 64 << 20
    assert daemon.stop() == 0


# -- other users and processes of the machine

SEND = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    s.connect(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        s.send(b'READY=1\\nSTATUS=spoofed\\nMAINPID=1')
    print('sent')
except OSError as error:
    print(type(error).__name__)
"""


@ROOT
def test_another_user_cannot_reach_the_notify_socket(panelind):
    daemon = panelind(["sleep 60s"], NOTIFY)
    path = environment_of(daemon.worker())[b"NOTIFY_SOCKET"].decode()
    assert as_other(PYTHON, "-c", SEND, path, 1).stdout == "PermissionError\n"
    assert not daemon.events("worker_ready")


@ROOT
def test_where_the_worker_is_another_user_a_third_that_knows_the_name_is_not_heard(panelind):
    daemon = panelind(
        ["sleep 60s"], {**NOTIFY, "worker.user": str(LONER), "worker.group": str(LONER), "control.path": "c.sock"},
        shared=True)
    path = environment_of(daemon.worker())[b"NOTIFY_SOCKET"].decode()
    assert as_other("ls", os.path.dirname(path)).returncode != 0, "the name is not to be found"
    assert as_other(PYTHON, "-c", SEND, path, 3).stdout == "sent\n"
    daemon.wait_event("notification_ignored")
    status = Control(daemon.directory / "c.sock").status()
    assert (status["state"], status["worker_status"]) == ("starting", None)
    assert not daemon.events("worker_ready")


def test_a_flood_of_strangers_notifications_changes_nothing_and_fills_no_log(panelind):
    """100,000 of them, from the same user but another tree."""
    daemon = panelind(["listen env", "notify READY=1"], {**NOTIFY, "restart.delay": "20ms", "control.path": "c.sock"},
                      environment={"PORT": free_port()}, sidecar=True)
    daemon.ready()
    before = rss_bytes(daemon.pid)
    began = time.monotonic()
    path = environment_of(daemon.worker())[b"NOTIFY_SOCKET"].decode()
    with subprocess.Popen([PYTHON, "-c", SEND, path, "100000"], stdout=subprocess.PIPE, text=True) as sender:
        daemon.wait_event("notification_ignored")
        for _ in range(50):
            assert daemon.get("/health", timeout=5).status == 200
        os.kill(daemon.worker(), signal.SIGKILL)
        daemon.wait_event("worker_exited", timeout=10)
        daemon.ready(2)
        assert sender.communicate(timeout=120)[0] == "sent\n"
    took = time.monotonic() - began
    assert len(daemon.events("notification_ignored")) <= took + 2
    assert Control(daemon.directory / "c.sock").status()["worker_status"] is None
    assert rss_bytes(daemon.pid) - before < 16 << 20
    assert daemon.stop() == 0


@ROOT
def test_another_user_cannot_open_the_control_socket(panelind):
    daemon = panelind(["notify READY=1"], {**NOTIFY, "control.path": "c.sock"}, shared=True)
    daemon.ready()
    path = daemon.directory / "c.sock"
    for name in ("status", "stop", "restart"):
        done = as_other(daemon.command()[0], name, "--control", path)
        assert done.returncode == 1 and "permission denied" in done.stderr, done
    assert len(daemon.events("worker_started")) == 1
    assert Control(path).status()["state"] == "ready"


@ROOT
@pytest.mark.parametrize("target", ["file", "nothing"])
def test_a_link_where_the_control_socket_is_to_be_is_not_followed(panelind, tmp_path, target):
    """Somebody who may write to the directory has put it there: no file elsewhere is made, changed or removed."""
    victim = tmp_path / "victim"
    if target == "file":
        victim.write_text("keep me")
        victim.chmod(0o644)
    place = tmp_path / "c.sock"
    place.symlink_to(victim)
    daemon = panelind(["notify READY=1"], {**NOTIFY, "control.path": str(place)})
    daemon.ready()
    assert [e for e in daemon.events("warning") if "control socket" in e["message"]]
    assert daemon.stop() == 0
    assert place.is_symlink()
    assert victim.exists() == (target == "file")
    if target == "file":
        assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("keep me", 0o644)


@ROOT
def test_a_directory_of_another_users_under_a_guessed_name_is_not_used(panelind, tmp_path):
    """$TMPDIR that everybody may write to, with the sticky bit, full of what a stranger has put there."""
    shared = pathlib.Path("/tmp") / f"panelind-tests-{os.getpid()}-sticky"
    shared.mkdir()
    shared.chmod(0o1777)
    try:
        for name in ("panelind-000000", "panelind-XXXXXX", "panelind"):
            (shared / name).mkdir()
            os.chown(shared / name, OTHER, OTHER)
        daemon = panelind(["notify READY=1"], NOTIFY, environment={"TMPDIR": shared})
        daemon.ready()
        directory = pathlib.Path(environment_of(daemon.worker())[b"NOTIFY_SOCKET"].decode()).parent
        assert directory.parent == shared and directory.stat().st_uid == 0
        assert as_other("sh", "-c", f"mv {directory} {shared}/mine || rm -rf {directory} || touch {directory}/x").returncode != 0
        assert directory.exists()
        assert daemon.stop() == 0
        assert not directory.exists()
    finally:
        subprocess.run(["rm", "-rf", shared], check=True)


def test_what_answers_in_place_of_panelind_does_not_steer_the_terminal(tmp_path):
    """A socket that somebody put where `panelind status` looks, as in a directory of theirs."""
    path = tmp_path / ".panelind.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(10)
        answers = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n\x1b]0;title\x07state\xc2\x9b2J\x1b[1A\n",
            b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\n{\"detail\":\"\\u001b]0;title\\u0007no \\u009b2J\"}",
            b"HTTP/1.1 \x1b[2J OK\r\n\r\n",
        ]

        def serve():
            for data in answers:
                one, _ = listener.accept()
                one.recv(65536)
                one.sendall(data)
                one.close()

        serving = threading.Thread(target=serve)
        serving.start()
        for _ in answers:
            done = command("status", directory=tmp_path)
            text = done.stdout + done.stderr
            assert text and not [c for c in text if ord(c) < 32 and c not in "\n\t" or 127 <= ord(c) < 160], repr(text)
        serving.join()
