# test_openapi.py
# docs/openapi.yaml says what the daemon does: schemathesis asks everything it describes, and much it does not.
# schemathesis speaks TCP only; a few lines carry its bytes to the unix socket.

import os
import pathlib
import shutil
import socket
import subprocess
import threading

import pytest

from harness import is_alive
from harness.control import Control

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = shutil.which("schemathesis") or shutil.which("schemathesis", path=ROOT / ".venv" / "openapi" / "bin")


def carry(path):
    """A port on loopback whose connections go to the unix socket."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(str(path))
            except OSError:
                client.close()
                continue
            threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
            threading.Thread(target=pump, args=(upstream, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener


@pytest.mark.skipif(not TOOL, reason="schemathesis is not installed: scripts/setup openapi")
@pytest.mark.timeout(600)
def test_schemathesis_finds_no_difference_between_the_file_and_the_daemon(panelind, tmp_path):
    daemon = panelind(["print 20 lines", "notify READY=1"],
                      {"probe.readiness.notify": True, "control.path": "c.sock", "restart.delay": "10ms"})
    daemon.ready()
    # An end, so that there is one to tell of.
    os.kill(daemon.worker(), 9)
    daemon.ready(2)
    listener = carry(daemon.directory / "c.sock")
    try:
        done = subprocess.run(
            [TOOL, "run", ROOT / "docs" / "openapi.yaml", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}",
             # A stop would end what is asked, and a stream never ends.
             "--exclude-operation-id", "stop", "--exclude-checks", "positive_data_acceptance",
             "--max-examples", "25", "--seed", "1", "--phases", "examples,coverage,fuzzing",
             "--request-timeout", "3", "--no-color"],
            capture_output=True, text=True, timeout=500, cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)})
    finally:
        listener.close()
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert is_alive(daemon.pid)
    status, body = Control(daemon.directory / "c.sock").post("/v1/stop")
    assert (status, body["exit_code"]) == (200, 0)
    assert daemon.wait() == 0
