# test_hostile_worker.py
# A worker that works against its supervisor: what it can break, and what it cannot. docs/security.md names these tests.
# Read harness/daemon.py first. What other users may do is in test_hostile_peers.py.

import os
import pathlib
import re
import signal
import stat
import textwrap
import time

import pytest

from harness import environment_of, fd_count, free_port, http, rss_bytes, state, wait_until
from harness.control import Control, command
from harness.director import send

NOTIFY = {"probe.readiness.notify": True}
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
PYTHON = "/usr/bin/python3"

# A user that nobody else has here: its processes are the worker's, and RLIMIT_NPROC counts no others.
LONER = 0x5EC00000 + os.getpid() % 0x10000

HELP = """
import os, signal, socket, struct, sys, time
def tell(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
    return s
"""


def python(text):
    """The command of a worker in Python; `tell` notifies, `{socket}` is sys.argv[1] where it is asked for."""
    return [PYTHON, "-c", HELP + textwrap.dedent(text)]


def as_loner(**more):
    return {**NOTIFY, "worker.user": str(LONER), "worker.group": str(LONER), **more}


# -- what it makes itself into


@ROOT
def test_a_descendant_that_panelind_may_not_signal_is_said_to_be_left_not_killed(panelind, tmp_path):
    """It became another user, and panelind has no CAP_KILL: nothing can end it, so nothing may say that it was."""
    number = tmp_path / "number"
    script = f"""
        done, tell_parent = os.pipe()
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open({str(number)!r}, 'w') as file:
                file.write(str(os.getpid()))
            os.setresuid({LONER}, {LONER}, {LONER})
            os.write(tell_parent, b'.')
            time.sleep(600)
        os.read(done, 1)
        tell('READY=1')
        time.sleep(600)
        """
    daemon = panelind(command=python(script), settings={**NOTIFY, "stop.budget": "2s"},
                      wrapper=["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"])
    daemon.ready()
    left = int(number.read_text())
    try:
        daemon.send(signal.SIGTERM)
        daemon.wait()
        assert state(left) == "S", "it lives"
        said = daemon.wait_event("worker_survivors_left")
        assert "may not send it (CAP_KILL)" in said["message"] and str(left) in said["message"], said
        assert not [event for event in daemon.events("worker_killed_survivors") if str(left) in event["message"]]
    finally:
        os.kill(left, signal.SIGKILL)
    wait_until(lambda: state(left) in (None, "Z"), "it is gone")


@ROOT
def test_a_leader_that_panelind_may_not_signal_is_said_to_be_left_not_asleep(panelind):
    script = f"""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setresuid({LONER}, {LONER}, {LONER})
        print('changed', flush=True)
        time.sleep(600)
        """
    daemon = panelind(command=python(script), settings={"stop.budget": "2s"},
                      wrapper=["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"])
    daemon.wait_message("changed")
    left = daemon.worker()
    try:
        daemon.send(signal.SIGTERM)
        daemon.wait()
        assert state(left) == "S", "it lives"
        assert "may not send it (CAP_KILL)" in daemon.wait_event("worker_survivors_left")["message"]
    finally:
        os.kill(left, signal.SIGKILL)
    wait_until(lambda: state(left) in (None, "Z"), "it is gone")


# -- what it does in the file system


@ROOT
def test_a_link_in_place_of_its_socket_directory_removes_nothing_of_others(panelind, tmp_path, short_path):
    """The directory is the worker's own, so it can rename it; panelind, as root, must not follow the link."""
    # As /tmp is nearly everywhere.
    short_path.chmod(0o1777)
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("precious", "g1.sock", "g2.sock"):
        (victim / name).write_text("keep me")
    script = f"""
        place = os.path.dirname(sys.argv[1])
        try:
            os.rename(place, place + '.moved')
            os.symlink({str(victim)!r}, place)
        except OSError as error:
            print(error, flush=True)
        tell('READY=1')
        time.sleep(600)
        """
    daemon = panelind(
        command=[*python(script), "{socket}"],
        settings=as_loner(**{"serve.listen": f"127.0.0.1:{free_port()}", "restart.delay": "20ms"}), shared=True,
        environment={"TMPDIR": short_path})
    daemon.ready()
    place = pathlib.Path(environment_of(daemon.worker())[b"PANELIND_SOCKET"].decode()).parent
    assert place.is_symlink(), "the attack has begun"
    # One generation is forgotten, then all is cleaned up.
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.wait_event("worker_started", generation=2)
    assert daemon.stop() == 0
    assert sorted(p.name for p in victim.iterdir()) == ["g1.sock", "g2.sock", "precious"]
    assert place.is_symlink() and pathlib.Path(f"{place}.moved").is_dir(), "what is not panelind's own stays"


@ROOT
def test_the_front_does_not_lend_its_rights_to_a_link_in_place_of_the_socket(panelind, tmp_path):
    """A socket that root alone may connect to; the worker links to it and asks the front."""
    import socket
    import threading

    secret = socket.socket(socket.AF_UNIX)
    path = tmp_path / "roots-own.sock"
    secret.bind(str(path))
    path.chmod(0o600)
    secret.listen(10)
    reached = []

    def serve():
        while True:
            try:
                one, _ = secret.accept()
            except OSError:
                return
            reached.append(one.recv(65536))
            try:
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
            except OSError:
                pass  # Who connected looked at whose it is, and went.
            one.close()

    threading.Thread(target=serve, daemon=True).start()
    port = free_port()
    script = f"""
        os.symlink({str(path)!r}, sys.argv[1])
        tell('READY=1')
        time.sleep(600)
        """
    daemon = panelind(
        command=[*python(script), "{socket}"],
        settings=as_loner(**{"serve.listen": f"127.0.0.1:{port}", "serve.hold": "500ms"}), shared=True)
    try:
        daemon.ready()
        got = http(port, "/containers/json")
        assert got.status in (502, 503) and b"secret" not in got.body
        assert b"".join(reached) == b"", "who listens is known before a byte is sent"
        assert http(port, "/health").status == 200
        assert daemon.stop() == 0
        assert path.exists(), "the link is removed, not what it leads to"
    finally:
        secret.close()


@ROOT
def test_the_front_serves_a_worker_of_another_user(panelind):
    port = free_port()
    daemon = panelind(
        ["listen unix {socket}", "notify READY=1"], as_loner(**{"serve.listen": f"127.0.0.1:{port}"}), shared=True)
    daemon.ready()
    assert http(port, "/anything").status in (200, 404)
    assert daemon.stop() == 0


@pytest.mark.parametrize("what", ["file", "directory", "gone", "socket of nobody"])
def test_what_it_puts_in_place_of_its_socket_is_an_answer_of_502_or_503(panelind, what):
    port = free_port()
    script = f"""
        path, what = sys.argv[1], {what!r}
        if what == 'file': open(path, 'w').write('no socket')
        elif what == 'directory': os.mkdir(path)
        elif what == 'socket of nobody': socket.socket(socket.AF_UNIX).bind(path)
        tell('READY=1')
        time.sleep(600)
        """
    daemon = panelind(
        command=[*python(script), "{socket}"],
        settings={**NOTIFY, "serve.listen": f"127.0.0.1:{port}", "serve.hold": "500ms"})
    daemon.ready()
    assert http(port, "/x").status in (502, 503)
    assert http(port, "/health").status == 200
    before = rss_bytes(daemon.pid)
    for _ in range(50):
        assert http(port, "/x").status in (502, 503)
    assert rss_bytes(daemon.pid) - before < 8 << 20
    place = pathlib.Path(environment_of(daemon.worker())[b"PANELIND_SOCKET"].decode())
    assert daemon.stop() == 0
    if what == "directory":
        # What is not a file stays, and nothing else is harmed by it.
        place.rmdir()
        place.parent.rmdir()
    assert not place.parent.exists()


@pytest.mark.parametrize("user", ["own", pytest.param("other", marks=ROOT)])
def test_its_places_are_closed_to_others_and_have_names_that_cannot_be_guessed(panelind, user):
    settings = as_loner() if user == "other" else dict(NOTIFY)
    settings |= {"serve.listen": f"127.0.0.1:{free_port()}", "control.path": "c.sock"}
    names = set()
    for _ in range(2):
        daemon = panelind(["listen unix {socket}", "notify READY=1"], settings, shared=True)
        daemon.ready()
        variables = environment_of(daemon.worker())
        notify = pathlib.Path(variables[b"NOTIFY_SOCKET"].decode())
        place = pathlib.Path(variables[b"PANELIND_SOCKET"].decode()).parent

        def mode(path):
            return stat.S_IMODE(path.lstat().st_mode)

        if user == "own":
            assert (mode(notify.parent), mode(notify), mode(place)) == (0o700, 0o600, 0o700)
        else:
            # The worker passes through and writes; who does not know the name finds nothing.
            assert (mode(notify.parent), mode(notify), mode(place)) == (0o711, 0o666, 0o770)
            assert place.stat().st_uid == LONER and notify.parent.stat().st_uid == 0
        assert mode(daemon.directory / "c.sock") == 0o600
        for directory in (notify.parent, place):
            assert re.fullmatch(r"panelind-[A-Za-z0-9]{6}", directory.name)
            names.add(directory)
        assert daemon.stop() == 0
    assert len(names) == 4 and not [name for name in names if name.exists()]


# -- what it prints


HOSTILE = "\\033]0;title\\007\\033]52;c;Y3VybA==\\007\\033[6n\\033[2J\\033[1A\\302\\2332Kshown\\033P+q\\033\\\\\\r\\b\\177\\n"


def test_no_escape_but_colour_reaches_a_terminal(tmp_path):
    """A log line may hold what a stranger sent to the worker: the title, the clipboard, the cursor are not its to set."""
    from test_logs import NEVER, run_on_pty, sh

    script = f"printf '{HOSTILE}'; printf '\\033[31mred\\033[0m {HOSTILE}' >&2; printf '{{\"message\":\"\\302\\2332J\"}}\\n'; exit 5"
    text = run_on_pty(tmp_path, sh(script), {**NEVER, "log.format": "text"}, {"TERM": "xterm"})
    assert "shown" in text and "\x1b[31mred" in text
    left = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not re.findall(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", left), repr(left)
    # The line discipline's own, before each newline, and no other.
    assert left.count("\r") == left.count("\r\n")


def test_no_escape_reaches_who_asks(panelind):
    script = f"""
        os.write(1, b'''{HOSTILE}''')
        tell('STATUS=\\033]0;title\\007\\302\\233hello\\nREADY=1')
        time.sleep(600)
        """
    daemon = panelind(command=python(script), settings={**NOTIFY, "control.path": "c.sock"})
    daemon.ready()
    control = Control(daemon.directory / "c.sock")
    wait_until(lambda: "shown" in command("logs", path=control.path).stdout, "its line")
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(2)
    for name in ("status", "why", "logs"):
        text = command(name, path=control.path).stdout
        assert text and not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), (name, repr(text))


def test_a_name_with_escapes_does_not_steer_the_terminal_of_the_log(panelind, tmp_path):
    """A survivor's command line is its own to choose."""
    program = tmp_path / "a\x1b]0;title\x07\u009b2Jb"
    program.symlink_to("/bin/sleep")
    script = f"""
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execv({str(program)!r}, [{str(program)!r}, '600'])
        tell('READY=1')
        time.sleep(0.3)
        os._exit(1)
        """
    daemon = panelind(
        command=python(script), settings={**NOTIFY, "log.format": "text", "restart.limit": 1, "restart.delay": "10ms"})
    assert daemon.wait() == 70
    text = b"".join(daemon.lines).decode()
    assert "left running" in text
    assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), repr(text)


# -- what it floods


def test_a_flood_of_output_delays_no_answer(panelind):
    """Both streams at full speed; every answer has its ceiling, and the last is as soon as the first."""
    daemon = panelind(["notify READY=1", "child begin flood end", "flood to stderr"], NOTIFY, sidecar=True)
    daemon.ready()
    wait_until(lambda: len(daemon.lines) > 10_000, "the flood is on")
    before = rss_bytes(daemon.pid)
    took = []
    for _ in range(200):
        begin = time.monotonic()
        assert daemon.get("/health", timeout=10).status == 200
        took.append(time.monotonic() - begin)
    assert sorted(took)[197] < 2, "p99"
    assert rss_bytes(daemon.pid) - before < 64 << 20
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(2)
    assert daemon.stop() == 0
    assert daemon.survivors() == []


SENDER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(sys.argv[1])
text = sys.argv[3].encode().decode('unicode_escape').encode()
for n in range(int(sys.argv[2])):
    s.send(text)
print('sent', flush=True)
"""


@pytest.mark.parametrize("text", ["STATUS=x", "READY=1", "WATCHDOG=1", "MAINPID=1", "X=" + r"\nREADY=1" * 400],
                         ids=["status", "ready", "watchdog", "mainpid", "many lines"])
def test_a_flood_of_notifications_from_its_tree_delays_nothing(panelind, text):
    """100,000 messages from a child; the death of the leader is noticed among them."""
    count = 100_000 if len(text) < 100 else 5_000
    script = f"""
        tell('READY=1')
        if os.fork() == 0:
            sys.argv = ['', os.environ['NOTIFY_SOCKET'], '{count}', {text!r}]
            exec({SENDER!r})
        time.sleep(600)
        """
    daemon = panelind(
        command=python(script), settings={**NOTIFY, "restart.delay": "20ms", "worker.watchdog": "60s"}, sidecar=True)
    daemon.ready()
    before = rss_bytes(daemon.pid)
    for _ in range(50):
        assert daemon.get("/health", timeout=5).status == 200
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.wait_event("worker_exited", timeout=10)
    daemon.ready(2)
    wait_until(lambda: "sent" in daemon.messages(), "the second one's flood is over, all was taken")
    assert rss_bytes(daemon.pid) - before < 16 << 20
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_notifications_with_descriptors_leave_none_behind(panelind):
    script = """
        s = tell('READY=1')
        s.connect(os.environ['NOTIFY_SOCKET'])
        null = os.open('/dev/null', os.O_RDONLY)
        for _ in range(500):
            socket.send_fds(s, [b'FDSTORE=1'], [null] * 250)
        print('sent', flush=True)
        time.sleep(600)
        """
    daemon = panelind(command=python(script), settings=NOTIFY, sidecar=True)
    daemon.ready()
    daemon.wait_message("sent")
    wait_until(lambda: fd_count(daemon.pid) < 60, lambda: fd_count(daemon.pid))
    assert daemon.get("/health").status == 200


@ROOT
def test_a_fork_bomb_stays_within_the_limit_and_is_gone_after_the_stop(panelind, placement):
    """RLIMIT_NPROC binds no root, so the worker has a user of its own."""
    script = """
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        tell('READY=1')
        while True:
            try:
                if os.fork() == 0: os.setsid()
            except OSError:
                # At the limit. That it also burns every CPU would be another test: of the machine's scheduler.
                time.sleep(0.01)
        """
    daemon = panelind(
        command=python(script), settings=as_loner(**{"worker.limits.processes": 60, "stop.budget": "9s"}),
        placement=placement, sidecar=True, shared=True)
    daemon.ready()

    def bombs():
        found = 0
        for one in pathlib.Path("/proc").iterdir():
            try:
                found += one.name.isdigit() and one.stat().st_uid == LONER
            except OSError:
                pass
        return found

    wait_until(lambda: bombs() >= 55, "the bomb has filled its limit")
    for _ in range(20):
        assert daemon.get("/health", timeout=5).status == 200
        assert bombs() <= 60
    assert daemon.stop(timeout=60) == 0
    assert daemon.took < 11
    wait_until(lambda: bombs() == 0, lambda: f"{bombs()} are left", timeout=2)


# -- what it does to itself


def test_one_that_closes_all_its_descriptors_is_supervised_on(panelind):
    script = """
        tell('READY=1')
        os.closerange(0, 65536)
        time.sleep(600)
        """
    daemon = panelind(command=python(script), settings={**NOTIFY, "restart.delay": "20ms"}, sidecar=True)
    daemon.ready()
    leader = daemon.worker()
    wait_until(lambda: fd_count(leader) == 0, "all are closed")
    assert daemon.get("/ready").status == 200
    os.kill(leader, signal.SIGKILL)
    daemon.ready(2)
    assert daemon.stop() == 0


@pytest.mark.parametrize("what", ["garbage", "endless head", "endless field", "giant length", "binary", "many answers"])
def test_what_is_no_answer_is_502_and_nothing_grows(front, what):
    steps = {
        "garbage": [send("\x16\x03\x01 what is this\r\n\r\n"), ["close"]],
        "endless head": [send("HTTP/1.1 200 OK\r\n" + "X-A: b\r\n" * 20_000), ["hang"]],
        "endless field": [send("HTTP/1.1 200 OK\r\nX-A: " + "b" * (4 << 20)), ["hang"]],
        "giant length": [send("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\nx"), ["close"]],
        "binary": [send("".join(map(chr, range(256))) * 100), ["close"]],
        "many answers": [send("HTTP/1.1 204 No Content\r\n\r\n" * 10_000), ["close"]],
    }[what]
    one = front({"/bad": [["body"], *steps]})
    assert one.serves()
    before = rss_bytes(one.daemon.pid)
    for _ in range(10):
        status = one.get("/bad").status
        assert status == (204 if what == "many answers" else 502)
        assert one.get("/health").status == 200
    assert one.serves()
    assert rss_bytes(one.daemon.pid) - before < 16 << 20


# -- what it does to panelind


@ROOT
@pytest.mark.parametrize("what", ["kill", "stop", "trace", "environ", "memory"])
def test_one_of_another_user_cannot_touch_panelind(panelind, what):
    script = f"""
        import ctypes
        parent, what = os.getppid(), {what!r}
        try:
            if what == 'kill': os.kill(parent, signal.SIGKILL)
            if what == 'stop': os.kill(parent, signal.SIGSTOP)
            if what == 'environ': open(f'/proc/{{parent}}/environ').read()
            if what == 'memory': open(f'/proc/{{parent}}/mem', 'rb').read(1)
            if what == 'trace':
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.ptrace(16, parent, None, None) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            print('it was let', flush=True)
        except PermissionError:
            print('refused', flush=True)
        tell('READY=1')
        time.sleep(600)
        """
    daemon = panelind(command=python(script), settings=as_loner(), sidecar=True, shared=True)
    daemon.wait_message("refused")
    daemon.ready()
    assert state(daemon.pid) not in "Tt"
    assert daemon.get("/health").status == 200
    assert daemon.stop() == 0


def test_one_of_the_same_user_that_stops_panelind_is_not_defended_against_but_nothing_is_lost_by_it(panelind):
    """SIGSTOP by the same user: panelind stands until somebody continues it, then it knows that time has passed."""
    daemon = panelind(
        command=python("tell('READY=1'); time.sleep(0.5); os.kill(os.getppid(), signal.SIGSTOP); time.sleep(600)"),
        settings={**NOTIFY, "restart.delay": "20ms"}, sidecar=True)
    daemon.ready()
    wait_until(lambda: state(daemon.pid) == "T", "panelind stands")
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.send(signal.SIGCONT)
    daemon.wait_event("clock_gap")
    daemon.wait_event("worker_exited", generation=1)
    # The next one does it again: the platform's watchdog or liveness probe is what ends this.
    wait_until(lambda: state(daemon.pid) == "T", "panelind stands again")
    daemon.send(signal.SIGCONT)
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_one_that_kills_panelind_dies_with_it(panelind):
    daemon = panelind(
        command=python("tell('READY=1'); time.sleep(0.3); os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"),
        settings=NOTIFY)
    daemon.ready()
    assert daemon.wait() == 128 + signal.SIGKILL
    wait_until(lambda: not daemon.survivors(), lambda: daemon.survivors())


def test_a_secret_is_in_no_file_of_proc_that_is_panelinds(panelind, tmp_path):
    """environ and cmdline; a core of panelind is another matter (docs/security.md)."""
    secret = "s3cr3t-0123456789"
    (tmp_path / "key").write_text(secret + "\n")
    daemon = panelind(
        command=python("tell('READY=1'); time.sleep(600)"),
        settings={**NOTIFY, "worker.secrets": {"API_KEY": str(tmp_path / "key")}})
    daemon.ready()
    assert environment_of(daemon.worker())[b"API_KEY"] == secret.encode()
    for name in ("environ", "cmdline"):
        assert secret.encode() not in pathlib.Path(f"/proc/{daemon.pid}/{name}").read_bytes()
    assert not any(secret.encode() in line for line in daemon.lines)
    assert daemon.stop() == 0
