# test_real_workers.py
# Servers that people run, under panelind in direct and socket mode. How each ends by itself: Tests/RealWorkers/README.md.
# Read that and harness/daemon.py first.

import json
import os
import shutil
import signal
import threading
import time

import pytest

from harness import accepts, children, free_port, http, is_alive, wait_until
from harness.daemon import ROOT

FIXTURES = ROOT / "Tests" / "RealWorkers"
WORKERS = ROOT / ".venv" / "workers" / "bin"
AGENT = ROOT / ".venv" / "agent" / "bin"


def tool(name, directory=WORKERS):
    """A server's program; the set-up of these tests installs it."""
    path = directory / name
    assert path.exists(), f"{path} is missing: scripts/setup end-to-end agent"
    return str(path)


@pytest.fixture
def serve(panelind):
    """A real server as the worker, in the fixtures' directory, with a sidecar."""

    def start(command, settings=None, environment=None, **options):
        return panelind(
            command=command, sidecar=True, environment={"PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
            settings={"worker.directory": str(FIXTURES), "restart.delay": "100ms", **(settings or {})}, **options)

    return start


def slow_request(port, path="/slow?seconds=2"):
    """Starts a request; the returned function gives its status, or what went wrong."""
    got = []

    def ask():
        try:
            got.append(http(port, path, timeout=30).status)
        except OSError as error:
            got.append(error)

    thread = threading.Thread(target=ask)
    thread.start()

    def result():
        thread.join(40)
        return got[0]

    return result


def in_flight(port):
    """The request is with the server: it has accepted, and its answer is not there yet."""
    def established():
        wanted = f":{port:04X}"
        with open("/proc/net/tcp") as file:
            rows = [line.split() for line in file.read().splitlines()[1:]]
        return any(row[1].endswith(wanted) and row[3] == "01" and row[9] != "0" for row in rows)

    wait_until(established, "the connection is accepted")
    # When a foreign server has read the request cannot be seen from outside.
    time.sleep(0.5)


def stop_with_a_request_in_flight(daemon, port, wanted=200):
    answer = slow_request(port)
    in_flight(port)
    assert daemon.stop() == 0
    assert answer() == wanted
    assert not daemon.survivors()
    assert not accepts(port)


# -- uvicorn


def test_uvicorn_on_a_shared_socket_loses_no_request_to_a_kill(serve):
    port = free_port()
    daemon = serve([tool("uvicorn"), "fa:app", "--fd", "{fd}"], {"serve.listen": f"127.0.0.1:{port}"})
    daemon.ready()
    assert http(port, "/").status == 200
    first = json.loads(http(port, "/pid").body)["pid"]
    os.kill(daemon.worker(), signal.SIGKILL)
    # Asked while nobody lives: the kernel's queue holds it.
    assert json.loads(http(port, "/pid", timeout=30).body)["pid"] != first
    daemon.ready(generation=2)
    stop_with_a_request_in_flight(daemon, port)
    # uvicorn drains and then ends by the signal; that is a requested end.
    assert daemon.events("worker_exited")[-1]["cause"] == "requested"


def test_uvicorn_on_its_own_port(serve):
    port = free_port()
    daemon = serve([tool("uvicorn"), "fa:app", "--port", "${PORT}"], environment={"PORT": port})
    daemon.ready()
    assert daemon.get("/ready").status == 200
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(generation=2)
    stop_with_a_request_in_flight(daemon, port)


def test_uvicorn_readiness_follows_its_dependency(serve, tmp_path):
    """/ready of the application: 503 until a file is there, and again when it goes."""
    port = free_port()
    file = tmp_path / "dependency"
    daemon = serve(
        [tool("uvicorn"), "fa:app", "--fd", "{fd}"],
        {"serve.listen": f"127.0.0.1:{port}", "probe.readiness.http": "/ready", "probe.readiness.period": "200ms",
         "log.level": "debug"},
        environment={"READY_FILE": str(file)})
    daemon.wait_event("probe_failed", count=2, reason="HTTP 503")
    assert daemon.get("/ready").status == 503
    file.touch()
    daemon.ready()
    file.unlink()
    daemon.wait_event("worker_unready")
    assert daemon.get("/ready").status == 503 and daemon.get("/health").status == 200


def test_uvicorn_with_workers_leaves_no_orphan(serve, placement):
    """Killed by 9, its children would serve on and hold the port."""
    port = free_port()
    daemon = serve(
        [tool("uvicorn"), "fa:app", "--port", "${PORT}", "--workers", "2"], environment={"PORT": port},
        placement=placement)
    daemon.ready()
    wait_until(lambda: len(daemon.survivors()) >= 3, "the parent and its children")
    old = {one.pid for one in daemon.survivors()}
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(generation=2)
    assert not [pid for pid in old if is_alive(pid)]
    killed = daemon.wait_event("worker_killed_survivors", generation=1)
    assert killed["pids"] and killed["commands"]
    assert daemon.stop() == 0
    assert not daemon.survivors()


def test_uvicorn_with_workers_and_a_broken_app_meets_the_deadline(serve):
    """The parent never ends and never listens: only the startup deadline sees it."""
    port = free_port()
    daemon = serve(
        [tool("uvicorn"), "broken:app", "--port", "${PORT}", "--workers", "2"],
        {"probe.startup.deadline": "10s", "stop.grace": "2s"}, environment={"PORT": port})
    exited = daemon.wait_event("worker_exited", timeout=60)
    assert exited["cause"] == "startup_deadline"
    assert any("Error" in line for line in exited["last_output"])
    assert daemon.stop() == 0
    assert not daemon.survivors()


def test_uvicorn_that_fails_its_lifespan_is_permanent(serve):
    port = free_port()
    daemon = serve(
        [tool("uvicorn"), "fa:app", "--fd", "{fd}"], {"serve.listen": f"127.0.0.1:{port}"},
        environment={"FAIL_LIFESPAN": "1"})
    assert daemon.wait(60) == 70
    exited = daemon.events("worker_exited")[0]
    assert (exited["exit_code"], exited["cause"]) == (3, "permanent")
    assert len(daemon.events("worker_started")) == 1


def test_the_plan_s_shell_without_exec_leaves_no_survivor_and_fools_nobody(serve, placement):
    """`sh -c "uvicorn ..."`: dash stays the leader and dies of TERM at once; uvicorn must not outlive it."""
    port = free_port()
    command = ["sh", "-c", f"{tool('uvicorn')} fa:app --host 127.0.0.1 --port $${{PORT}} --workers 1; true"]
    daemon = serve(command, environment={"PORT": port}, placement=placement)
    daemon.ready()
    assert [r for r in daemon.records if r["severity"] == "WARNING" and "exec" in r["message"]]
    first = json.loads(http(port, "/pid").body)["pid"]
    os.kill(daemon.worker(), signal.SIGKILL)  # The shell only.
    daemon.ready(generation=2)
    second = json.loads(http(port, "/pid").body)["pid"]
    assert second != first, "the next start was fooled by the squatter"
    assert "port_in_use" not in {one["cause"] for one in daemon.events("worker_exited")}
    assert daemon.stop() == 0
    assert not daemon.survivors()
    assert not accepts(port)


def test_a_taken_port_is_named(serve):
    """On 127.0.0.2 where panelind's own look at PORT does not see it: uvicorn says so, and panelind understands."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = serve(
            [tool("uvicorn"), "fa:app", "--host", "127.0.0.2", "--port", str(port)],
            {"restart.permanentExitCodes": [], "restart.delay": "20s", "probe.readiness.notify": True})
        assert daemon.wait_event("worker_exited")["cause"] == "port_in_use"


# -- others


def test_gunicorn_on_a_shared_socket(serve):
    """By LISTEN_FDS: with `-b fd://3` beside it gunicorn would take the same socket twice."""
    port = free_port()
    daemon = serve(
        [tool("gunicorn"), "wsgi:app", "-w", "2"], {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}"})
    daemon.ready()
    os.kill(daemon.worker(), signal.SIGKILL)
    # Its orphaned workers would still take a request into their grave.
    daemon.wait_event("worker_started", generation=2)
    assert http(port, "/", timeout=30).status == 200
    daemon.ready(generation=2)
    # Its workers, too, are those of the second one.
    wait_until(lambda: len(daemon.survivors()) >= 3, "the master and its workers")
    stop_with_a_request_in_flight(daemon, port)


def test_gunicorn_by_its_notifications(serve):
    """It says READY=1 at boot; with LISTEN_FDS alone it finds the socket."""
    port = free_port()
    daemon = serve(
        [tool("gunicorn"), "wsgi:app", "-w", "2"],
        {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}", "probe.readiness.notify": True})
    daemon.ready()
    assert http(port, "/", timeout=30).status == 200
    assert daemon.stop() == 0
    assert daemon.events("worker_exited")[-1]["exit_code"] == 0


def test_hypercorn_with_a_broken_app_is_a_failure_although_it_exits_0(serve):
    daemon = serve(
        [tool("hypercorn"), "broken:app", "-b", f"127.0.0.1:{free_port()}"], {"restart.limit": 1},
        environment={"PORT": free_port()})
    assert daemon.wait(60) == 70
    ends = daemon.events("worker_exited")
    assert [end["exit_code"] for end in ends] == [0, 0]
    assert ends[0]["restart_in_seconds"] > 0
    assert not daemon.events("worker_ready")


def test_hypercorn(serve):
    port = free_port()
    # Its parent passes the signal on; a second one from the group would cut the request off.
    daemon = serve(
        [tool("hypercorn"), "fa:app", "-b", "fd://{fd}"],
        {"serve.listen": f"127.0.0.1:{port}", "stop.target": "leader"})
    daemon.ready()
    stop_with_a_request_in_flight(daemon, port)


def test_waitress_drains_on_int(serve):
    port = free_port()
    daemon = serve(
        [tool("waitress-serve"), f"--listen=127.0.0.1:{port}", "wsgi:app"], {"stop.signal": "INT"},
        environment={"PORT": port})
    daemon.ready()
    stop_with_a_request_in_flight(daemon, port)
    assert daemon.events("worker_exited")[-1]["exit_code"] == 0


@pytest.fixture
def nginx(short_path):
    """A directory as nginx wants it, and its port."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    assert program, "nginx is missing: scripts/setup end-to-end"
    directory = short_path / "nginx"
    (directory / "slow").mkdir(parents=True)
    (directory / "tmp").mkdir()
    (directory / "slow" / "file").write_bytes(b"x" * 16384)
    # Its workers run as another user.
    short_path.chmod(0o755)
    port = free_port()
    text = (FIXTURES / "nginx.conf").read_text().replace("8080", str(port))
    (directory / "nginx.conf").write_text(text)
    return [program, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"], port


def test_nginx_drains_on_quit(panelind, nginx):
    command, port = nginx
    daemon = panelind(
        command=command, settings={"stop.signal": "QUIT", "stop.target": "leader", "restart.delay": "100ms"},
        environment={"PORT": port})
    daemon.ready()
    assert http(port, "/").body == b"nginx\n"
    answer = slow_request(port, "/slow/slow/file")
    in_flight(port)
    assert daemon.stop() == 0
    assert answer() == 200
    assert not daemon.survivors() and not accepts(port)


def test_nginx_s_workers_do_not_outlive_its_master(panelind, nginx, placement):
    command, port = nginx
    daemon = panelind(
        command=command, settings={"restart.delay": "100ms"}, environment={"PORT": port}, placement=placement)
    daemon.ready()
    # The master's port accepts a moment before it has forked them.
    wait_until(lambda: children(daemon.worker()), "nginx's workers")
    old = {one.pid for one in children(daemon.worker())}
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(generation=2)
    assert not [pid for pid in old if is_alive(pid)]
    assert http(port, "/").status == 200
    assert "port_in_use" not in {one["cause"] for one in daemon.events("worker_exited")}
    # Also so that this test leaves nothing: without a stop, nginx's workers would outlive a killed panelind.
    assert daemon.stop() == 0
    assert not accepts(port)


def test_redis_by_its_notifications(panelind, tmp_path):
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: scripts/setup end-to-end"
    port = free_port()
    data = tmp_path / "data"
    data.mkdir()
    daemon = panelind(
        command=[program, "--port", port, "--save", "", "--supervised", "systemd", "--dir", data],
        settings={"probe.readiness.notify": True, "restart.delay": "100ms"})
    daemon.ready()
    assert accepts(port)
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(generation=2)
    assert daemon.stop() == 0
    assert daemon.events("worker_exited")[-1]["exit_code"] == 0
    assert not accepts(port)


# -- the agent of this project


QUOTE = {"product_id": "ISOPANEL_EPS_50mm", "length_m": 6, "width_m": 10, "discount_percent": 5}


def quote(port):
    answer = http(port, "/quotes", "POST", json.dumps(QUOTE), {"Content-Type": "application/json"}, timeout=30)
    return answer.status, json.loads(answer.body)


def agent_copy(tmp_path):
    copy = tmp_path / "agent"
    shutil.copytree(ROOT / "Examples" / "agent", copy, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    return copy


def test_the_agent_s_broken_import_is_named_in_the_first_sentence(panelind, tmp_path):
    directory = agent_copy(tmp_path)
    (directory / "pricing.py").rename(directory / "prices_module.py")
    daemon = panelind(
        command=[tool("uvicorn", AGENT), "api:app", "--fd", "{fd}"],
        settings={"worker.directory": str(directory), "serve.listen": f"127.0.0.1:{free_port()}", "restart.limit": 0})
    assert daemon.wait(60) == 70
    exited = daemon.events("worker_exited")[0]
    assert exited["exit_code"] == 1
    assert "No module named" in exited["message"], exited["message"]
    assert any("No module named 'pricing'" in line for line in exited["last_output"])


def test_the_agent_without_its_prices_is_not_ready(panelind, tmp_path):
    directory = agent_copy(tmp_path)
    prices = (directory / "prices.json").rename(directory / "away.json")
    port = free_port()
    daemon = panelind(
        command=[tool("uvicorn", AGENT), "api:app", "--fd", "{fd}"], sidecar=True,
        settings={"worker.directory": str(directory), "serve.listen": f"127.0.0.1:{port}", "log.level": "debug"})
    daemon.wait_event("probe_failed", reason="HTTP 503")
    assert daemon.get("/ready").status == 503 and daemon.get("/health").status == 200
    prices.rename(directory / "prices.json")
    daemon.ready()
    status, body = quote(port)
    assert status == 200 and body["total_usd"] == 2988.05
