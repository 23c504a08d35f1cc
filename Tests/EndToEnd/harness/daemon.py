# daemon.py
# One panelind under test: its settings file, its place among the processes, its log as events, its end.
# Nothing here knows what is right; the tests do.

import calendar
import enum
import json
import os
import pathlib
import shlex
import signal as signals
import subprocess
import tempfile
import threading
import time
import uuid

from . import processes
from .network import free_port, http
from .waiting import PATIENCE, TimedOut, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]
HERE = pathlib.Path(__file__).resolve().parent


def binaries():
    """The directory of the built programs."""
    directory = pathlib.Path(os.environ.get("PANELIND_BIN_DIR", ROOT / ".build" / "release"))
    assert (directory / "panelind").exists(), f"{directory}/panelind is not built: make build, or set PANELIND_BIN_DIR"
    return directory


def scripted_worker(*steps):
    """A command list of the scripted worker; steps are strings of words, or lists."""
    words = [word for step in steps for word in (shlex.split(step) if isinstance(step, str) else map(str, step))]
    return [str(binaries() / "scripted-worker"), *words]


def build_tool(name, directory):
    """Compiles harness/NAME.c."""
    target = pathlib.Path(directory) / name
    subprocess.run(["gcc", "-Wall", "-O1", "-o", target, HERE / f"{name}.c"], check=True)
    return target


class Placement(enum.Enum):
    """Where panelind stands among the processes."""

    PID1 = "pid1"
    SUBREAPER = "subreaper"
    REFUSED = "refused"


_refuser = None


def _refuse():
    """The wrapper that refuses PR_SET_CHILD_SUBREAPER with EPERM, compiled once a process."""
    global _refuser
    if _refuser is None:
        _refuser = tempfile.TemporaryDirectory(prefix="panelind-tests-")
        os.chmod(_refuser.name, 0o755)
        build_tool("refuse", _refuser.name)
    return str(pathlib.Path(_refuser.name) / "refuse")


class Daemon:
    """A panelind. Its log is read by a thread, so that it never waits for the test.

    Arguments:
        steps: the script of the scripted worker, a list of strings; a `tag` is put before it.
        settings: dotted keys, on top of `base`; None removes one.
        command: instead of steps, the worker's command as a list.
        arguments: after `panelind run --config FILE`; with `config=False` instead of `--config FILE`.
        environment: added to a small clean one; None removes.
        placement: see Placement. wrapper: a command before panelind, inside the placement.
        stdin, stdout: as for Popen; without stdout=PIPE there are no events.
        options: more for Popen.
    """

    base = {"platform": "local", "control.path": "none", "sidecar.listen": "none"}

    def __init__(
        self,
        directory,
        steps=None,
        settings=None,
        *,
        command=None,
        arguments=(),
        config=True,
        environment=None,
        placement=Placement.SUBREAPER,
        wrapper=(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        sidecar=False,
        **options,
    ):
        self.directory = pathlib.Path(directory)
        self.tag = f"tag-{uuid.uuid4().hex}"
        self.placement = placement
        self.sidecar_port = free_port() if sidecar else None
        self.settings = dict(self.base)
        if sidecar:
            self.settings["sidecar.listen"] = f"127.0.0.1:{self.sidecar_port}"
        if steps is not None:
            command = scripted_worker(f"tag {self.tag}", *steps)
        if command is not None:
            self.settings["worker.command"] = [str(word) for word in command]
        self.settings.update(settings or {})
        self.config = self.directory / "panelind.yaml"
        self.arguments = [*(["--config", self.config] if config else []), *arguments]
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "TEST_TAG": self.tag,
        }
        for name, value in (environment or {}).items():
            if value is None:
                self.environment.pop(name, None)
            else:
                self.environment[name] = str(value)
        self.wrapper = [str(word) for word in wrapper]
        self.streams = {"stdin": stdin, "stdout": stdout}
        self.options = options
        self.popen = None
        self.pid = None
        self.lines = []
        self.arrivals = []
        self._records = []
        self._news = threading.Condition()
        self._ended = False
        self._errors = None

    # -- start and end

    def write_settings(self, changes=None):
        """Writes the file; `changes` as in the constructor."""
        self.settings.update(changes or {})
        tree = {}
        for key, value in self.settings.items():
            if value is None:
                continue
            *path, last = key.split(".")
            place = tree
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
        # JSON is YAML's flow style.
        text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in tree.items()) + "\n"
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.rename(self.config)

    def command(self):
        own = [str(binaries() / "panelind"), "run", *map(str, self.arguments)]
        own = [*self.wrapper, *own]
        if self.placement is Placement.PID1:
            user = ["-Ur"] if os.geteuid() != 0 else []
            return ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc", *own]
        if self.placement is Placement.REFUSED:
            return [_refuse(), "36", "1", *own]
        return own

    def start(self):
        self.write_settings()
        self._errors = open(self.directory / "stderr", "w+b")
        options = {"cwd": self.directory, "env": self.environment, "stderr": self._errors, **self.options}
        self.popen = subprocess.Popen(self.command(), **self.streams, **options)
        if self.popen.stdout is not None:
            threading.Thread(target=self._read, args=(self.popen.stdout,), daemon=True).start()
        else:
            self._ended = True
        self.pid = self.popen.pid
        if self.placement is Placement.PID1:
            # unshare is the parent; panelind is its only child.
            wait_until(self._find_child, "unshare started panelind", timeout=PATIENCE)

    def _find_child(self):
        if self.popen.poll() is not None:
            return True
        try:
            with open(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children") as file:
                found = file.read().split()
        except OSError:
            return False
        if found:
            self.pid = int(found[0])
        return bool(found)

    def own_pids(self):
        return {self.popen.pid, self.pid} if self.popen else set()

    def send(self, number):
        """A signal to panelind."""
        os.kill(self.pid, number)

    def wait(self, timeout=PATIENCE):
        """Its exit code, as a shell would say it; the whole log has been read then."""
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimedOut(f"panelind has not ended within {timeout:g} s") from None
        with self._news:
            # Something may hold its stdout open for longer; what panelind wrote is in the pipe.
            self._news.wait_for(lambda: self._ended, 2)
        return code if code >= 0 else 128 - code

    def stop(self, number=signals.SIGTERM, timeout=PATIENCE):
        """Sends the signal and waits; returns the exit code. `took` is the time between, in seconds."""
        begin = time.monotonic()
        self.send(number)
        code = self.wait(timeout)
        self.took = time.monotonic() - begin
        return code

    def clean_up(self):
        if self.popen is None:
            return
        if self.popen.poll() is None:
            for pid in self.own_pids():
                _kill(pid)
            self.popen.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while (left := self.survivors()) and time.monotonic() < end:
            for one in left:
                _kill(one.pid)
            time.sleep(0.01)
        if self._errors:
            self._errors.close()

    # -- its log

    def _read(self, stream):
        for line in stream:
            now = time.monotonic()
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            with self._news:
                self.lines.append(line)
                self.arrivals.append(now)
                self._records.append(record if isinstance(record, dict) else None)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def records(self):
        """Its lines that are JSON objects, in order."""
        with self._news:
            return [record for record in self._records if record is not None]

    def events(self, name=None, **fields):
        """panelind's own events with this name and these fields."""
        return [
            record
            for record in self.records
            if "event" in record
            and (name is None or record["event"] == name)
            and all(record.get(key) == value for key, value in fields.items())
        ]

    def messages(self):
        """The messages of the worker's own lines."""
        return [record.get("message") for record in self.records if "event" not in record]

    def wait_event(self, name, count=1, timeout=PATIENCE, **fields):
        """The `count`-th event of this name; fails at once if panelind has ended without."""
        return self._await(
            lambda: self.events(name, **fields), count, timeout, f"event {name} {fields or ''} number {count}"
        )

    def wait_message(self, text, count=1, timeout=PATIENCE):
        """The `count`-th record of the worker's whose message is exactly this."""
        return self._await(
            lambda: [r for r in self.records if "event" not in r and r.get("message") == text],
            count,
            timeout,
            f"message {text!r} number {count}",
        )

    def _await(self, find, count, timeout, what):
        end = time.monotonic() + timeout
        while True:
            with self._news:
                seen, ended = len(self._records), self._ended
            found = find()
            if len(found) >= count:
                return found[count - 1]
            left = end - time.monotonic()
            if ended or left <= 0:
                raise TimedOut(f"{'panelind has ended without' if ended else 'missing'}: {what}; found {len(found)}")
            with self._news:
                self._news.wait_for(lambda: len(self._records) > seen or self._ended, left)

    @property
    def stderr(self):
        return (self.directory / "stderr").read_text(errors="replace")

    def transcript(self):
        """For the report of a failure."""
        with self._news:
            text = b"".join(self.lines[-200:]).decode(errors="replace")
        return text + "\n-- stderr\n" + self.stderr[-4000:]

    # -- its workers

    def outer(self, inner):
        """The pid, as the test sees it, of a process that panelind's log calls `inner`."""
        if self.placement is not Placement.PID1:
            return inner
        for one in processes.descendants(self.pid):
            try:
                with open(f"/proc/{one.pid}/status") as file:
                    names = next(line for line in file if line.startswith("NSpid:")).split()
            except (OSError, StopIteration):
                continue
            if int(names[-1]) == inner:
                return one.pid
        return None

    def worker(self, generation=1, timeout=PATIENCE):
        """The leader's pid, as the test sees it, once it has started."""
        event = self.wait_event("worker_started", generation=generation, timeout=timeout)
        return self.outer(event["pid"])

    def ready(self, generation=1, timeout=PATIENCE):
        """Waits until this generation is ready."""
        return self.wait_event("worker_ready", generation=generation, timeout=timeout)

    def survivors(self):
        """What lives of the worker's tree, and of any that carries this daemon's tag."""
        return processes.carriers(self.tag, besides=self.own_pids())

    def get(self, path, **options):
        """GET at the sidecar."""
        return http(self.sidecar_port, path, **options)

    def health(self):
        return json.loads(self.get("/health").body)


def seconds(record):
    """A record's `time` as seconds since the epoch, exact to the microsecond."""
    whole, _, rest = record["time"].partition(".")
    fraction = rest.rstrip("Z")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")


def _kill(pid):
    try:
        os.kill(pid, signals.SIGKILL)
    except ProcessLookupError:
        pass
