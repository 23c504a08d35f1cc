# test_terminal.py
# In the foreground of a terminal: Ctrl-C, Ctrl-Z, a hangup, and a worker that shares the terminal. Case C12.
# A pty with a shell's job control, as a person has it. Read test_signals.py first.

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

from harness import Daemon, command_line, is_alive, process_group, state, wait_until

KEYS = {"C": b"\x03", "Z": b"\x1a", "D": b"\x04", "\\": b"\x1c"}


class Terminal:
    """A pty, all that came out of it, and keys into it."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        self.output = b""
        self.leave = os.pipe()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        # Never inside a read: that would keep the pty open over its close.
        while True:
            ready, _, _ = select.select([self.master, self.leave[0]], [], [])
            if self.leave[0] in ready:
                return
            try:
                self.output += os.read(self.master, 65536)
            except OSError:
                return

    def press(self, key):
        os.write(self.master, KEYS[key])

    def hang_up(self):
        if self.master is None:
            return
        os.write(self.leave[1], b"x")
        self.reader.join()
        for descriptor in (self.master, self.slave, *self.leave):
            os.close(descriptor)
        self.master = None

    def lead(self):
        """In the child: the pty is the controlling terminal of a new session, and we are in front."""
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)


@pytest.fixture
def terminal():
    made = Terminal()
    yield made
    made.hang_up()


def in_front(panelind, terminal, steps, settings=None, stdout=subprocess.PIPE, **options):
    """A panelind as the foreground of the terminal, its log still on a pipe unless told."""
    return panelind(steps, settings, stdin=terminal.slave, stdout=stdout, preexec_fn=terminal.lead, **options)


def recorded(path):
    if not path.exists():
        return []
    return [name for line in path.read_text().splitlines() if (name := line.split()[2]) != "SIGCHLD"]


@pytest.mark.case("C12")
@pytest.mark.parametrize("stdin", ["null", "inherit"])
def test_ctrl_c_is_one_stop_told_once(panelind, terminal, stdin):
    """TERM from panelind where the worker has its own group; where it shares the terminal, only the key's own INT."""
    daemon = in_front(
        panelind,
        terminal,
        ["record-signals sig", "on INT exit 0 after 500ms", "on TERM exit 0 after 500ms"],
        {"worker.stdin": stdin},
    )
    daemon.ready()
    assert (process_group(daemon.worker()) == process_group(daemon.pid)) is (stdin == "inherit")
    terminal.press("C")
    assert daemon.wait() == 0
    assert recorded(daemon.directory / "sig") == ["SIGINT" if stdin == "inherit" else "SIGTERM"]
    assert daemon.events("worker_exited")[0]["cause"] == "requested"


@pytest.mark.case("C12")
@pytest.mark.parametrize("stdin", ["null", "inherit"])
def test_a_second_ctrl_c_kills_at_once(panelind, terminal, stdin):
    daemon = in_front(
        panelind,
        terminal,
        ["ignore TERM", "ignore INT", "child begin ignore TERM ignore INT end"],
        {"worker.stdin": stdin, "stop.budget": "60s"},
    )
    daemon.ready()
    terminal.press("C")
    daemon.wait_event("drain_begin")
    # Equal signals that wait are one: the second key comes after the first was taken.
    terminal.press("C")
    begin = time.monotonic()
    assert daemon.wait() == 0
    assert time.monotonic() - begin < 5
    assert daemon.survivors() == []
    assert daemon.events("worker_exited")[0]["exit_signal"] == "SIGKILL"


def test_a_signal_of_a_person_is_repeated_to_a_worker_that_shares_the_terminal(panelind, terminal):
    """Only the terminal's own INT reached the worker already; one by `kill` did not."""
    daemon = in_front(panelind, terminal, ["record-signals sig"], {"worker.stdin": "inherit"})
    daemon.ready()
    assert daemon.stop(signal.SIGINT) == 0
    assert recorded(daemon.directory / "sig") == ["SIGTERM"]


@pytest.mark.parametrize("stdin", ["null", "inherit"])
def test_what_the_terminal_sends_reaches_the_worker_once(panelind, terminal, stdin):
    """Ctrl-\\ and a new size: by the terminal itself where the worker shares it, else by panelind."""
    daemon = in_front(panelind, terminal, ["record-signals sig"], {"worker.stdin": stdin})
    daemon.ready()
    seen = daemon.directory / "sig"
    terminal.press("\\")
    wait_until(lambda: recorded(seen) == ["SIGQUIT"], lambda: recorded(seen))
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 0, 0))
    wait_until(lambda: recorded(seen) == ["SIGQUIT", "SIGWINCH"], lambda: recorded(seen))
    daemon.send(signal.SIGUSR1)
    wait_until(lambda: "SIGUSR1" in recorded(seen), lambda: recorded(seen))
    assert recorded(seen) == ["SIGQUIT", "SIGWINCH", "SIGUSR1"]
    assert daemon.stop() == 0


@pytest.mark.case("C12")
@pytest.mark.parametrize("stdin", ["null", "inherit"])
def test_ctrl_z_stops_all_and_fg_resumes_all(panelind, terminal, stdin):
    daemon = in_front(panelind, terminal, ["child begin tag kid end"], {"worker.stdin": stdin}, sidecar=True)
    daemon.ready()
    everybody = [daemon.pid, *(one.pid for one in daemon.survivors())]
    assert len(everybody) == 3
    terminal.press("Z")
    wait_until(lambda: [state(pid) for pid in everybody] == ["T"] * 3, "all are stopped")
    # What a shell's fg does.
    os.killpg(process_group(daemon.pid), signal.SIGCONT)
    wait_until(lambda: "T" not in [state(pid) for pid in everybody], "all go on")
    assert daemon.health()["state"] == "ready"
    # And once more: nothing was lost.
    terminal.press("Z")
    wait_until(lambda: [state(pid) for pid in everybody] == ["T"] * 3, "all are stopped again")
    os.killpg(process_group(daemon.pid), signal.SIGCONT)
    wait_until(lambda: "T" not in [state(pid) for pid in everybody], "all go on again")
    terminal.press("C")
    assert daemon.wait() == 0


@pytest.mark.case("C12")
def test_a_real_shells_job_control(panelind, terminal, tmp_path):
    """bash in the pty starts panelind, Ctrl-Z gives the prompt back, fg resumes, Ctrl-C ends."""
    daemon = Daemon(tmp_path, ["child begin tag kid end"])
    daemon.write_settings()
    line = " ".join(map(str, daemon.command()))
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=terminal.slave,
        stdout=terminal.slave,
        stderr=terminal.slave,
        preexec_fn=terminal.lead,
        env={**daemon.environment, "PS1": "$ ", "TERM": "dumb"},
        cwd=tmp_path,
    )
    try:

        def ours():
            return [one for one in daemon.survivors() if one.pid != shell.pid]

        def own():
            return [one.pid for one in ours() if "panelind run" in one.command]

        os.write(terminal.master, f"{line}\n".encode())
        wait_until(lambda: b"is ready" in terminal.output, lambda: terminal.output)
        assert len(ours()) == 3
        terminal.press("Z")
        wait_until(lambda: {one.state for one in ours()} == {"T"}, lambda: ours())
        wait_until(lambda: b"Stopped" in terminal.output, lambda: terminal.output)
        os.write(terminal.master, b"fg\n")
        wait_until(lambda: "T" not in {one.state for one in ours()}, lambda: ours())
        terminal.press("C")
        wait_until(lambda: not ours(), lambda: ours())
        os.write(terminal.master, b"echo code=$?\n")
        wait_until(lambda: b"code=0" in terminal.output, lambda: terminal.output)
        os.write(terminal.master, b"exit\n")
        shell.wait(20)
    finally:
        shell.kill()
        shell.wait()
        for one in daemon.survivors():
            os.kill(one.pid, signal.SIGKILL)


def test_a_worker_with_the_terminal_reads_from_it(panelind, terminal):
    daemon = panelind(
        command=["sh", "-c", "read line; echo got $line; exec sleep 60"],
        settings={"worker.stdin": "inherit"},
        stdin=terminal.slave,
        preexec_fn=terminal.lead,
    )
    daemon.worker()
    os.write(terminal.master, b"hello\n")
    daemon.wait_message("got hello")
    assert daemon.stop() == 0


def test_a_worker_without_the_terminal_reads_nothing(panelind, terminal):
    daemon = panelind(
        command=["sh", "-c", "read line || echo nothing; exec sleep 60"], stdin=terminal.slave, preexec_fn=terminal.lead
    )
    daemon.wait_message("nothing")
    assert daemon.stop() == 0


@pytest.mark.parametrize("stdin", ["null", "inherit"])
def test_a_hangup_of_the_terminal_is_a_stop(panelind, terminal, stdin):
    daemon = in_front(panelind, terminal, ["child begin tag kid end"], {"worker.stdin": stdin})
    daemon.ready()
    terminal.hang_up()
    assert daemon.wait() == 0
    assert daemon.survivors() == []


def test_a_worker_that_shares_the_terminal_is_stopped_without_its_supervisor(panelind, terminal):
    """panelind is in the same group: the stop signal must not come back to it, nor to a neighbour in the pipeline."""
    with subprocess.Popen(["sleep", "60"]) as neighbour:
        daemon = in_front(
            panelind,
            terminal,
            ["ignore TERM", "child begin ignore TERM end"],
            {"worker.stdin": "inherit", "stop.grace": "300ms"},
        )
        daemon.ready()
        assert daemon.stop(signal.SIGTERM) == 0
        assert daemon.survivors() == []
        assert is_alive(neighbour.pid), command_line(neighbour.pid)
        neighbour.kill()


# -- what a person sees


def shown(terminal):
    return terminal.output.decode(errors="replace")


def test_a_run_on_a_terminal_says_what_it_does_and_how_to_stop(panelind, terminal):
    daemon = in_front(
        panelind, terminal, ["print hello", "notify READY=1", "on TERM exit 0 after 2500ms"],
        {"probe.readiness.notify": True, "stop.budget": "30s", "control.path": "c.sock"}, stdout=terminal.slave,
        sidecar=True)
    wait_until(lambda: "is ready" in shown(terminal), "it is ready")
    text = shown(terminal)
    assert "supervises" in text
    assert f"status page on http://127.0.0.1:{daemon.sidecar_port}/" in text
    assert "Ctrl-C stops within 30s, twice at once" in text and "panelind why" in text
    assert "\x1b[" in text, "a terminal has colours"
    # The time, then a name of one width: messages of panelind and of the worker stand below each other.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    starts = {line.index(word) for word in ("hello", "worker g1 is ready") for line in plain if line.endswith(word)
              or word in line and "ready" in word}
    assert len(starts) == 1, plain
    terminal.press("C")
    wait_until(lambda: shown(terminal).count("s left; Ctrl-C ends it now") >= 2, "the stop is counted down")
    counts = [int(n) for n in re.findall(r"at most (\d+)s left", shown(terminal))]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == len(counts)
    assert daemon.wait() == 0


def test_no_color_is_honoured(panelind, terminal):
    daemon = in_front(panelind, terminal, ["print hello", "notify READY=1"], {"probe.readiness.notify": True},
                      stdout=terminal.slave, environment={"NO_COLOR": "1"})
    wait_until(lambda: "is ready" in shown(terminal), "it is ready")
    terminal.press("C")
    assert daemon.wait() == 0
    assert "\x1b" not in shown(terminal)


@pytest.mark.parametrize("format", ["inherit", "text"])
def test_breakpoint_in_a_python_worker_works(panelind, terminal, tmp_path, format):
    script = tmp_path / "debugged.py"
    script.write_text("import time\nprice = 6\nbreakpoint()\nprint('went on', flush=True)\ntime.sleep(600)\n")
    daemon = in_front(panelind, terminal, None, {"worker.stdin": "inherit", "log.format": format},
                      stdout=terminal.slave, command=["/usr/bin/python3", "-u", script])
    if format == "inherit":
        wait_until(lambda: "(Pdb)" in shown(terminal), "the prompt")
    else:
        wait_until(lambda: "debugged.py(4)" in shown(terminal), "where it stands")
    os.write(terminal.master, b"p price * 7\n")
    wait_until(lambda: re.search(r"\b42\b", shown(terminal)), "the answer")
    os.write(terminal.master, b"c\n")
    wait_until(lambda: "went on" in shown(terminal), "the worker goes on")
    terminal.press("C")
    assert daemon.wait() == 0
