# test_quick_start.py
# What a new reader types first: `make run`, a quote, a kill, Ctrl-C. By scripts/run-agent, which is what make runs.
# Read test_real_workers.py first.

import json
import os
import pty
import select
import signal
import subprocess
import time
import uuid

import pytest

from harness import binaries, free_port, http, wait_until
from harness.daemon import ROOT
from harness.processes import carriers, children, is_alive
from test_real_workers import quote, tool


class Session:
    """The flow in a terminal of its own, or with plain pipes; everything it writes is kept."""

    def __init__(self, tmp_path, terminal):
        tool("uvicorn", ROOT / ".venv" / "agent" / "bin")
        self.port = free_port()
        self.side = free_port()
        self.tag = f"tag-{uuid.uuid4().hex}"
        # The script runs the release build; the tests may have another.
        command = ["sh", "-c", f'exec "$0" run -- "{ROOT}/.venv/agent/bin/uvicorn" api:app --uds "{{socket}}"']
        if binaries() == ROOT / ".build" / "release":
            command = [str(ROOT / "scripts" / "run-agent")]
        else:
            command.append(str(binaries() / "panelind"))
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": str(self.port), "TEST_TAG": self.tag,
            "PANELIND_SIDECAR_LISTEN": f"127.0.0.1:{self.side}", "PANELIND_CONTROL_PATH": "none", "TERM": "xterm",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.text = b""
        options = {"cwd": ROOT / "Examples" / "agent", "env": environment, "start_new_session": True}
        if terminal:
            self.master, slave = pty.openpty()

            def take_terminal():
                import fcntl
                import termios

                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

            self.process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal, **options)
            os.close(slave)
        else:
            self.master, writing = os.pipe()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, **options)
            os.close(writing)

    def read(self):
        """Takes what is there; the terminal must not fill up."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                return
            if not piece:
                return
            self.text += piece

    def status(self, path):
        self.read()
        try:
            return http(self.side, path, timeout=5).status
        except OSError:
            return None

    def end(self):
        for one in carriers(self.tag):
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.kill()
        self.process.wait(30)
        os.close(self.master)


@pytest.fixture(params=[True, False], ids=["terminal", "process"])
def session(tmp_path, request):
    one = Session(tmp_path, request.param)
    one.terminal = request.param
    yield one
    one.end()


def test_run_quote_kill_interrupt(session):
    wait_until(lambda: session.status("/ready") == 200, "ready", timeout=60)
    status, body = quote(session.port)
    assert status == 200 and body["total_usd"] == 2988.05

    # kill -9 of uvicorn while clients ask: each is answered. A POST in the hands of the dying one would be a 502.
    (worker,) = [one for one in children(session.process.pid) if "uvicorn" in one.command]
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.pid), "it is dead", every=0.001)
    begin = time.monotonic()
    for _ in range(20):
        status, body = quote(session.port)
        assert status == 200 and body["total_usd"] == 2988.05
        session.read()
    assert time.monotonic() - begin < 60
    wait_until(lambda: session.status("/ready") == 200, "ready again")
    assert json.loads(http(session.side, "/health").body)["restarts"] == 1

    if session.terminal:
        os.write(session.master, b"\x03")
    else:
        session.process.send_signal(signal.SIGINT)
    wait_until(lambda: session.read() or session.process.poll() is not None, "panelind has ended", timeout=30)
    session.read()
    assert session.process.returncode == 0
    wait_until(lambda: not carriers(session.tag), "nothing is left", timeout=5)
    text = session.text.decode(errors="replace")
    if session.terminal:
        assert "is ready" in text and '{"severity"' not in text
    else:
        assert '"event":"worker_ready"' in text
