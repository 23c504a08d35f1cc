# proxies.py
# Front proxies of Debian, each with what its documentation offers for a worker that restarts; the kit keeps their worker.
# Read contenders.py first, fronts.py next.

import os
import signal
import subprocess
import threading

from harness import accepts, free_port, wait_until
from contenders import Contender


class Keeper:
    """Starts the worker of a proxy again, half a second after each death."""

    def __init__(self, argv, directory):
        self.argv, self.directory = argv, directory
        self.over = threading.Event()
        self.popen = None
        self.thread = threading.Thread(target=self._keep, daemon=True)
        self.thread.start()

    def _keep(self):
        while not self.over.is_set():
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL, cwd=self.directory)
            self.popen.wait()
            self.over.wait(0.5)

    def close(self):
        self.over.set()
        if self.popen:
            self.popen.kill()
        self.thread.join(10)


class Proxy(Contender):
    is_proxy = True
    can = frozenset("front config reload".split())

    def argv(self, run):
        run.worker_port = getattr(run, "worker_port", None) or free_port()
        if run.want.steps and not getattr(run, "keeper", None):
            words = [word.replace("WORKER", str(run.worker_port)) for word in run.worker]
            run.keeper = Keeper(words, run.directory)
            wait_until(lambda: accepts(run.worker_port), "the worker accepts")
        return self.proxy(run, run.want.front or free_port(), run.worker_port)

    def clean_up(self, run):
        if getattr(run, "keeper", None):
            run.keeper.close()

    def usable(self, run):
        return accepts(run.want.front)


class Nginx(Proxy):
    name = program = "nginx"

    def proxy(self, run, port, worker):
        temp = "".join(f"{kind}_temp_path {run.directory}/{kind}; "
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        text = f"""daemon off; {user} worker_processes 1; pid {run.directory}/pid;
events {{ worker_connections 512; }}
http {{ access_log off; {temp}
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream w {{ server 127.0.0.1:{worker} max_fails=0; keepalive 16; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://w; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
      proxy_next_upstream error timeout http_502; proxy_next_upstream_timeout 10s;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }} }} }}
"""
        path = run.file("nginx.conf", "nonsense\n" if run.want.broken else text)
        return ["nginx", "-e", f"{run.directory}/error.log", "-c", path]

    def stop(self, run):
        run.process.send(signal.SIGQUIT)

    def break_configuration(self, run):
        run.file("nginx.conf", "nonsense\n")
        done = self.tell("nginx", "-e", f"{run.directory}/error.log", "-c", run.directory / "nginx.conf", "-t")
        run.process.send(signal.SIGHUP)
        return done.returncode != 0


class Haproxy(Proxy):
    name = program = "haproxy"
    can = Proxy.can | {"hold"}

    def proxy(self, run, port, worker):
        text = f"""global
  nbthread 1
  maxconn 500
  master-worker
  hard-stop-after 10s
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
  retries 50
  retry-on conn-failure empty-response
frontend f
  bind 127.0.0.1:{port}
  http-request disable-l7-retry if METH_POST
  default_backend b
backend b
  server s 127.0.0.1:{worker}
"""
        return ["haproxy", "-db", "-W", "-f", run.file("haproxy.cfg", "nonsense\n" if run.want.broken else text)]

    def stop(self, run):
        run.process.send(signal.SIGUSR1)

    def break_configuration(self, run):
        run.file("haproxy.cfg", "nonsense\n")
        done = self.tell("haproxy", "-c", "-f", run.directory / "haproxy.cfg")
        run.process.send(signal.SIGUSR2)
        return done.returncode != 0


class Caddy(Proxy):
    name = program = "caddy"
    can = Proxy.can | {"hold"}

    def proxy(self, run, port, worker):
        run.admin = getattr(run, "admin", None) or free_port()
        run.environment |= {"XDG_DATA_HOME": str(run.directory), "XDG_CONFIG_HOME": str(run.directory)}
        text = f"""{{
 admin 127.0.0.1:{run.admin}
 grace_period 8s
}}
http://:{port} {{
 bind 127.0.0.1
 reverse_proxy 127.0.0.1:{worker} {{
  lb_try_duration 10s
  lb_try_interval 50ms
  flush_interval -1
 }}
}}
"""
        path = run.file("Caddyfile", "nonsense {\n" if run.want.broken else text)
        return ["caddy", "run", "--adapter", "caddyfile", "--config", path]

    def break_configuration(self, run):
        run.file("Caddyfile", "nonsense {\n")
        return self.tell("caddy", "reload", "--address", f"127.0.0.1:{run.admin}", "--adapter", "caddyfile", "--config",
                         run.directory / "Caddyfile").returncode != 0
