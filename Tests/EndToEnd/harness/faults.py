# faults.py
# Makes system calls of a panelind fail by a plan, and says what it did about it: harness/faults.c is preloaded into it.
# A plan is a string of rules, such as `accept4=EMFILE@1-3 write[pipe]=EIO@2/3`; faults.c says how they are read.

import json
import mmap
import os
import pathlib
import resource
import signal
import struct
import subprocess
import time

from . import processes
from .network import free_port, http
from .waiting import PATIENCE, wait_until

HERE = pathlib.Path(__file__).resolve().parent


def build_library(directory, source=HERE / "faults.c"):
    """Compiles what is preloaded."""
    target = (pathlib.Path(directory) / source.name).with_suffix(".so")
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", target, source], check=True)
    return target


class Plan:
    """The rules of one panelind, and their counters, which both sides see."""

    def __init__(self, library, directory, rules):
        self.rules = rules.split()
        self.path = pathlib.Path(directory) / "faults.state"
        self.path.write_bytes(bytes(8 + 16 * 16))
        with self.path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(library), "FAULTS": rules, "FAULTS_STATE": str(self.path)}

    def arm(self, on=True):
        """From now on the rules count and strike, or no longer."""
        self.memory[0:8] = struct.pack("=Q", on)

    def _counters(self):
        return list(struct.iter_unpack("=QQ", self.memory[8 : 8 + 16 * len(self.rules)]))

    @property
    def seen(self):
        """Calls that a rule was asked about, by rule."""
        return [seen for seen, _ in self._counters()]

    @property
    def struck(self):
        """How many calls were made to fail."""
        return sum(struck for _, struck in self._counters())

    @property
    def persists(self):
        """A rule of it strikes for ever: nothing passes before it is disarmed."""
        return any(rule.endswith("-") or "/" in rule.rpartition("@")[2] for rule in self.rules)

    def close(self):
        self.memory.close()


def cpu_of_children():
    """Seconds of CPU of all processes that this one has waited for, and of those that they have."""
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


# How a worker is served: its steps, and what else panelind must be told.
MODES = {
    "front": (["listen unix '{socket}'"], {}),
    "port": (["listen '{port}'"], {}),
    "socket": (["listen fd '{fd}'"], {}),
    "direct": (["listen env"], {}),
}

# For so long a fault that does not pass by itself is left to do harm.
HARM = 1.0


class Story:
    """One panelind's life with a fault in it; the tests judge what is written down here.

    It starts, is asked, its worker is killed, it is asked again, it stops. The fault is there from `at` on: "start",
    "ready" or "stop"; one that does not pass by itself is taken away after a second of harm.

    Afterwards: `code` of its end, the last `generation` that was ready, `answers` of clients, `asked_to_stop`, `struck`, `cpu` and
    `seconds`, `left` behind processes and files.
    """

    def __init__(self, panelind, library, directory, rules, *, mode="front", at="start", settings=None, **options):
        self.at = at
        self.answers = []
        self.generation = 0
        self.asked_to_stop = False
        self.plan = Plan(library, directory, rules)
        self.port = free_port()
        self.temporary = pathlib.Path(directory) / "tmp"
        self.temporary.mkdir(exist_ok=True)
        before, begin = cpu_of_children(), time.monotonic()
        if at == "start":
            self.plan.arm()
        self.again = lambda faults, **more: self.start(panelind, mode, settings, faults, more)
        self.daemon = self.start(panelind, mode, settings, self.plan.environment, options)
        try:
            self.live()
        finally:
            self.struck = self.plan.struck
            self.seen = self.plan.seen
            self.plan.close()
        self.cpu, self.seconds = cpu_of_children() - before, time.monotonic() - begin
        self.left = [one.command for one in self.daemon.survivors()]
        self.left += [str(path) for path in self.temporary.iterdir()]

    def start(self, panelind, mode, settings, environment, options):
        options = dict(options)
        steps, more = MODES[mode]
        own = {
            "restart.delay": "20ms", "restart.maxDelay": "50ms", "restart.jitter": 0,
            "control.path": str(self.temporary / "control.sock"), **more,
        }
        if mode != "direct":
            own["serve.listen"] = f"127.0.0.1:{self.port}"
        variables = {"TMPDIR": self.temporary, **environment}
        if mode == "direct":
            variables["PORT"] = self.port
        options = {"sidecar": True, **options}
        variables.update(options.pop("environment", {}))
        return panelind(steps, {**own, **(settings or {})}, environment=variables, **options)

    # -- what happens

    def live(self):
        self.until_ready(0)
        if self.ended:
            self.code = self.daemon.wait()
            return
        if self.at == "ready":
            self.plan.arm()
        self.ask()
        if not self.ended:
            self.kill()
            self.until_ready(self.generation)
            self.ask()
        if self.at == "stop":
            self.plan.arm()
        if not self.ended:
            self.asked_to_stop = True
            self.daemon.send(signal.SIGTERM)
        self.code = self.daemon.wait()

    @property
    def ended(self):
        return self.daemon.popen.poll() is not None

    @property
    def ready(self):
        """The generation that is ready, as the sidecar says it: the log may be what fails. Else 0."""
        try:
            answer = self.daemon.get("/ready", timeout=2)
        except OSError:
            return 0
        self.generation = json.loads(answer.body)["generation"] if answer.status == 200 else self.generation
        return self.generation if answer.status == 200 else 0

    def until_ready(self, after):
        """Until a later generation is ready, or the end; the fault is taken away where it has done enough."""
        struck_at = None

        def is_over():
            nonlocal struck_at
            if self.ready > after or self.ended:
                return True
            if self.plan.persists and self.plan.struck:
                struck_at = struck_at or time.monotonic()
                if time.monotonic() - struck_at > HARM:
                    self.plan.arm(False)
            return False

        wait_until(is_over, f"a generation after {after} is ready, or the end", timeout=PATIENCE)

    def ask(self):
        """A few clients, one after the other, each as patient as it must be."""
        def is_answered():
            if self.ended:
                return True
            try:
                answer = http(self.port, "/", timeout=2)
            except OSError:
                if self.plan.persists and self.plan.struck:
                    self.plan.arm(False)
                return False
            self.answers.append(answer.status)
            return answer.status == 200

        for _ in range(3):
            wait_until(is_answered, "a client is answered, or the end")

    def kill(self):
        for one in processes.children(self.daemon.pid):
            os.kill(one.pid, signal.SIGKILL)

    # -- what it said

    @property
    def said(self):
        """Its complaint: what is on stderr, or its own last records from a warning on."""
        records = [r for r in self.daemon.events() if r["severity"] in ("WARNING", "ERROR", "CRITICAL")]
        return self.daemon.stderr.strip() or " | ".join(r["message"] for r in records[-3:])

    # -- what must be true whatever fails

    def is_lawful(self):
        """No crash, no survivor, nothing left behind, no busy loop; one clear error where it ends by itself."""
        assert self.code in (0, 70, 71, 78, 126, 127), f"{self.code}: {self.said}"
        assert self.code != 0 or self.asked_to_stop, f"it ended with 0 unasked: {self.said}"
        assert self.left == [], f"left behind after {self.code}: {self.said}"
        assert len(self.daemon.stderr.splitlines()) <= 1, self.daemon.stderr
        if self.code:
            assert self.said, "it says why it ends"
        # A start costs some hundredths of a second; a loop without rest would cost all of them.
        assert self.cpu < 0.5 + 0.25 * self.seconds, f"{self.cpu:.2f} s of CPU in {self.seconds:.2f} s"

    def starts_again(self):
        """What it left does not hinder the next one with the same settings."""
        if not self.code:
            return
        next_one = self.again({})
        next_one.ready()
        assert next_one.stop() == 0
