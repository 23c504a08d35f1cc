# peers.py
# Supervisors and inits of Debian and PyPI, each started and told things as its own documentation says.
# Read contenders.py first; proxies.py has those that keep no worker.

import pathlib
import shlex
import socket
import subprocess

from harness import wait_until
from contenders import Contender

BENCH = pathlib.Path(__file__).resolve().parents[2] / ".venv" / "bench" / "bin"


class Init(Contender):
    """tini, dumb-init, catatonit: one worker, once, as PID 1, where the kernel ends what is left."""

    place = "pid1"
    can = frozenset("oneshot usr1 stop group tree reap".split())

    def __init__(self, name, *argv):
        self.name = self.program = name
        self.words = argv

    def argv(self, run):
        return [self.program, *self.words, *run.worker]


class Runit(Contender):
    name, program = "runit", "runsv"
    can = frozenset("usr1 stop kill restart command inherit log secret exclusive reap".split())

    def argv(self, run):
        inherit(run)
        want, words = run.want, shlex.join(map(str, run.worker))
        if want.secret:
            run.file("svc/env/THE_SECRET", want.secret, 0o600)
            words = f"chpst -e {run.directory}/svc/env {words}"
        run.file("svc/run", f"#!/bin/sh\nexec 2>&1\nexec {words}\n", 0o755)
        if want.log:
            (run.directory / "log").mkdir(exist_ok=True)
            run.file("svc/log/run", f"#!/bin/sh\nexec svlogd {run.directory}/log\n", 0o755)
        if run.place.name == "PID 1":
            run.file("scan/w/run", f"#!/bin/sh\nexec {words}\n", 0o755)
            return ["runsvdir", run.directory / "scan"]
        return ["runsv", run.directory / "svc"]

    def sv(self, run, *words):
        return self.tell("sv", *words, run.directory / "svc")

    def stop(self, run):
        wait_until(lambda: (run.directory / "svc/supervise/ok").exists(), "runsv is there")
        self.sv(run, "-w", str(int(run.want.grace)), "force-shutdown")

    def usr1(self, run):
        self.sv(run, "1")

    def restart(self, run):
        self.sv(run, "-w", "5", "restart")

    def lines(self, run):
        return (run.directory / "log/current").read_text(errors="replace").splitlines()


class S6(Contender):
    name, program = "s6", "s6-svscan"
    can = frozenset("usr1 stop kill restart giveup command inherit ready log secret exclusive reap".split())

    def argv(self, run):
        inherit(run)
        want, words = run.want, shlex.join(map(str, run.worker))
        if want.secret:
            run.file("env/THE_SECRET", want.secret, 0o600)
            words = f"s6-envdir {run.directory}/env {words}"
        run.file("scan/w/run", f"#!/bin/sh\nexec 2>&1\nexec {words}\n", 0o755)
        run.file("scan/w/timeout-kill", str(int(want.grace * 1000)))
        if want.ready:
            run.file("scan/w/notification-fd", "3")
        if want.limit:
            run.file("scan/w/finish", f"#!/bin/sh\nexec s6-permafailon 60 {want.limit} 1-255 true\n", 0o755)
        if want.log:
            run.file("scan/w/log/run", f"#!/bin/sh\nexec s6-log n20 s1000000 {run.directory}/log\n", 0o755)
        # svscan would close what the listener is inherited by.
        return ["s6-supervise", run.directory / "scan/w"] if want.inherit else ["s6-svscan", run.directory / "scan"]

    def svc(self, run, *words):
        return self.tell("s6-svc", *words, run.directory / "scan/w")

    def usr1(self, run):
        self.svc(run, "-1")

    def restart(self, run):
        self.svc(run, "-wr", "-T", "5000", "-r")

    def status(self, run, what):
        return self.tell("s6-svstat", "-o", what, run.directory / "scan/w").stdout.strip()

    def ready(self, run):
        return self.status(run, "ready") == "true"

    def gave_up(self, run):
        try:
            wait_until(lambda: self.status(run, "up,wantedup") == "false false", "down for good", 15)
        except AssertionError:
            return False
        return True

    def lines(self, run):
        return (run.directory / "log/current").read_text(errors="replace").splitlines()


class Supervisord(Contender):
    name = "supervisord"
    program = str(BENCH / "supervisord")
    can = frozenset(
        "usr1 stop kill group restart backoff giveup command inherit log secret config reload exclusive reap".split())

    def argv(self, run):
        want = run.want
        kind = "program:w"
        socket_line = ""
        words = [str(word) for word in run.worker]
        if want.inherit:
            kind, socket_line = "fcgi-program:w", f"socket=tcp://127.0.0.1:{want.inherit}"
            words = ["0" if word == "FD" else word for word in words]
        environment = f'environment=THE_SECRET="{want.secret}"' if want.secret else ""
        command = shlex.join(words).replace("%", "%%")
        paced = want.limit or want.factor > 1
        text = f"""[unix_http_server]
file={run.directory}/s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{run.directory}/s
[supervisord]
nodaemon=true
logfile={run.directory}/supervisord.log
pidfile={run.directory}/pid
[{kind}]
command={command}
{socket_line}
autorestart=true
startsecs={10 if paced else 0}
startretries={want.limit or 1000}
stopwaitsecs={int(want.grace)}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={run.directory}/worker.log
{environment}
"""
        path = run.file("supervisord.conf", "[nonsense\n" if want.broken else text, 0o600)
        return [self.program, "-c", path]

    def ctl(self, run, *words):
        return self.tell(BENCH / "supervisorctl", "-c", run.directory / "supervisord.conf", *words)

    def up(self, run):
        wait_until(lambda: (run.directory / "s").exists(), "supervisord listens")

    def usr1(self, run):
        self.up(run)
        self.ctl(run, "signal", "USR1", "w")

    def restart(self, run):
        self.up(run)
        self.ctl(run, "restart", "w")

    def gave_up(self, run):
        try:
            wait_until(lambda: "FATAL" in self.ctl(run, "status", "w").stdout, "FATAL", 20, every=0.3)
        except AssertionError:
            return False
        return True

    def lines(self, run):
        return (run.directory / "worker.log").read_text(errors="replace").splitlines()

    def break_configuration(self, run):
        self.up(run)
        run.file("broken.conf", run.file("supervisord.conf").read_text(), 0o600)
        good = run.file("supervisord.conf").read_text()
        run.file("supervisord.conf", good.replace("autorestart=true", "autorestart=perhaps"), 0o600)
        done = subprocess.run([str(BENCH / "supervisorctl"), "-s", f"unix://{run.directory}/s", "update"],
                              capture_output=True, text=True, cwd=run.directory, stdin=subprocess.DEVNULL)
        return done.returncode != 0 or "ERROR" in done.stdout.upper()


class Monit(Contender):
    name, program = "monit", "monit"
    can = frozenset("restart liveness command config reload exclusive".split())

    def argv(self, run):
        port = run.want.liveness
        words = shlex.join(map(str, run.worker))
        start = run.file("start.sh", f"#!/bin/sh\nsetsid {words} >/dev/null 2>&1 &\necho $! >{run.directory}/w.pid\n", 0o755)
        stop = run.file("stop.sh", f"#!/bin/sh\np=$(cat {run.directory}/w.pid)\nkill $p\nsleep 1\nkill -9 $p\ntrue\n", 0o755)
        check = f"  if failed host 127.0.0.1 port {port} protocol http request \"/health\" with timeout 1 seconds " \
                "then restart\n" if port else ""
        text = f"""set daemon 1
set idfile {run.directory}/id
set statefile {run.directory}/state
set pidfile {run.directory}/monit.pid
set httpd unixsocket {run.directory}/m.sock
  allow localhost
check process w with pidfile {run.directory}/w.pid
  start program = "{start}"
  stop program = "{stop}"
{check}"""
        return ["monit", "-I", "-c", run.file("monitrc", "check nonsense\n" if run.want.broken else text, 0o600)]

    def restart(self, run):
        wait_until(lambda: (run.directory / "m.sock").exists(), "monit listens")
        self.tell("monit", "-c", run.directory / "monitrc", "restart", "w")

    def break_configuration(self, run):
        wait_until(lambda: (run.directory / "m.sock").exists(), "monit listens")
        run.file("monitrc", "check nonsense\n", 0o600)
        done = self.tell("monit", "-c", run.directory / "monitrc", "-p", run.directory / "monit.pid", "reload")
        return done.returncode != 0

    def clean_up(self, run):
        self.tell("sh", run.directory / "stop.sh")


def inherit(run):
    """A listening socket as descriptor 3 of what is launched: who opens it is this kit, in the parent's place."""
    if not run.want.inherit or getattr(run, "listener", None):
        return
    run.listener = socket.socket()
    run.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    run.listener.bind(("127.0.0.1", run.want.inherit))
    run.listener.listen(64)
    # pass_fds keeps the number: the run script names it.
    run.descriptors = [run.listener.fileno()]
    run.want.steps = [step.replace("FD", str(run.listener.fileno())) for step in run.want.steps]
