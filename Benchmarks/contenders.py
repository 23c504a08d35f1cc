"""contenders.py: how each supervisor and each relay of output is started around a given worker command.

An adapter writes its configuration into `job.dir` and returns a `Launch`.  `kinds` says which benchmarks it enters;
`floor` is the smallest restart delay the contender permits, as configured.  Programs are looked up in $PATH, so put
locally built peers there; absent ones are skipped.  Read harness.py before; proxies.py has the fronts.
"""
import json
import shlex
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable


@dataclass
class Job:
    """What a benchmark asks of a contender."""
    dir: Path                       # scratch directory, empty
    argv: list[str]                 # the worker command
    port: int = 0                   # where the contender itself should listen (health or proxy)
    worker_port: int = 0            # where the worker listens (for checks and proxying)
    grace: float = 2.0              # seconds between SIGTERM and SIGKILL
    log: Path | None = None         # relay the worker's stdout into this file or directory
    checks: bool = False            # check the worker's port as often as possible
    listener: socket.socket | None = None  # a listening socket for the "sockets" kind

    def write(self, name: str, text: str, mode: int = 0o644) -> str:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)


@dataclass
class Launch:
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    stdout: Path | None = None      # the contender's own stdout goes here
    stdin_worker: bool = False      # a filter: the harness pipes the worker into its stdin
    fd3: socket.socket | None = None  # hand this socket over as descriptor 3
    after: list[str] | None = None  # a command to run once it is up


@dataclass
class Contender:
    name: str
    needs: str                      # the program that must be in $PATH
    kinds: list[str]
    launch: Callable[[Job], Launch]
    floor: str = "-"
    health: str = "/health"
    slow: bool = False              # starts so slowly that only every third round has it


ALL: dict[str, Contender] = {}
SUPERVISOR = "start footprint restart crash stop churn "


def adapter(name: str, kinds: str, needs: str = "", **more):
    def register(launch):
        ALL[name] = Contender(name, needs or name, kinds.split(), launch, **more)
        return launch
    return register


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


adapter("direct", "start", needs="env")(lambda job: Launch(job.argv))
for init in (["tini", "-s", "--"], ["dumb-init"], ["catatonit", "--"]):
    adapter(init[0], "start footprint stop")(lambda job, init=init: Launch(init + job.argv))


@adapter("panelind", floor="0 ms", health="/ready", kinds="start footprint restart ready health proxy crash sockets front "
         "answers log flood stop churn grow-requests grow-connections grow-logs grow-restarts")
def panelind(job, log_format="json", notify=False, everything=False):
    """Direct mode, unless a port to listen on (front) or a listener to pass on (socket) is given."""
    argv, probe = list(job.argv), {}
    serve = {"mode": "direct"}
    if job.listener:                # panelind opens its own: give it the harness's port
        serve = {"mode": "socket", "listen": f"127.0.0.1:{job.listener.getsockname()[1]}"}
        job.listener.close()
        argv = [arg.replace("fd:3", "fd:{fd}") for arg in argv]
    elif everything or job.port and job.worker_port and not job.checks:
        serve = {"mode": "front", "listen": f"127.0.0.1:{job.port or free_port()}", "bodyLimit": "none",
                 "heldRequests": 1024}  # as many as the peers; the default is 128
        if str(job.worker_port) in argv:  # the worker serves: panelind tells it where
            argv = ["{port}" if arg == str(job.worker_port) else arg for arg in argv]
        else:
            serve["upstream"] = f"127.0.0.1:{job.worker_port or 1}"
    elif job.checks:
        probe = {"readiness": {"tcp": f"127.0.0.1:{job.worker_port}", "period": "10ms"}}
    if notify:
        argv.append("notify")
    if everything:                  # a probe that asks again would wake it
        probe = {"readiness": {"notify": True}}
    sidecar = f"127.0.0.1:{job.port}" if job.port and serve["mode"] == "direct" else "none"
    settings = {
        "platform": "local",
        "worker": {"command": argv}, "serve": serve, "probe": probe,
        "sidecar": {"listen": f"127.0.0.1:{free_port()}" if everything else sidecar},
        "control": {"path": str(job.dir / "control.sock") if everything else "none"},
        "restart": {"delay": "0ms", "jitter": 0, "limit": "none"},
        "stop": {"budget": f"{job.grace + 0.5}s", "grace": f"{job.grace}s"} |
                ({"drain": "0s"} if serve["mode"] == "front" else {}),
        "log": {"format": log_format if job.log or everything else "inherit", "overflow": "block", "access": "none"},
    }
    return Launch(["panelind", "run", "--config", job.write("panelind.yaml", json.dumps(settings))],
                  stdout=job.log)


adapter("panelind-text", "log", needs="panelind")(lambda job: panelind(job, "text"))
adapter("panelind-notify", "front", needs="panelind")(lambda job: panelind(job, notify=True))
adapter("panelind-all", "footprint", needs="panelind")(lambda job: panelind(job, everything=True))


@adapter("s6-supervise", SUPERVISOR + "sockets", needs="s6-supervise execlineb", floor="1 s after each death (fixed)")
def s6_supervise(job, at="svc"):
    """s6-supervise alone on one service directory: the leanest deployment."""
    job.write(f"{at}/run", f"#!/bin/execlineb -P\n{shlex.join(job.argv)}\n", 0o755)
    job.write(f"{at}/timeout-kill", str(int(job.grace * 1000)))
    return Launch(["s6-supervise", str(job.dir / at)], fd3=job.listener)


@adapter("s6-svscan", "start footprint stop", needs="s6-svscan execlineb")
def s6_svscan(job):
    s6_supervise(job, "scan/w")
    return Launch(["s6-svscan", str(job.dir / "scan")])


@adapter("runsv", SUPERVISOR + "sockets", floor="1 s if it lived under 1 s (fixed)")
def runsv(job):
    job.write("svc/run", f"#!/bin/sh\nexec {shlex.join(job.argv)}\n", 0o755)
    return Launch(["runsv", str(job.dir / "svc")], fd3=job.listener)


@adapter("pebble", SUPERVISOR + "ready health log", health="/v1/health",
         floor="backoff-delay 1 ms, factor 1")
def pebble(job):
    check = f"""checks:
  up: {{override: replace, level: ready, period: 10ms, timeout: 9ms, threshold: 1,
       tcp: {{port: {job.worker_port}, host: 127.0.0.1}}}}
"""
    job.write("layers/001-worker.yaml", f"""services:
  w:
    override: replace
    startup: enabled
    command: {shlex.join(job.argv)}
    on-success: restart
    on-failure: restart
    backoff-delay: 1ms
    backoff-factor: 1.0
    backoff-limit: 1ms
    kill-delay: {job.grace}s
{check if job.checks else ""}""")
    argv = ["pebble", "run"] + (["--verbose"] if job.log else [])
    argv += ["--http", f"127.0.0.1:{job.port}"] if job.port else []
    return Launch(argv, env={"PEBBLE": str(job.dir)}, stdout=job.log)


@adapter("supervisord", SUPERVISOR + "log grow-restarts", floor="0 (startsecs=0), 1 s tick", slow=True)
def supervisord(job):
    return Launch(["supervisord", "-c", job.write("supervisord.conf", f"""[supervisord]
nodaemon=true
logfile=/dev/null
pidfile={job.dir}/supervisord.pid
[program:w]
command={shlex.join(job.argv)}
autorestart=true
startsecs=0
startretries=1000000000
stopwaitsecs={int(job.grace)}
stdout_logfile={job.log or "/dev/null"}
stdout_logfile_maxbytes=0
stderr_logfile=NONE
""")])


@adapter("circus", SUPERVISOR + "sockets grow-restarts", needs="circusd", floor="check_delay = 0.1 s", slow=True)
def circus(job):
    args, web = " ".join(job.argv[1:]), ""
    if job.listener:                # circus opens its own socket: give it the harness's port
        port = job.listener.getsockname()[1]
        job.listener.close()
        args = args.replace("fd:3", "fd:$(circus.sockets.web)")
        web = f"use_sockets = True\n[socket:web]\nhost = 127.0.0.1\nport = {port}\n"
    return Launch(["circusd", job.write("circus.ini", f"""[circus]
check_delay = 0.1
endpoint = tcp://127.0.0.1:{free_port()}
pubsub_endpoint = tcp://127.0.0.1:{free_port()}
[watcher:w]
cmd = {job.argv[0]}
args = {args}
copy_env = True
max_retry = -1
warmup_delay = 0
graceful_timeout = {job.grace}
{web}""")])


adapter("honcho", "start footprint stop", slow=True)(lambda job: Launch([
    "honcho", "-d", str(job.dir), "-f",
    job.write("Procfile", f"w: exec {shlex.join(job.argv)}\n"), "start"]))


@adapter("monit", "start footprint restart", floor="1 s poll cycle", slow=True)
def monit(job):
    start = job.write("start.sh", f"#!/bin/sh\n{shlex.join(job.argv)} &\n"
                      f"echo $! > {job.dir}/w.pid\n", 0o755)
    return Launch(["monit", "-I", "-c", job.write("monitrc", f"""set daemon 1
set idfile {job.dir}/id
set statefile {job.dir}/state
check process w with pidfile {job.dir}/w.pid
  start program = "{start}"
""", 0o600)])


@adapter("supervise", "start footprint restart crash sockets churn", floor="1 s between starts (fixed)")
def daemontools(job):
    job.write("svc/run", f"#!/bin/sh\nexec {shlex.join(job.argv)}\n", 0o755)
    return Launch(["supervise", str(job.dir / "svc")], fd3=job.listener)


# Filters of output: they read what the worker writes from a pipe.
adapter("cat", "log grow-logs")(lambda job: Launch(["cat"], stdout=job.log, stdin_worker=True))
adapter("s6-log", "log grow-logs")(lambda job: Launch(["s6-log", "n30", "s268435455", str(job.log)],
                                                      stdin_worker=True))
adapter("multilog", "log")(lambda job: Launch(["multilog", "n100", "s16777215", str(job.log)], stdin_worker=True))


@adapter("svlogd", "log")
def svlogd(job):
    job.log.mkdir()
    (job.log / "config").write_text("s0\nn0\n")  # no rotation
    return Launch(["svlogd", str(job.log)], stdin_worker=True)
