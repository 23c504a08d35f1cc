# agent.py
# The example agent under uvicorn, with a witness before it: which requests reached a worker, and how many lines it wrote.
# Read Examples/agent/api.py first; soak.py starts it and reads what it leaves in $SOAK_RECORDS.
"""`uvicorn agent:app --app-dir Tests/Soak` serves it; orders come as POST /soak/flood and /soak/escape."""

import mmap
import os
import pathlib
import struct
import subprocess
import sys
import threading

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "Examples" / "agent"))
from api import app as agent  # noqa: E402

RECORDS = pathlib.Path(os.environ["SOAK_RECORDS"])
GENERATION = os.environ["PANELIND_GENERATION"].partition(":")[0]
LINES = 20  # in one write, which stays below PIPE_BUF and is therefore whole or not at all

requests = os.open(RECORDS / "requests", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def survivors():
    """Escaped descendants that live although the worker which started them does not."""
    for one in RECORDS.glob("escaped-*"):
        _, pid, leader = one.name.split("-")
        if alive(pid) and not alive(leader):
            yield pid


# Written before this worker does anything else: soak.py knows whether a predecessor may still be leaving.
(RECORDS / f"start-{GENERATION}").write_text(f"{os.getpid()} {' '.join(survivors())}\n")


class Lines:
    """Numbered lines on stdout; how many were begun and done survives a kill, because it is in a shared page."""

    def __init__(self):
        path = RECORDS / f"lines-{GENERATION}"
        path.write_bytes(bytes(16))
        with open(path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 16)
        self.number = 0
        self.lock = threading.Lock()

    def write(self, count):
        with self.lock:
            for _ in range(0, count, LINES):
                block = b"".join(
                    b"soak-line %s %d %s\n" % (GENERATION.encode(), self.number + n, b"." * 60)
                    for n in range(1, LINES + 1)
                )
                self.page[0:8] = struct.pack("<Q", self.number + LINES)
                os.write(1, block)
                self.number += LINES
                self.page[8:16] = struct.pack("<Q", self.number)


lines = Lines()


def escape():
    """A descendant in a session of its own whose parent has left, and that takes no TERM."""
    code = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid();"
        "os.fork() and os._exit(0); open(sys.argv[1] + f'/escaped-{os.getpid()}-{sys.argv[2]}', 'w').close();"
        "time.sleep(3600)"
    )
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(RECORDS), str(os.getpid())], stdin=subprocess.DEVNULL, check=True
    )


async def answer(send, body):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    if scope["type"] == "http":
        for name, value in scope["headers"]:
            if name == b"x-soak-id":
                os.write(requests, value + b" " + GENERATION.encode() + b"\n")
        path, query = scope["path"], scope["query_string"]
        if path == "/soak/echo":
            return await answer(send, query)
        if path == "/soak/flood":
            threading.Thread(target=lines.write, args=(int(query),), daemon=True).start()
            return await answer(send, b"begun")
        if path == "/soak/escape":
            escape()
            return await answer(send, b"gone")
    await agent(scope, receive, send)
