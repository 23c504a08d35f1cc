# stops.py
# Stops in the situations where a stop is hard, each with a panelind of its own: within the budget, exit 0, nobody left.
# Read soak.py first.

import os
import signal
import threading
import time

from harness import Daemon, free_port, http, is_alive, wait_until

BUDGET = 9.0  # stop.budget of the platform local


class Trial:
    """One panelind with the agent, and what is done to it before SIGTERM."""

    def __init__(self, directory, command, environment):
        self.directory, self.command, self.environment = directory, command, environment
        self.directory.mkdir()

    def run(self, situation):
        """(seconds, what was wrong or "")"""
        port = free_port()
        settings = {
            "serve.listen": f"127.0.0.1:{port}", "log.buffer": "1MiB", "log.format": "json",
            "worker.environment": {**self.environment, "SOAK_RECORDS": str(self.directory)},
        }
        command = self.command
        if situation == "in backoff":
            command, settings["restart.delay"] = ["false", "{socket}"], "60s"
            settings["restart.maxDelay"] = "60s"
        read, write = os.pipe()
        daemon = Daemon(self.directory, command=command, settings=settings, stdout=write, start_new_session=True,
                        wrapper=["setpriv", "--pdeathsig", "TERM"])
        daemon.environment["AGENT_TESTING"] = "1"
        log = open(read, "rb")
        wrong = []
        try:
            daemon.start()
            os.close(write)
            go = threading.Event()
            if situation != "nobody reads the log":
                go.set()
            threading.Thread(target=lambda: (go.wait(), log.read()), daemon=True).start()
            try:
                self.prepare(situation, daemon, port, wrong)
                begin = time.monotonic()
                code = daemon.stop(signal.SIGTERM, 60)
                took = time.monotonic() - begin
            finally:
                go.set()
            for check in getattr(self, "afterwards", []):
                check()
            if code != 0:
                wrong.append(f"exit {code}")
            if took > BUDGET:
                wrong.append(f"{took:.2f} s, the budget is {BUDGET:g} s")
            if left := daemon.survivors():
                wrong.append(f"left: {[one.command for one in left]}")
            return took, "; ".join(wrong)
        finally:
            daemon.clean_up()

    def prepare(self, situation, daemon, port, wrong):
        self.afterwards = []
        health = lambda: self.state(port)
        if situation == "in backoff":
            wait_until(lambda: health() == "backoff", "backoff")
            return
        if situation == "while it starts":
            wait_until(lambda: health() == "starting", "starting")
            return
        wait_until(lambda: health() == "ready", "ready", 60)
        pid = wait_until(lambda: self.leader(), "the worker has said its pid")
        if situation == "a request in flight":
            got = []
            thread = threading.Thread(target=lambda: got.append(self.status(port, "/slow?seconds=2")))
            thread.start()
            time.sleep(0.3)
            self.afterwards = [thread.join, lambda: got == [200] or wrong.append(f"the request: {got}")]
        elif situation == "a request that never ends":
            threading.Thread(target=self.status, args=(port, "/slow?seconds=600"), daemon=True).start()
            time.sleep(0.3)
        elif situation == "an event stream without end":
            threading.Thread(target=self.status, args=(port, "/stream?count=100000&seconds=0.1"), daemon=True).start()
            time.sleep(0.3)
        elif situation == "the worker is stopped":
            os.kill(pid, signal.SIGSTOP)
        elif situation == "escaped descendants ignore TERM":
            for _ in range(3):
                http(port, "/soak/escape", "POST", b"")
            wait_until(lambda: len(list(self.directory.glob("escaped-*"))) == 3, "three have escaped")
            escaped = [int(path.name.split("-")[1]) for path in self.directory.glob("escaped-*")]
            self.afterwards = [lambda: any(map(is_alive, escaped)) and wrong.append("an escaped one lives")]
        elif situation == "nobody reads the log":
            http(port, "/soak/flood?40000", "POST", b"")
            time.sleep(2)

    def leader(self):
        found = list(self.directory.glob("start-1"))
        return int(found[0].read_text().split()[0]) if found and found[0].read_text() else None

    @staticmethod
    def state(port):
        try:
            return http(port, "/health").body.decode().split('"state":"')[1].split('"')[0]
        except OSError:
            return None

    @staticmethod
    def status(port, path):
        try:
            return http(port, path, timeout=60).status
        except OSError as error:
            return repr(error)


SITUATIONS = [
    "idle", "while it starts", "in backoff", "a request in flight", "a request that never ends",
    "an event stream without end", "the worker is stopped", "escaped descendants ignore TERM", "nobody reads the log",
]
