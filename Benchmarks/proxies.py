"""proxies.py: how each front proxy is started, before a worker that another runs.

One process or thread each, connections kept both ways, no access log, no limit of bodies, retries as far as the proxy
has them.  Reloading them is in reloads.py.  Read contenders.py before.
"""
import os
from pathlib import Path

from contenders import Launch, adapter, free_port


@adapter("nginx", "health proxy front flood grow-requests grow-connections")
def nginx(job):
    """A front proxy or, without a worker port, the upstream that serves /1k."""
    return Launch(["nginx", "-e", f"{job.dir}/error.log", "-c", job.write("nginx.conf", nginx_settings(job))])


def nginx_settings(job) -> str:
    job.write("1k", "x" * 1023 + "\n")
    place = f"location / {{ root {job.dir}; }}"
    if job.worker_port:
        place = """location / { proxy_pass http://w; proxy_http_version 1.1;
      proxy_set_header Connection ''; proxy_request_buffering off; }"""
    temp = "".join(f"{kind}_temp_path {job.dir}/{kind}; " for kind in
                   ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root; " if os.getuid() == 0 else ""
    return f"""
daemon off; {user}worker_processes 1; pid {job.dir}/pid;
events {{ worker_connections 8192; }}
http {{ access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 620s; sendfile on;
  {temp} proxy_max_temp_file_size 0; open_file_cache max=16;
  upstream w {{ server 127.0.0.1:{job.worker_port or 1}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{job.port} backlog=4096;
    location = /health {{ return 200 "ok\\n"; }}
    {place} }} }}
"""


@adapter("haproxy", "ready health proxy front answers grow-requests grow-connections")
def haproxy(job, more=""):
    return Launch(["haproxy", "-db", "-f", job.write("haproxy.cfg", haproxy_settings(job, more))])


# What panelind always does to a request's head.  The gates compare with the plain one, which does none of it.
HEADERS = """  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request set-header X-Request-Id %[uuid()] unless { req.hdr(X-Request-Id) -m found }
"""
adapter("haproxy-headers", "proxy", needs="haproxy")(lambda job: haproxy(job, HEADERS))


def haproxy_settings(job, more="") -> str:
    """One thread; refused connections are retried, 1 s apart (haproxy's own turnaround); no POST is sent twice."""
    check = "check inter 10ms fall 1 rise 1" if job.checks else ""
    return f"""global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 620s
  timeout server 60s
  retries 50
  retry-on all-retryable-errors
frontend f
  bind 127.0.0.1:{job.port} backlog 4096
  monitor-uri /health
  monitor fail if {{ nbsrv(b) lt 1 }}
{more}  default_backend b
backend b
  http-request disable-l7-retry if METH_POST
  http-reuse safe
  server s 127.0.0.1:{job.worker_port or 1} {check}
"""


@adapter("caddy", "health proxy front answers")
def caddy(job):
    conf = job.write("Caddyfile", caddy_settings(job))
    return Launch(["caddy", "run", "--adapter", "caddyfile", "--config", conf],
                  env={"HOME": str(job.dir), "XDG_DATA_HOME": str(job.dir)})


def caddy_settings(job, admin="off") -> str:
    return f"""{{
 admin {admin}
}}
http://:{job.port} {{
 bind 127.0.0.1
 respond /health "ok"
 reverse_proxy 127.0.0.1:{job.worker_port or 1} {{
  lb_try_duration 5s
  lb_try_interval 10ms
 }}
}}
"""


@adapter("kamal-proxy", "proxy")
def kamal_proxy(job):
    deploy = ["kamal-proxy", "deploy", "w", "--force", "--health-check-path", "/1k", "--target",
              f"127.0.0.1:{job.worker_port}"]
    return Launch(["kamal-proxy", "run", "--http-port", str(job.port), "--https-port",
                   str(free_port())], stdout=Path("/dev/null"), after=deploy,
                  env=dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME",
                                     "XDG_STATE_HOME"), str(job.dir)))


@adapter("thruster", "start footprint proxy stop", needs="thrust")
def thruster(job):
    return Launch(["thrust", *job.argv], env={
        "HTTP_PORT": str(job.port or free_port()), "TARGET_PORT": str(job.worker_port or 1),
        "HTTPS_PORT": str(free_port()), "LOG_REQUESTS": "0", "STORAGE_PATH": str(job.dir),
        "HTTP_READ_TIMEOUT": "300", "HTTP_WRITE_TIMEOUT": "300"})
