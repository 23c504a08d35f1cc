# test_faults.py
# System calls fail, one at a time or all of a kind, and resources run out: what panelind makes of it, in one table.
# Read harness/faults.py first: Story is the life that each row lives through. `make faults` goes through many more.

import os
import re
import resource
import signal
import socket
import subprocess
import time

import pytest

from harness import fd_count, free_port, http, wait_until
from harness.faults import MODES

# What becomes of it:
SERVES = "serves"  # nobody notices: the first worker is ready, its successor is, every client is answered
RECOVERS = "recovers"  # later, or after failed starts, and then the same


def ends(code, why):
    """It ends by itself, and the only line on standard error, or its last record before the end, says why."""
    return (code, why)


EVERYTHING = " ".join(
    f"{call}=EMFILE@1-" for call in ("socket", "accept4", "pipe2", "open", "opendir", "dup", "pidfd_open", "mkdtemp")
)

# CALL[OF WHAT]=ERROR@WHICH, from when on, how the worker is served, what becomes of it.
TABLE = [
    # -- what a start needs
    ("epoll_create=EMFILE@1", "start", "front", ends(71, "too many open files")),
    ("epoll_create=ENOMEM@1", "start", "direct", ends(71, "out of memory")),
    ("eventfd=ENFILE@1", "start", "front", ends(71, "too many open files in the system")),
    ("timerfd=EMFILE@1", "start", "front", ends(71, "too many open files")),
    ("epoll_ctl[add]=ENOSPC@1", "start", "front", ends(71, "no space left")),
    ("waitid=EPERM@1-", "start", "front", ends(71, "cannot watch the worker: waitid says not permitted")),
    ("signalfd=EMFILE@1", "start", "front", ends(71, "cannot watch signals: too many open files")),
    ("pipe2=EMFILE@1", "start", "front", ends(71, "cannot write the log: no pipe")),
    ("pthread_create=EAGAIN@1", "start", "front", ends(71, "cannot write the log: no thread")),
    ("mmap=ENOMEM@1", "start", "front", ends(71, "cannot write the log: .*cannot allocate memory")),
    ("open[panelind.yaml]=EMFILE@1", "start", "front", ends(78, "cannot be read: too many open files")),
    ("socket=EMFILE@1", "start", "front", ends(71, "cannot bind .*too many open files")),
    ("socket=EAFNOSUPPORT@1", "start", "socket", ends(71, "cannot bind .*address family not supported")),
    ("bind=EADDRNOTAVAIL@1", "start", "front", ends(71, "cannot bind .*address not available")),
    ("bind=EACCES@2", "start", "front", ends(71, "cannot bind .*permission denied")),
    ("listen=EADDRINUSE@1", "start", "socket", ends(71, "cannot bind .*address already in use")),
    ("listen=EADDRINUSE@3", "start", "front", ends(71, "cannot use the control socket")),
    ("listen=EADDRINUSE@4", "start", "front", ends(71, "cannot serve the front")),
    ("dup[socket]=EMFILE@1", "start", "front", ends(71, "cannot serve the front: .*too many open files")),
    ("dup[signalfd]=EMFILE@1-3", "start", "front", SERVES),
    ("setsockopt=ENOBUFS@1-", "start", "front", ends(71, "cannot serve the (front|sidecar)")),
    ("getsockname=ENOBUFS@1-", "start", "front", SERVES),
    ("mkdtemp=ENOSPC@1", "start", "front", SERVES),
    ("mkdtemp=EROFS@1-", "start", "front", RECOVERS),
    # -- a worker's start: the first, and later ones
    ("clone=EAGAIN@1", "start", "front", ends(71, "no process could be created")),
    ("clone=ENOMEM@1", "start", "socket", ends(71, "no process could be created")),
    ("clone=EAGAIN@1-3", "ready", "front", RECOVERS),
    ("clone=ENOMEM@1-", "ready", "direct", RECOVERS),
    ("execve=EAGAIN@1", "start", "front", ends(71, "cannot start worker")),
    ("execve=EACCES@1", "start", "front", ends(126, "cannot start worker .*permission denied")),
    ("execve=ENOENT@1", "start", "front", ends(127, "cannot start worker .*no such file")),
    ("execve=ENOMEM@1-3", "ready", "front", RECOVERS),
    ("execve=EIO@1", "start", "front", RECOVERS),
    ("setpgid=EPERM@1", "start", "front", RECOVERS),
    ("dup[pipe]=EMFILE@1", "start", "front", RECOVERS),
    ("pipe2=EMFILE@3", "start", "front", ends(71, "no descriptor is free for its output")),
    ("pipe2=ENFILE@1-", "ready", "front", RECOVERS),
    ("close_range=ENOSYS@1-", "start", "front", SERVES),
    ("close_range=EPERM@1-", "start", "socket", SERVES),
    # -- its life and its end
    ("pidfd_open=ENOSYS@1-", "start", "front", SERVES),
    ("pidfd_open=EMFILE@1-", "start", "direct", SERVES),
    ("pidfd_send_signal=EPERM@1-", "start", "front", SERVES),
    ("waitid=EINTR@2/3", "start", "front", SERVES),
    ("wait=EINTR@2/3", "start", "front", SERVES),
    ("read[signalfd]=EAGAIN@1/2", "ready", "front", SERVES),
    ("read[signalfd]=EIO@1", "ready", "front", RECOVERS),
    ("recvmsg=EINTR@2/3", "start", "front", SERVES),
    ("open[/proc]=EACCES@1-", "start", "front", SERVES),
    ("open[/proc]=ENFILE@1-", "stop", "front", SERVES),
    ("opendir=EMFILE@1-", "ready", "front", SERVES),
    # -- the loop, and clients
    ("epoll_wait=EINTR@2/3", "start", "front", SERVES),
    ("read[timerfd]=EAGAIN@1/2", "start", "front", SERVES),
    ("accept4=EINTR@2/3", "start", "front", SERVES),
    ("accept4=EAGAIN@1/2", "start", "front", SERVES),
    ("accept4=ECONNABORTED@1-3", "ready", "front", SERVES),
    ("accept4=EPERM@1", "ready", "front", SERVES),
    ("accept4=EPROTO@1-4", "ready", "front", SERVES),
    ("accept4=ENETDOWN@1-", "ready", "port", RECOVERS),
    ("accept4=EMFILE@1-", "ready", "front", RECOVERS),
    ("accept4=ENFILE@1-5", "ready", "front", SERVES),
    ("accept4=ENOMEM@1-3", "ready", "front", SERVES),
    ("read[socket]=EINTR@2/3", "start", "front", SERVES),
    # At a connection's end no kernel says it, so not 1/2.
    ("read[socket]=EAGAIN@1", "start", "front", SERVES),
    ("read[socket]=ECONNRESET@1-3", "ready", "front", SERVES),
    ("read[socket]=ENOMEM@1-3", "ready", "front", SERVES),
    ("write[socket]=EAGAIN@1/2", "start", "front", SERVES),
    ("write[socket]=EINTR@1/2", "start", "front", SERVES),
    ("write[socket]=EPIPE@1-3", "ready", "front", SERVES),
    ("write[socket]=ENOBUFS@1-3", "ready", "front", SERVES),
    ("connect=ECONNREFUSED@1-3", "start", "front", SERVES),
    ("connect=EINTR@1/2", "start", "port", SERVES),
    ("connect=EAGAIN@1-", "ready", "front", RECOVERS),
    ("connect=ETIMEDOUT@1-2", "ready", "port", SERVES),
    ("socket=EMFILE@1-", "ready", "front", RECOVERS),
    # -- its output
    ("write[stdout]=ENOSPC@1-", "start", "front", SERVES),
    ("write[stdout]=EIO@1-3", "start", "front", SERVES),
    ("write[stdout]=EPIPE@1-", "ready", "front", SERVES),
    ("write[stdout]=EAGAIN@1/2", "start", "front", SERVES),
    ("write[stdout]=EINTR@1/2", "start", "front", SERVES),
    ("read[pipe]=EAGAIN@1/2", "start", "front", SERVES),
    ("read[pipe]=EINTR@2/3", "start", "front", SERVES),
    ("poll=EINTR@2/3", "start", "front", SERVES),
    # -- all at once
    (EVERYTHING, "ready", "front", RECOVERS),
    (EVERYTHING, "ready", "socket", RECOVERS),
    (EVERYTHING, "stop", "front", SERVES),
    (EVERYTHING.replace("EMFILE", "ENFILE"), "stop", "direct", SERVES),
]


def name(row):
    rules, at, mode, _ = row
    return f"{'everything' if ' ' in rules else rules}-{at}-{mode}"


@pytest.mark.parametrize(("rules", "at", "mode", "outcome"), TABLE, ids=map(name, TABLE))
def test_a_system_call_fails(story, rules, at, mode, outcome):
    told = story(rules, at=at, mode=mode)
    assert told.struck or ends_without(told, at), f"nothing failed: {told.seen}"
    told.is_lawful()
    if outcome in (SERVES, RECOVERS):
        assert told.code == 0 and told.asked_to_stop, told.said
        assert told.answers and told.answers[-1] == 200
        assert told.generation == 2 if outcome is SERVES else told.generation >= 2
    else:
        code, why = outcome
        assert (told.code, told.answers) == (code, []), told.said
        assert re.search(why, told.said, re.IGNORECASE), told.said
    told.starts_again()


def ends_without(told, at):
    """A stop may need none of the calls that would fail."""
    return at == "stop" and told.code == 0


@pytest.mark.xfail(strict=True, reason="NIO ends the process where epoll_ctl(2) refuses a descriptor of a channel")
def test_a_connection_that_epoll_does_not_take_is_given_up(story):
    """ENOSPC beyond fs.epoll.max_user_watches, ENOMEM. The first is a client's connection, which NIO closes; the second
    is one to the worker: `try! becomeFullyRegistered0()`."""
    told = story("epoll_ctl[add]=ENOSPC@2", at="ready")
    told.is_lawful()


def test_a_notify_socket_that_cannot_be_made_is_said_with_its_reason(story):
    told = story("mkdtemp=EROFS@1-", at="start", mode="socket")
    told.is_lawful()
    assert told.code == 0 and told.answers[-1] == 200
    warnings = [event["message"] for event in told.daemon.events("warning")]
    assert any(re.match("cannot make a notify socket: read.only file system", w, re.IGNORECASE) for w in warnings), warnings


# -- resources that run out in earnest


def limited(what, soft, hard=None):
    return lambda: resource.setrlimit(what, (soft, soft if hard is None else hard))


@pytest.mark.parametrize("mode", ["front", "socket"])
@pytest.mark.parametrize("number", [4, 6, 8, 11, 14, 17, 20, 24, 28, 32, 36, 40, 48])
def test_with_so_many_descriptors_it_serves_or_says_why_not(story, number, mode):
    """Never the one without the other: what starts can start its next worker, too."""
    told = story("", mode=mode, preexec_fn=limited(resource.RLIMIT_NOFILE, number))
    told.is_lawful()
    if told.code != 0:
        assert number < 40 and told.code in (71, 78), told.said
        assert "too many open files" in told.said.lower()
    else:
        assert number >= 24 and told.generation == 2 and told.answers[-1] == 200
    told.starts_again()


def test_a_flood_of_slow_clients_leaves_room_for_the_next_worker(panelind):
    """With 64 descriptors, at the sidecar and at the front."""
    port = free_port()
    daemon = panelind(
        MODES["front"][0],
        {"serve.listen": f"127.0.0.1:{port}", "restart.delay": "20ms", "restart.maxDelay": "50ms"},
        sidecar=True,
        preexec_fn=limited(resource.RLIMIT_NOFILE, 64),
    )
    daemon.ready()
    clients = []
    try:
        for number in range(160):
            client = socket.create_connection(("127.0.0.1", (daemon.sidecar_port, port)[number % 2]), timeout=5)
            clients.append(client)
            try:
                client.sendall(b"GET /ready HTTP/1.1\r\nHo")
            except OSError:
                pass  # There was no room for it.
        wait_until(lambda: fd_count(daemon.pid) > 35, "the flood has come in")
        for generation in (1, 2, 3):
            os.kill(daemon.worker(generation), signal.SIGKILL)
            daemon.ready(generation + 1)
        assert not daemon.events("worker_started", generation=5)
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: answers(port) and answers(daemon.sidecar_port, "/ready"), "everybody is answered again")
    assert daemon.stop() == 0


def answers(port, path="/"):
    try:
        return http(port, path, timeout=3).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("mebibytes", [96, 160, 320])
def test_with_so_much_address_space_it_serves(story, mebibytes):
    told = story("", preexec_fn=limited(resource.RLIMIT_AS, mebibytes << 20))
    told.is_lawful()
    assert (told.code, told.generation) == (0, 2), told.said


def test_a_log_buffer_larger_than_memory_is_said(story):
    told = story("", settings={"log.buffer": "1GiB"}, preexec_fn=limited(resource.RLIMIT_AS, 512 << 20))
    told.is_lawful()
    assert told.code == 71
    assert "cannot write the log" in told.said
    told.starts_again()


@pytest.mark.parametrize("sink", ["/dev/full", "a file at its limit", "a full file system", "a closed pipe"])
def test_a_sink_that_takes_nothing_stops_nothing(story, tmp_path, sink):
    """ENOSPC, EFBIG without SIGXFSZ, EPIPE without SIGPIPE; from the first record on."""
    options = {}
    if sink == "/dev/full":
        options["stdout"] = open("/dev/full", "wb")
    elif sink == "a file at its limit":
        options["stdout"] = open(tmp_path / "log", "wb")
        options["preexec_fn"] = limited(resource.RLIMIT_FSIZE, 100)
    elif sink == "a closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
        options["stdout"] = os.fdopen(writing, "wb")
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can mount")
        (tmp_path / "full").mkdir()
        mount = f"mount -t tmpfs -o size=4k none {tmp_path}/full && exec \"$@\" >{tmp_path}/full/log"
        options["wrapper"] = ["unshare", "-m", "sh", "-c", mount, "sh"]
        options["stdout"] = subprocess.DEVNULL
    told = story("", **options)
    told.is_lawful()
    assert (told.code, told.generation) == (0, 2)


# -- what those leave behind that could not clean up


def test_what_a_killed_panelind_left_is_removed_by_a_later_one(panelind, tmp_path, short_path):
    temporary = short_path
    settings = {"serve.listen": f"127.0.0.1:{free_port()}", "control.path": str(tmp_path / "control.sock")}

    def start():
        daemon = panelind(MODES["front"][0], settings, environment={"TMPDIR": temporary})
        daemon.ready()
        return daemon

    killed = start()
    killed.send(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not killed.survivors(), "the worker dies with panelind")
    left = set(temporary.iterdir())
    assert left, "a killed panelind cleans nothing up"
    living = start()
    of_the_living = set(temporary.iterdir()) - left
    assert of_the_living and left < set(temporary.iterdir()), "what is a moment old may be about to be locked"
    settings.update({"serve.listen": f"127.0.0.1:{free_port()}", "control.path": "none"})
    for path in temporary.iterdir():
        os.utime(path, (time.time() - 3600,) * 2)
    (temporary / "panelind-stranger").mkdir()
    # Each looks for a few milliseconds only.
    for _ in range(20):
        later = start()
        assert of_the_living < set(temporary.iterdir()), "a living one's is locked"
        assert later.stop() == 0
        if not left & set(temporary.iterdir()):
            break
    assert living.stop() == 0
    assert [path.name for path in temporary.iterdir()] == ["panelind-stranger"]
