"""reloads.py: how each contender is told to reload, and how its new settings are broken.

Two kinds in one table: those that replace the worker (panelind, uvicorn, gunicorn) and those that replace only
themselves before a worker that stays (nginx, haproxy, caddy), which is less to do.  Read proxies.py before.
"""
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import harness as h
from contenders import Job, Launch, adapter, free_port
from proxies import caddy_settings, haproxy_settings, nginx_settings

# In front mode a broken command needs a placeholder no less than a good one.
BROKEN = ["/bin/sh", "-c", "exit 1", "{port}"]


@dataclass
class Reload:
    """What a reload changes, and how it is asked for: `ask(run, number, good)`; False where the contender says that it failed."""
    replaces: str
    ask: Callable


RELOADS: dict[str, Reload] = {}


def reloading(name: str, replaces: str, ask: Callable, needs: str, launch: Callable) -> None:
    adapter(name, "reload", needs=needs)(launch)
    RELOADS[name] = Reload(replaces, ask)


def by_signal(number: signal.Signals, change: Callable):
    def ask(run, n: int, good: bool):
        change(run.job, n, good)
        os.kill(run.p.pid, number)
        return None
    return ask


def panelind_settings(job: Job, number: int, good: bool, command: list[str]) -> str:
    return job.write("panelind.yaml", json.dumps({
        "platform": "local",
        "worker": {"command": command if good else BROKEN, "environment": {"ROUND": str(number)}},
        "serve": {"mode": "front", "listen": f"127.0.0.1:{job.port}"},
        "sidecar": {"listen": "none"}, "control": {"path": str(job.dir / "control.sock")},
        "log": {"format": "inherit", "access": "none"}}))


def panelind_command(job: Job, app: bool) -> list[str]:
    if app:
        return ["uvicorn", "app:app", "--uds", "{socket}", "--log-level", "error"]
    return ["{port}" if arg == str(job.worker_port) else arg for arg in job.argv]


def panelind(job: Job, app: bool) -> Launch:
    with_app(job)
    return Launch(["panelind", "run", "--config", panelind_settings(job, 0, True, panelind_command(job, app))])


def ask_panelind(app: bool):
    def ask(run, number: int, good: bool):
        panelind_settings(run.job, number, good, panelind_command(run.job, app))
        end = time.monotonic() + 10
        while True:
            done = subprocess.run(["panelind", "reload", "--control", str(run.job.dir / "control.sock")],
                                  capture_output=True, timeout=30)
            # The worker before is still leaving: as a deployment would, ask again.
            if b"another reload is under way" not in done.stderr or time.monotonic() > end:
                break
            time.sleep(0.05)
        if (done.returncode == 0) != good:
            h.TROUBLE.append(f"reload {number} of {run.c.name}: {(done.stderr or done.stdout).decode().strip()}")
        return done.returncode == 0
    return ask


def with_app(job: Job) -> None:
    shutil.copy(Path(__file__).with_name("app.py"), job.dir)


def break_app(job: Job, _: int, good: bool) -> None:
    flag = job.dir / "broken"
    flag.unlink(missing_ok=True)
    if not good:
        flag.touch()


def server(*argv: str) -> Callable:
    def launch(job: Job) -> Launch:
        with_app(job)
        return Launch([arg.replace("PORT", str(job.port)) for arg in argv], env={"PYTHONDONTWRITEBYTECODE": "1"})
    return launch


def rewrite(name: str, settings: Callable[[Job], str]):
    def change(job: Job, _: int, good: bool) -> None:
        job.write(name, settings(job) if good else "this is { broken\n")
    return change


def haproxy(job: Job) -> Launch:
    """A master that keeps the listening sockets and replaces its worker at SIGUSR2."""
    return Launch(["haproxy", "-W", "-db", "-f", job.write("haproxy.cfg", haproxy_settings(job))])


def caddy(job: Job) -> Launch:
    job.admin = f"127.0.0.1:{free_port()}"
    conf = job.write("Caddyfile", caddy_settings(job, job.admin))
    return Launch(["caddy", "run", "--adapter", "caddyfile", "--config", conf],
                  env={"HOME": str(job.dir), "XDG_DATA_HOME": str(job.dir)})


def ask_caddy(run, number: int, good: bool) -> bool:
    # The number makes it another configuration: caddy skips a reload to the same.
    conf = run.job.write("Caddyfile", caddy_settings(run.job, run.job.admin) + f"# {number}\n" if good else "{ broken\n")
    done = subprocess.run(["caddy", "reload", "--force", "--adapter", "caddyfile", "--config", conf,
                           "--address", run.job.admin], capture_output=True, timeout=30,
                          env=os.environ | {"HOME": str(run.job.dir)})
    return done.returncode == 0


def nginx(job: Job) -> Launch:
    return Launch(["nginx", "-e", f"{job.dir}/error.log", "-c", job.write("nginx.conf", nginx_settings(job))])


reloading("panelind-reload", "worker", ask_panelind(False), "panelind", lambda job: panelind(job, False))
reloading("panelind-uvicorn", "worker", ask_panelind(True), "panelind uvicorn", lambda job: panelind(job, True))
reloading("uvicorn", "workers", by_signal(signal.SIGHUP, break_app), "uvicorn",
          server("uvicorn", "app:app", "--port", "PORT", "--workers", "2", "--log-level", "error", "--backlog", "4096"))
reloading("gunicorn", "workers", by_signal(signal.SIGHUP, break_app), "gunicorn",
          server("gunicorn", "app:wsgi", "-b", "127.0.0.1:PORT", "-w", "2", "-k", "gthread", "--threads", "16",
                 "--keep-alive", "75", "--log-level", "critical"))
reloading("nginx-reload", "proxy", by_signal(signal.SIGHUP, rewrite("nginx.conf", nginx_settings)), "nginx", nginx)
reloading("haproxy-reload", "proxy", by_signal(signal.SIGUSR2, rewrite("haproxy.cfg", haproxy_settings)), "haproxy", haproxy)
reloading("caddy-reload", "proxy", ask_caddy, "caddy", caddy)
