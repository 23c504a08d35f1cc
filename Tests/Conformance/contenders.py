# contenders.py
# What a case asks of a supervisor, how one is started for it and told things, and how panelind is.
# `can` names what it offers; a case that needs more is not applicable. Read places.py first, peers.py and cases.py next.

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field

from harness import binaries, free_port, scripted_worker


@dataclass
class Want:
    """What a case asks for."""

    steps: list = field(default_factory=list)
    command: list | None = None
    restart: bool = True
    grace: float = 2
    delay: str = "100ms"
    factor: float = 1
    limit: int | None = None
    port: int = 0            # the worker binds it itself
    inherit: int = 0         # the supervisor, or its parent, listens there and the worker inherits the socket
    front: int = 0           # the supervisor serves there and asks the worker
    liveness: int = 0        # the worker's port, to be asked
    ready: bool = False      # readiness is wanted
    log: bool = False        # its lines are wanted
    secret: str = ""
    broken: bool = False     # a configuration that is no configuration
    settings: dict = field(default_factory=dict)
    around: list = field(default_factory=list)   # a command that starts the supervisor


class Run:
    """One supervisor in a directory of its own."""

    def __init__(self, contender, place, want, directory):
        self.contender, self.place, self.want, self.directory = contender, place, want, directory
        self.out = open(directory / "out", "ab")
        self.environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(directory), "LANG": "C.UTF-8"}
        self.descriptors = []
        self.process = None

    @property
    def worker(self):
        return list(map(str, self.want.command or scripted_worker(*self.want.steps)))

    def file(self, name, text=None, mode=0o644):
        path = self.directory / name
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
        return path

    def start(self):
        argv = [*self.want.around, *map(str, self.contender.argv(self))]
        self.process = self.place.launch(argv, self.environment, self.directory, self.out, tuple(self.descriptors))
        return self

    def stop(self):
        """The documented way to end everything: exit code or None, and seconds."""
        begin = time.monotonic()
        self.contender.stop(self)
        code = self.process.wait(20)
        return code, time.monotonic() - begin

    def again(self):
        """A second supervisor on the same state: exit code or None where it runs."""
        argv = self.contender.argv(self)
        second = self.place.launch(list(map(str, argv)), self.environment, self.directory, self.out)
        code = second.wait(4)
        self.place.end(second)
        return code

    def clean_up(self):
        if self.process:
            self.place.end(self.process)
        self.contender.clean_up(self)
        self.out.close()


class Contender:
    can = frozenset()
    program = ""
    #: where it stands, unless a case wants it as PID 1
    place = "process"
    #: the worker is kept by somebody else
    is_proxy = False

    def is_there(self):
        return shutil.which(self.program) is not None

    def version(self):
        return ""

    def argv(self, run):
        raise NotImplementedError

    def stop(self, run):
        run.process.send(signal.SIGTERM)

    def usr1(self, run):
        run.process.send(signal.SIGUSR1)

    def clean_up(self, run):
        pass

    def lines(self, run):
        """The worker's lines in the log."""
        return []

    def tell(self, *argv, timeout=30):
        return subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


class Panelind(Contender):
    name, program = "panelind", "panelind"
    can = frozenset(
        "oneshot usr1 stop kill group tree crashtree reap pdeath restart backoff giveup command inherit ready liveness log "
        "secret config reload exclusive front hold".split())

    def is_there(self):
        return (binaries() / "panelind").exists()

    def settings(self, run):
        want = run.want
        worker = {"command": run.worker}
        settings = {
            "platform": "local", "worker": worker, "sidecar": {"listen": f"127.0.0.1:{self.sidecar(run)}"},
            "control": {"path": str(run.directory / "c.sock")}, "log": {"format": "json"},
            "restart": {"policy": "always" if want.restart else "never", "delay": want.delay, "factor": want.factor,
                        "jitter": 0, "maxDelay": "30s", "limit": want.limit or "none", "permanentExitCodes": []},
            "stop": {"budget": f"{want.grace + 1}s", "drain": "0s", "grace": f"{want.grace}s"},
        }
        if want.port:
            worker["environment"] = {"PORT": str(want.port)}
        if want.inherit:
            settings["serve"] = {"listen": f"127.0.0.1:{want.inherit}"}
            worker["command"] = [word.replace("FD", "{fd}") for word in run.worker]
        if want.front:
            settings["serve"] = {"listen": f"127.0.0.1:{want.front}"}
            worker["command"] = [word.replace("WORKER", "{port}") for word in run.worker]
            settings["stop"] = {"budget": "9s"}
        if want.ready:
            settings["probe"] = {"readiness": {"fd": 3}}
        if want.liveness:
            settings["probe"] = {"liveness": {"http": f"http://127.0.0.1:{want.liveness}/health", "period": "1s",
                                              "timeout": "1s", "failures": 2}}
        if want.secret:
            run.file("secret", want.secret + "\n", 0o644)
            worker["secrets"] = {"THE_SECRET": str(run.directory / "secret")}
        for key, value in want.settings.items():
            settings.setdefault(key.split(".")[0], {})[key.split(".")[1]] = value
        return settings

    def sidecar(self, run):
        run.sidecar = getattr(run, "sidecar", None) or free_port()
        return run.sidecar

    def argv(self, run):
        text = "worker: { command: [x }\n" if run.want.broken else json.dumps(self.settings(run))
        return [binaries() / "panelind", "run", "--config", run.file("panelind.yaml", text)]

    def records(self, run):
        found = []
        for line in (run.directory / "out").read_bytes().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                pass
        return found

    def lines(self, run):
        return [one.get("message") for one in self.records(run) if "event" not in one]

    def told(self, run, *words):
        return run.place.command(run.process, [str(binaries() / "panelind"), *words, "--control",
                                               str(run.directory / "c.sock")])

    def restart(self, run):
        code, text = self.told(run, "restart")
        assert code == 0, text

    def ready(self, run):
        return "ready" == json.loads(self.told(run, "status", "--json")[1])["state"]

    def gave_up(self, run):
        return run.process.wait(15) == 70

    def break_configuration(self, run):
        run.file("panelind.yaml", "worker: { command: [x }\n")
        code, text = self.told(run, "reload")
        return code != 0
