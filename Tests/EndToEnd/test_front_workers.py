# test_front_workers.py
# Servers that people run, behind the front: uvicorn in its forms, gunicorn, hypercorn, waitress, nginx, and the example agent.
# Read test_real_workers.py and Tests/RealWorkers/README.md first.

import json
import os
import signal
import threading
import time

import pytest

from harness import accepts, free_port, http, is_alive, wait_until
from harness.load import Load
from harness.rawclient import Client, fetch
from test_real_workers import AGENT, FIXTURES, QUOTE, agent_copy, nginx, quote, slow_request, tool

assert nginx  # A fixture.


@pytest.fixture
def behind(panelind):
    """A real server behind the front, with its public port in `port`."""

    def start(command, settings=None, environment=None, **options):
        port = free_port()
        daemon = panelind(
            command=command, environment={"PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
            settings={"worker.directory": str(FIXTURES), "restart.delay": "50ms", "serve.listen": f"127.0.0.1:{port}",
                      **(settings or {})}, **options)
        daemon.port = port
        return daemon

    return start


UVICORN = [tool("uvicorn"), "fa:app"]
FORMS = {
    "uvicorn --uds": [*UVICORN, "--uds", "{socket}"],
    "uvicorn --port": [*UVICORN, "--port", "{port}"],
    "uvicorn --workers 2 --uds": [*UVICORN, "--uds", "{socket}", "--workers", "2"],
    "uvicorn --workers 2 --port": [*UVICORN, "--port", "{port}", "--workers", "2"],
    "uvicorn --reload": [*UVICORN, "--uds", "{socket}", "--reload"],
    "gunicorn with uvicorn's worker": [tool("gunicorn"), "fa:app", "-k", "uvicorn.workers.UvicornWorker", "-b", "unix:{socket}"],
    "gunicorn -w 2": [tool("gunicorn"), "wsgi:app", "-w", "2", "--threads", "8", "-b", "127.0.0.1:{port}"],
    "hypercorn": [tool("hypercorn"), "fa:app", "-b", "unix:{socket}"],
    "waitress": [tool("waitress-serve"), "--unix-socket={socket}", "wsgi:app"],
}
# By what each is stopped so that it drains: Tests/RealWorkers/README.md.
STOPS = {"hypercorn": {"stop.target": "leader"}, "waitress": {"stop.signal": "INT"}}


def body_of(port, path):
    return json.loads(fetch(port, path).body)


def in_flight(daemon):
    """A slow request whose head the worker has; its status, when it is there."""
    answer = slow_request(daemon.port)
    # When a foreign server has read the request cannot be seen from outside.
    time.sleep(0.7)
    return answer


@pytest.mark.parametrize("name", FORMS)
def test_it_serves_survives_a_kill_and_drains(behind, name):
    daemon = behind(FORMS[name], STOPS.get(name))
    daemon.ready(timeout=60)
    first = body_of(daemon.port, "/pid")["pid"]
    # Kept connections, of which none is closed by the kill.
    clients = [Client(daemon.port) for _ in range(5)]
    for client in clients:
        client.get("/")
        assert client.answer().status == 200
    os.kill(daemon.worker(), signal.SIGKILL)
    # Until then an orphan of the killed one may take a request into its grave.
    daemon.wait_event("worker_started", generation=2)
    for client in clients:
        client.get("/pid")
    assert [client.answer().status for client in clients] == [200] * 5
    daemon.ready(generation=2, timeout=60)
    assert not is_alive(first) and body_of(daemon.port, "/pid")["pid"] != first
    answer = in_flight(daemon)
    assert daemon.stop() == 0
    assert answer() == 200
    assert not daemon.survivors()
    assert not accepts(daemon.port)
    for client in clients:
        client.close()
    assert daemon.events("worker_exited")[-1]["cause"] == "requested"


@pytest.mark.parametrize("name", ["uvicorn --uds", "uvicorn --port"])
def test_uvicorn_under_load_loses_nothing_to_kills(behind, name):
    daemon = behind(FORMS[name], {"serve.heldRequests": 2000, "serve.hold": "30s", "log.access": "none"})
    daemon.ready()
    make = lambda number: ("GET", f"GET /?{number} HTTP/1.1\r\nHost: h\r\n\r\n".encode())  # noqa: E731
    with Load(daemon.port, make, rate=40) as load:
        for generation in (1, 2):
            daemon.ready(generation)
            wait_until(lambda: load.outstanding < 20 and len(load.outcomes) > 50, "traffic")
            time.sleep(0.5)
            os.kill(daemon.worker(generation), signal.SIGKILL)
        daemon.ready(3)
    # Its head and its body are two writes: between them it may die, and then the answer has begun.
    lost = [one for one in load.failures() if one.status != 200]
    assert not lost, lost[:3]
    assert len(load.failures()) <= 2


def test_uvicorn_sees_the_client_and_its_scheme(behind):
    """FORWARDED_ALLOW_IPS: otherwise it would not believe a peer without an address."""
    daemon = behind(FORMS["uvicorn --uds"])
    daemon.ready()
    got = json.loads(fetch(daemon.port, "/headers", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https").body)
    assert got["client"][0] == "1.2.3.4" and got["scheme"] == "https"


def test_reload_is_advised_against_and_still_reloads(behind, tmp_path):
    (tmp_path / "app.py").write_text((FIXTURES / "fa.py").read_text())
    daemon = behind([tool("uvicorn"), "app:app", "--uds", "{socket}", "--reload"], {"worker.directory": str(tmp_path)})
    assert [record for record in daemon.records if "--reload" in record["message"]] or wait_until(
        lambda: [r for r in daemon.records if "--reload" in r["message"]], "the advice")
    daemon.ready(timeout=60)
    first = body_of(daemon.port, "/pid")["pid"]

    def changed():
        # It compares times of files, from a first look on that nobody can see: so once more each time.
        with (tmp_path / "app.py").open("a") as file:
            file.write("\n# changed\n")
        try:
            return body_of(daemon.port, "/pid")["pid"] != first
        except (AssertionError, OSError, ValueError):
            return False

    wait_until(changed, "its own reload", timeout=60, every=1)
    assert len(daemon.events("worker_started")) == 1
    assert daemon.stop() == 0
    assert not daemon.survivors()


def test_a_stop_lets_uvicorn_end_its_websockets_and_streams(behind):
    """It closes WebSockets with 1012, and nothing waits for the end of the drain."""
    import websockets.exceptions
    import websockets.sync.client

    daemon = behind(FORMS["uvicorn --uds"], {"stop.budget": "9s"})
    daemon.ready()
    with websockets.sync.client.connect(f"ws://127.0.0.1:{daemon.port}/ws") as ws, Client(daemon.port) as events:
        ws.send("hello")
        assert ws.recv(timeout=20) == "hello"
        daemon.send(signal.SIGTERM)
        begin = time.monotonic()
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            ws.recv(timeout=20)
        assert closed.value.rcvd.code == 1012
        assert daemon.wait() == 0
        assert time.monotonic() - begin < 5
        assert events


def test_a_reload_of_uvicorn_under_load_fails_nothing(behind):
    daemon = behind(FORMS["uvicorn --uds"], {"log.access": "none"})
    daemon.ready()
    make = lambda number: ("GET", f"GET /?{number} HTTP/1.1\r\nHost: h\r\n\r\n".encode())  # noqa: E731
    with Load(daemon.port, make, rate=40) as load:
        for generation in (2, 3):
            wait_until(lambda: load.outstanding < 20 and len(load.outcomes) > 30 * generation, "traffic")
            daemon.write_settings({"worker.environment": {"ROUND": str(generation)}})
            daemon.send(signal.SIGHUP)
            daemon.ready(generation)
            daemon.wait_event("worker_exited", generation=generation - 1)
    assert not load.failures(), load.failures()[:3]


def test_nginx_that_cannot_be_told_where_to_serve(behind, nginx):  # noqa: F811
    command, port = nginx
    daemon = behind(command, {"serve.upstream": f"127.0.0.1:{port}", "stop.signal": "QUIT", "stop.target": "leader"})
    daemon.ready()
    assert fetch(daemon.port, "/").body == b"nginx\n"
    with Client(daemon.port) as kept:
        kept.get("/")
        assert kept.answer().body == b"nginx\n"
        os.kill(daemon.worker(), signal.SIGKILL)
        # Until then its orphans still serve, and are then ended in the middle of it.
        daemon.wait_event("worker_started", generation=2)
        kept.get("/")
        assert kept.answer().body == b"nginx\n"
        # A download at 8 KiB a second is still on its way at the stop.
        kept.get("/slow/slow/file")
        got = kept.head()
        assert daemon.stop() == 0
        assert len(kept.rest(got).body) == 16384
    assert not daemon.survivors()


# -- the agent of this project


def test_the_agent_quotes_through_the_front_in_every_weather(panelind, tmp_path):
    directory = agent_copy(tmp_path)
    port = free_port()
    daemon = panelind(
        command=[tool("uvicorn", AGENT), "api:app", "--uds", "{socket}"],
        settings={"worker.directory": str(directory), "serve.listen": f"127.0.0.1:{port}", "restart.delay": "50ms",
                  "serve.hold": "60s"})

    def asked():
        try:
            return http(port, "/health")
        except ConnectionRefusedError:
            return None

    # While it imports FastAPI the front is there already.
    assert wait_until(asked, "the front").status == 200
    status, body = quote(port)
    assert status == 200 and body["total_usd"] == 2988.05
    daemon.ready()
    assert json.loads(http(port, "/ready").body)["status"] == "ready"
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.wait_event("worker_exited")
    status, body = quote(port)
    assert status == 200 and body["total_usd"] == 2988.05, "it waited for the next worker"
    answer = http(port, "/quotes", "POST", json.dumps({**QUOTE, "length_m": -1}), {"Content-Type": "application/json"})
    assert answer.status == 422
    assert daemon.stop() == 0
    assert not daemon.survivors()


def test_the_agent_without_its_prices_answers_503_itself_once_and_then_waits(panelind, tmp_path):
    directory = agent_copy(tmp_path)
    (directory / "prices.json").rename(directory / "away.json")
    port = free_port()
    daemon = panelind(
        command=[tool("uvicorn", AGENT), "api:app", "--uds", "{socket}"],
        settings={"worker.directory": str(directory), "serve.listen": f"127.0.0.1:{port}", "log.level": "debug",
                  "serve.hold": "30s"})
    daemon.wait_event("probe_failed", reason="HTTP 503")
    ready = http(port, "/ready")
    assert ready.status == 503 and json.loads(ready.body)["reason"] == "worker_starting"
    assert http(port, "/health").status == 200
    got = []
    waiting = threading.Thread(target=lambda: got.append(quote(port)))
    waiting.start()
    (directory / "away.json").rename(directory / "prices.json")
    waiting.join(60)
    assert got and got[0][0] == 200
