# places.py
# Where a supervisor stands among the processes: below an ordinary parent, as PID 1 of a namespace, with the subreaper
# refused, in a container (runc), under gVisor (runsc). Read cases.py next.

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

from harness import binaries, children, wait_until
from harness.daemon import _refuse

HERE = pathlib.Path(__file__).resolve().parent
USER = 65532


class Process:
    """A supervisor that was launched: `pid` as the kit sees it, or None where it does not."""

    def __init__(self, popen, pid, place, name=None):
        self.popen, self.pid, self.place, self.name = popen, pid, place, name

    def send(self, number):
        self.place.send(self, number)

    def wait(self, timeout=20):
        """The exit code as a shell says it, or None where it has not ended."""
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    @property
    def is_alive(self):
        return self.popen.poll() is None


class Ordinary:
    """A child of the kit in a session of its own."""

    name = "process"
    sandboxed = False

    def wrap(self, argv):
        return argv

    def launch(self, argv, environment, directory, stdout, descriptors=()):
        popen = subprocess.Popen(
            self.wrap(argv), cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=open(directory / "stderr", "ab"), start_new_session=True, pass_fds=descriptors,
        )
        return Process(popen, popen.pid, self)

    def send(self, process, number):
        os.kill(process.pid, number)

    def command(self, process, argv, timeout=30):
        """Runs a command beside the supervisor: exit code and output."""
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=timeout)
        return done.returncode, done.stdout.decode(errors="replace")

    def first(self, process):
        """Environment and command line of the supervisor."""
        return b"".join(
            pathlib.Path(f"/proc/{process.pid}/{name}").read_bytes().replace(b"\0", b"\n") for name in ("environ", "cmdline")
        ).decode(errors="replace")

    def zombies(self, process):
        seen, front = 0, [process.pid]
        while front:
            below = [one for pid in front for one in children(pid)]
            seen += sum(one.state == "Z" for one in below)
            front = [one.pid for one in below]
        return seen

    def end(self, process):
        if process.is_alive:
            process.popen.kill()
            process.popen.wait(20)


class First(Ordinary):
    """PID 1 of a pid namespace, by unshare."""

    name = "PID 1"

    def wrap(self, argv):
        user = ["-Ur"] if os.geteuid() else []
        return ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc", *argv]

    def launch(self, *arguments, **more):
        process = super().launch(*arguments, **more)

        def inner():
            found = children(process.popen.pid)
            if found:
                process.pid = found[0].pid
            return found or process.popen.poll() is not None

        wait_until(inner, "unshare has started it")
        return process


class Refused(Ordinary):
    """PR_SET_CHILD_SUBREAPER fails, as in older sandboxes."""

    name = "refused"
    _lock = threading.Lock()

    def wrap(self, argv):
        with self._lock:
            return [_refuse(), "36", "1", *argv]


class Sandbox(Ordinary):
    """PID 1 of an OCI bundle: no root, no capabilities, read-only root, the machine's loopback."""

    sandboxed = True
    files = ["/usr/bin/env"]

    def __init__(self, name, runtime, *options):
        self.name, self.runtime, self.options = name, runtime, options
        self._root, self._count = None, 0
        self._lock = threading.Lock()

    def is_there(self):
        return os.geteuid() == 0 and shutil.which(self.runtime) is not None

    def root(self):
        """The root file system, made once; the parent of all runs is mounted where it is outside."""
        with self._lock:
            if self._root is None:
                self._directory = tempfile.TemporaryDirectory(prefix=f"pc-{self.runtime}-")
                base = pathlib.Path(self._directory.name)
                base.chmod(0o755)
                root = base / "rootfs"
                for name in ("proc", "dev", "sys", "tmp", "etc", "usr/bin", "run", "work"):
                    (root / name).mkdir(parents=True)
                subprocess.run(["gcc", "-static", "-O1", "-o", root / "peek", HERE / "peek.c"], check=True)
                for program in [binaries() / "panelind", binaries() / "scripted-worker", *map(pathlib.Path, self.files)]:
                    self._copy(program, root)
                # runc gives the file system that it mounts there the mode of the directory below.
                (root / "tmp").chmod(0o1777)
                (root / "etc/passwd").write_text(f"agent:x:{USER}:{USER}::/:/none\n")
                (root / "etc/group").write_text(f"agent:x:{USER}:\n")
                (base / "state").mkdir()
                self.state = base / "state"
                self._root = root
            return self._root

    @staticmethod
    def _copy(program, root):
        target = root / str(program).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(program, target)
        for line in subprocess.run(["ldd", program], capture_output=True, text=True).stdout.splitlines():
            for word in line.split():
                if word.startswith("/") and not (root / word.lstrip("/")).exists():
                    (root / word.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(os.path.realpath(word), root / word.lstrip("/"))

    def launch(self, argv, environment, directory, stdout, descriptors=()):
        root = self.root()
        with self._lock:
            self._count += 1
        name = f"pc-{os.getpid()}-{self._count}"
        (root / str(directory).lstrip("/")).mkdir(parents=True, exist_ok=True)
        bundle = self.state.parent / name
        bundle.mkdir()
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            {"destination": str(directory), "type": "bind", "source": str(directory), "options": ["bind", "rw"]},
        ]
        if binaries().is_relative_to("/tmp"):
            # The file system that is mounted there hides those that were copied.
            place = str(binaries())
            mounts.append({"destination": place, "type": "bind", "source": place, "options": ["bind", "ro"]})
        (bundle / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": USER, "gid": USER}, "args": list(map(str, argv)), "cwd": "/", "capabilities": {},
                "env": [f"{key}={value}" for key, value in environment.items()], "noNewPrivileges": True,
            },
            "root": {"path": str(root), "readonly": True},
            "hostname": "conformance",
            "mounts": mounts,
            "linux": {"namespaces": [{"type": one} for one in ("pid", "ipc", "uts", "mount")]},
        }))
        popen = subprocess.Popen(
            [*self._runtime(), "run", "--bundle", str(bundle), name], stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=open(directory / "stderr", "ab"), start_new_session=True,
        )
        return Process(popen, None, self, name)

    def _runtime(self):
        return [self.runtime, "--root", str(self.state), *self.options]

    def send(self, process, number):
        subprocess.run([*self._runtime(), "kill", process.name, str(int(number))], check=True, capture_output=True)

    def command(self, process, argv, timeout=30):
        done = subprocess.run([*self._runtime(), "exec", "--user", f"{USER}:{USER}", process.name, *argv],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        return done.returncode, done.stdout.decode(errors="replace")

    def first(self, process):
        return self.command(process, ["/peek", "first"])[1]

    def zombies(self, process):
        return int(self.command(process, ["/peek", "zombies"])[1].split()[-1])

    def end(self, process):
        if process.is_alive:
            subprocess.run([*self._runtime(), "kill", process.name, "9"], capture_output=True)
            try:
                process.popen.wait(20)
            except subprocess.TimeoutExpired:
                process.popen.kill()
        subprocess.run([*self._runtime(), "delete", "--force" if self.runtime == "runc" else "-force", process.name],
                       capture_output=True)

    def close(self):
        if self._root is not None:
            self._directory.cleanup()


PLACES = {
    "process": Ordinary(),
    "pid1": First(),
    "refused": Refused(),
    "container": Sandbox("container", "runc"),
    "gvisor": Sandbox("gVisor", "runsc", "--platform", "ptrace", "--network", "host", "--ignore-cgroups"),
}
