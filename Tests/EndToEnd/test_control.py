# test_control.py
# The control socket and its commands, through the built binary: CONTRACT sections 1 and 9.
# Read harness/control.py first. `why` has its own tests, and so has reload under load.

import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from harness import binaries, fd_count, free_port, is_alive, wait_until
from harness.control import Control, command, sse

NOTIFY = {"probe.readiness.notify": True}


def start(panelind, steps=("notify READY=1",), settings=None, **options):
    """A daemon with a control socket in its own directory; `control` asks it."""
    daemon = panelind(list(steps), {**NOTIFY, "control.path": "c.sock", "restart.delay": "50ms", **(settings or {})},
                      **options)
    daemon.wait_event("panelind_started")
    daemon.socket = daemon.directory / "c.sock"
    daemon.control = Control(daemon.socket)
    return daemon


@pytest.fixture
def ready(panelind):
    daemon = start(panelind)
    daemon.ready()
    return daemon


# -- status


def test_status_is_the_health_body_and_more(panelind):
    daemon = start(panelind, ["print hello", "notify STATUS=warm", "notify READY=1"], sidecar=True)
    daemon.ready()
    leader = daemon.worker()
    wait_until(lambda: daemon.control.status()["worker_status"] == "warm", "the worker's STATUS=")
    status = daemon.control.status()
    health = json.loads(daemon.get("/ready").body)
    assert {**health, "uptime_seconds": 0} == {k: v for k, v in {**status, "uptime_seconds": 0}.items() if k in health}
    assert (status["mode"], status["platform"], status["pid"]) == ("direct", "local", leader)
    assert status["panelind_pid"] == daemon.pid
    assert status["started_at"] <= status["ready_at"]
    assert (status["last_exit"], status["next_restart_in_seconds"]) == (None, None)
    assert (status["in_flight"], status["held"]) == (0, 0)


def test_status_tells_of_the_last_exit_and_the_next_start(panelind):
    daemon = start(panelind, ["print 'the reason' to stderr", "exit 7"], {"restart.delay": "1h", "restart.maxDelay": "1h"})
    daemon.wait_event("worker_exited")
    status = wait_until(lambda: (s := daemon.control.status())["last_exit"].get("last_output") and s, "its last output")
    assert (status["state"], status["reason"], status["pid"]) == ("backoff", "worker_backoff", None)
    assert 3000 * 0.8 < status["next_restart_in_seconds"] <= 3600 * 1.2
    logged = daemon.events("worker_exited")[0]
    told = status["last_exit"]
    for name in ("event", "severity", "message", "generation", "pid", "exit_code", "cause", "last_output"):
        assert told[name] == logged[name], name


# -- the commands


def test_the_commands_find_the_socket_where_the_settings_put_it(ready):
    by_file = command("status", directory=ready.directory)
    assert by_file.returncode == 0 and by_file.stdout.startswith("state       ready\n"), by_file
    by_option = command("status", "--json", path=ready.socket)
    assert json.loads(by_option.stdout)["state"] == "ready"
    by_variable = command("status", directory="/", environment={"PANELIND_CONTROL_PATH": ready.socket})
    assert by_variable.stdout.startswith("state       ready\n")


def test_on_local_the_socket_is_beside_the_configuration(panelind):
    daemon = start(panelind, settings={"control.path": None})
    assert (daemon.directory / ".panelind.sock").exists()
    assert command("status", directory=daemon.directory).returncode == 0
    assert daemon.stop() == 0
    assert not (daemon.directory / ".panelind.sock").exists()


def test_without_a_daemon_the_commands_say_where_they_looked(tmp_path):
    for name in ("status", "why", "logs", "restart", "reload", "stop"):
        done = command(name, path=tmp_path / "no.sock")
        assert done.returncode == 1
        assert done.stdout == ""
        assert f"cannot reach panelind: {tmp_path}/no.sock: no such socket" in done.stderr


def test_status_watch_goes_on_until_it_is_told_to_end(ready):
    watch = subprocess.Popen(
        [binaries() / "panelind", "status", "--watch", "--control", ready.socket], stdout=subprocess.PIPE, text=True)
    seen = 0
    for line in watch.stdout:
        seen += line.startswith("state ")
        if seen == 2:
            break
    watch.send_signal(signal.SIGINT)
    assert watch.wait(10) == -signal.SIGINT
    watch.stdout.close()


def test_restart_waits_for_the_next_worker(ready):
    done = command("restart", path=ready.socket)
    assert done.returncode == 0, done
    assert "worker g2 is ready" in done.stdout
    assert ready.control.status()["restarts"] == 0
    assert ready.events("worker_exited")[0]["cause"] == "requested"


def test_restart_says_that_the_next_worker_failed(panelind):
    daemon = start(panelind, ["wait-file go", "exit 9"], {"stop.grace": "1s"})
    (daemon.directory / "go").touch()
    status, body = daemon.control.post("/v1/restart")
    assert status == 502
    assert body["status"] == 502 and "exit 9" in body["detail"]


def test_restart_ends_a_backoff_and_a_held_failure(panelind):
    daemon = start(panelind, ["wait-file go", "notify READY=1"],
                   {"restart.delay": "1h", "restart.maxDelay": "1h", "probe.startup.deadline": "100ms"})
    daemon.wait_event("worker_backoff")
    (daemon.directory / "go").touch()
    status, body = daemon.control.post("/v1/restart")
    assert (status, body["generation"]) == (200, 2)

    held = start(panelind, ["wait-file go", "notify READY=1"],
                 {"probe.startup.deadline": "100ms", "restart.limit": 1, "restart.onGiveUp": "hold"})
    held.wait_event("worker_failed")
    assert held.control.status()["state"] == "failed"
    (held.directory / "go").touch()
    assert held.control.post("/v1/restart")[0] == 200
    assert held.control.status()["state"] == "ready"
    assert held.stop() == 0


def test_stop_is_answered_when_panelind_ends(panelind):
    daemon = start(panelind, ["on TERM exit 0 after 300ms", "notify READY=1"])
    daemon.ready()
    begin = time.monotonic()
    status, body = daemon.control.post("/v1/stop")
    assert time.monotonic() - begin >= 0.3
    assert (status, body["exit_code"]) == (200, 0)
    assert daemon.wait() == 0
    assert not daemon.socket.exists()
    assert daemon.survivors() == []


def test_what_waits_is_told_when_panelind_stops(panelind):
    daemon = start(panelind, ["wait-file never"])
    daemon.worker()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(daemon.control.post("/v1/restart")))
    waiting.start()
    daemon.worker(2)
    assert daemon.stop() == 0
    waiting.join(10)
    (status, body), = answers
    assert status == 409 and "stops" in body["detail"]


def test_reload_takes_the_new_settings_and_says_how(ready):
    ready.write_settings({"worker.environment": {"TEST_NEW": "yes"}})
    done = command("reload", path=ready.socket)
    assert done.returncode == 0, done
    assert "worker g2 has taken over" in done.stdout
    assert "could not serve side by side" in done.stdout, "direct mode says that it restarts"
    status, body = ready.control.post("/v1/reload")
    assert (status, body["generation"], body["overlapped"]) == (200, 3, False)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"stop.grace": "nonsense"}, 422, "stop.grace"),
        ({"no.such.key": 1}, 422, "unknown key"),
        ({"control.path": "d.sock"}, 409, "control.path needs a restart of panelind"),
        ({"platform": "kubernetes"}, 409, "platform needs a restart of panelind"),
    ],
)
def test_a_reload_that_cannot_be_says_why_and_changes_nothing(ready, changes, status, words):
    leader = ready.worker()
    ready.write_settings(changes)
    got, body = ready.control.post("/v1/reload")
    assert got == status
    assert words in body["detail"] and any(words in error for error in body["errors"])
    assert is_alive(leader)
    done = command("reload", path=ready.socket)
    assert done.returncode == 1 and words in done.stderr
    assert ready.control.status()["generation"] == 1


def test_a_reload_during_a_reload_is_refused(panelind):
    daemon = start(panelind, ["notify READY=1", "on TERM exit 0 after 500ms"])
    daemon.ready()
    answers = []
    first = threading.Thread(target=lambda: answers.append(daemon.control.post("/v1/reload")))
    first.start()
    daemon.wait_event("reload_begin")
    status, body = daemon.control.post("/v1/reload")
    assert (status, body["detail"]) == (409, "another reload is under way")
    first.join(30)
    assert answers[0][0] == 200


def test_status_names_the_process_of_a_mainpid(panelind):
    daemon = start(panelind, ["mainpid-child", "notify READY=1", "wait-file go", "exit 0"])
    first = daemon.worker()
    daemon.ready()
    (daemon.directory / "go").touch()
    wait_until(lambda: not is_alive(first), "the first process has left")
    [main] = daemon.survivors()
    assert daemon.control.status()["pid"] == main.pid
    daemon.stop()


def test_a_failed_reload_in_backoff_claims_no_old_worker(panelind):
    daemon = start(panelind, ["exit 1"], {"restart.delay": "20s"})
    daemon.wait_event("worker_backoff")
    status, body = daemon.control.post("/v1/reload")
    assert (status, body["overlapped"]) == (502, False)
    assert "exit 1" in body["detail"] and "keeps serving" not in body["detail"]
    daemon.stop()


def test_a_reload_that_a_stop_calls_off_claims_no_old_worker(panelind):
    daemon = start(panelind, ["listen fd 3", "wait-file go", "notify READY=1"],
                   {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{free_port()}", "stop.grace": "300ms"})
    (daemon.directory / "go").touch()
    daemon.ready()
    (daemon.directory / "go").unlink()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(daemon.control.post("/v1/reload")))
    waiting.start()
    daemon.worker(2)
    assert daemon.stop() == 0
    waiting.join(10)
    (status, body), = answers
    assert status == 502 and "panelind stops" in body["detail"] and "keeps serving" not in body["detail"]


def test_reload_says_that_the_new_worker_failed(panelind):
    daemon = start(panelind, ["notify READY=1"])
    daemon.ready()
    daemon.write_settings({"worker.command": ["sh", "-c", "exit 5"]})
    status, body = daemon.control.post("/v1/reload")
    assert status == 502 and "exit 5" in body["detail"]


# -- logs and events


def test_logs_are_the_workers_last_lines_as_it_wrote_them(panelind):
    daemon = start(panelind, ["print 100 lines", "print 'two words' to stderr", "notify READY=1"])
    daemon.ready()
    daemon.wait_message("two words")
    assert command("logs", "-n", "2", path=daemon.socket).stdout in ("line 100\ntwo words\n", "line 99\nline 100\n")
    assert command("logs", "-n", "0", path=daemon.socket).stdout == ""
    assert len(command("logs", path=daemon.socket).stdout.splitlines()) == 50
    lines = daemon.control.get("/v1/logs?lines=10000")["lines"]
    assert [line["text"] for line in lines if line["stream"] == "stdout"] == [f"line {n}" for n in range(1, 101)]
    assert [line["sequence"] for line in lines] == list(range(1, 102))


def test_logs_follow_a_worker_into_its_next_life(panelind):
    daemon = start(panelind, ["print hello", "notify READY=1"])
    daemon.ready()
    daemon.wait_message("hello")
    follow = subprocess.Popen(
        [binaries() / "panelind", "logs", "-f", "-n", "1", "--control", daemon.socket], stdout=subprocess.PIPE,
        text=True)
    assert follow.stdout.readline() == "hello\n"
    assert command("restart", path=daemon.socket).returncode == 0
    assert follow.stdout.readline() == "hello\n"
    assert daemon.stop() == 0
    assert follow.stdout.read() == ""
    assert follow.wait(10) in (0, 1)
    follow.stdout.close()


def test_logs_do_not_steer_the_terminal_of_the_reader(panelind):
    daemon = panelind(
        command=["sh", "-c", r"printf 'a\033[31mred\033]0;title\007\033cb\001\n'; exec sleep 60"],
        settings={"control.path": "c.sock"})
    daemon.ready()
    control = Control(daemon.directory / "c.sock")
    assert wait_until(lambda: command("logs", path=control.path).stdout, "a line") == "aredb\n"
    assert "\x1b" in control.get("/v1/logs")["lines"][0]["text"], "a program gets what was written"


def test_events_are_the_logs_own_records_numbered(panelind):
    daemon = start(panelind, ["notify READY=1", "exit-after 100ms 3"], {"restart.limit": 1, "restart.onGiveUp": "hold"})
    daemon.wait_event("worker_failed")
    told = wait_until(
        lambda: (e := daemon.control.get("/v1/events")["events"]) and e[-1]["event"] == "worker_failed" and e,
        "the last event")
    assert [event["id"] for event in told] == list(range(1, len(told) + 1))
    logged = [e for e in daemon.events() if e["severity"] != "DEBUG" and e["event"] != "warning"]
    assert [e["event"] for e in told] == [e["event"] for e in logged]
    for mine, theirs in zip(told, logged):
        for name in theirs:
            if name != "time":
                assert mine[name] == theirs[name], (mine, name)
    later = daemon.control.get(f"/v1/events?after={told[2]['id']}")["events"]
    assert later == told[3:]


def test_events_can_be_followed(ready):
    connection, answer = ready.control.follow("/v1/events?follow=true")
    assert answer.headers["Content-Type"] == "text/event-stream"
    first = sse(answer, 3)
    assert [event["event"] for event in first] == ["panelind_started", "worker_started", "worker_ready"]
    os.kill(ready.worker(), signal.SIGKILL)
    exited, = sse(answer, 1)
    assert exited["event"] == "worker_exited"
    assert json.loads(exited["data"])["exit_signal"] == "SIGKILL"
    connection.close()
    again, answer = ready.control.follow("/v1/events?follow=true", {"Last-Event-ID": exited["id"]})
    assert int(sse(answer, 1)[0]["id"]) == int(exited["id"]) + 1
    again.close()


# -- who may ask, and what is refused


def test_the_socket_is_for_its_owner_only(ready):
    assert stat.S_IMODE(ready.socket.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_user_is_refused_even_where_the_file_lets_it_in(panelind):
    daemon = start(panelind, shared=True)
    daemon.ready()
    daemon.socket.chmod(0o666)
    asker = (
        "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
        "s.sendall(b'POST /v1/stop HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "data=b''\nwhile chunk:=s.recv(4096): data+=chunk\nprint(data.decode())\n")
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-c", asker,
         daemon.socket], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("HTTP/1.1 403 "), done
    assert "only root and panelind's own user" in done.stdout
    assert daemon.control.status()["state"] == "ready"


def test_a_living_socket_is_refused_and_not_harmed(panelind, ready):
    second = panelind(["notify READY=1"], {**NOTIFY, "control.path": str(ready.socket)})
    assert second.wait() == 71
    assert f"cannot use the control socket {ready.socket}: another panelind lives there" in second.stderr
    assert second.lines == []
    assert ready.control.status()["state"] == "ready"


def test_a_stale_socket_is_taken_over(panelind, ready):
    os.kill(ready.pid, signal.SIGKILL)
    ready.popen.wait(10)
    assert ready.socket.exists()
    second = panelind(["notify READY=1"], {**NOTIFY, "control.path": str(ready.socket)})
    second.ready()
    assert ready.control.status()["panelind_pid"] == second.pid


def test_a_place_that_cannot_be_written_is_one_warning(panelind):
    daemon = panelind(["notify READY=1"], {**NOTIFY, "control.path": "/proc/no/c.sock"})
    daemon.ready()
    assert len([r for r in daemon.events("warning") if "control socket" in r["message"]]) == 1
    assert daemon.stop() == 0


def test_a_file_that_is_no_socket_is_left_alone(panelind, tmp_path):
    (tmp_path / "c.sock").write_text("mine")
    daemon = panelind(["notify READY=1"], {**NOTIFY, "control.path": str(tmp_path / "c.sock")})
    daemon.ready()
    assert daemon.stop() == 0
    assert (tmp_path / "c.sock").read_text() == "mine"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/status/", 404),
        ("GET", "/v1/%73tatus", 404),
        ("GET", "/v2/status", 404),
        ("POST", "/v1/status", 405),
        ("DELETE", "/v1/why", 405),
        ("GET", "/v1/stop", 405),
        ("HEAD", "/v1/restart", 405),
        ("PUT", "/v1/reload", 405),
        ("GET", "/v1/logs?lines=-1", 400),
        ("GET", "/v1/logs?lines=10001", 400),
        ("GET", "/v1/logs?lines=99999999999999999999999", 400),
        ("GET", "/v1/logs?lines=+5", 400),
        ("GET", "/v1/logs?lines=5&lines=6", 400),
        ("GET", "/v1/logs?follow=maybe", 400),
        ("GET", "/v1/events?after=x", 400),
        ("GET", "/v1/events?follow", 400),
        ("GET", "/v1/logs?" + "a" * 5000, 414),
    ],
)
def test_what_is_not_served_is_a_problem(ready, method, target, status):
    got, headers, body = ready.control.ask(target, method)
    assert got == status
    assert headers["Content-Type"] == "application/problem+json"
    if status == 405:
        assert headers["Allow"] in ("GET, HEAD", "POST")
    if method != "HEAD":
        problem = json.loads(body)
        assert problem["status"] == status and problem["title"] and problem["detail"]
    assert ready.control.status()["state"] == "ready"


@pytest.mark.parametrize(
    ("bytes_", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000 + b"\r\n\r\n", 431),
        (b"POST /v1/restart HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", 413),
        (b"POST /v1/restart HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_a_malformed_request_is_refused(ready, bytes_, status):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(ready.socket))
        client.sendall(bytes_)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"application/problem+json" in answer
    assert len(ready.events("worker_started")) == 1


def test_many_clients_that_do_nothing_do_not_keep_a_command_out(ready):
    idle = []
    for _ in range(200):
        # With a timeout of Python's the socket would not wait where the queue is full.
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(ready.socket))
        idle.append(client)
    # A connection younger than 100 ms may have a request under way, and makes no room.
    wait_until(lambda: command("status", path=ready.socket).returncode == 0, "a command is answered")
    for client in idle:
        client.close()


@pytest.mark.parametrize("words", [["status"], ["logs", "-f"]])
def test_a_panelind_that_is_stopped_is_said_to_be_silent(ready, words):
    """By itself after some ten seconds: the limit is the command's own."""
    ready.send(signal.SIGSTOP)
    try:
        done = command(*words, path=ready.socket)
        assert (done.returncode, done.stdout) == (1, "")
        assert "panelind has been silent for 10s: is it stopped" in done.stderr
    finally:
        ready.send(signal.SIGCONT)
    assert ready.control.status()["state"] == "ready"


def test_followers_that_are_too_many_are_told_why(ready):
    done, held = None, []
    try:
        while len(held) < 200:
            follower = socket.socket(socket.AF_UNIX)
            follower.connect(str(ready.socket))
            follower.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: p\r\n\r\n")
            held.append(follower)
        done = command("status", path=ready.socket)
    finally:
        for follower in held:
            follower.close()
    assert done.returncode == 1 and "too many ask and follow already" in done.stderr, done
    wait_until(lambda: command("status", path=ready.socket).returncode == 0, "they are gone")


@pytest.mark.parametrize("place", ["/dev/null", "/"])
def test_what_is_no_socket_is_said_to_be_none(place):
    done = command("status", path=place)
    assert done.returncode == 1 and f"{place}: it is no socket" in done.stderr, done


def test_a_client_that_stops_reading_stalls_nobody(panelind):
    daemon = start(panelind, ["notify READY=1", "flood"], sidecar=True, settings={"log.overflow": "drop"})
    daemon.ready()
    slow = [daemon.control.follow("/v1/logs?follow=true") for _ in range(4)]
    worst = 0.0
    for _ in range(50):
        begin = time.monotonic()
        assert daemon.get("/ready").status == 200
        worst = max(worst, time.monotonic() - begin)
    assert worst < 2
    assert daemon.control.status()["state"] == "ready"
    with open(f"/proc/{daemon.pid}/status") as file:
        memory = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    assert memory < 120_000, "kB; what a client does not read is not kept for it"
    for connection, _ in slow:
        connection.close()


def test_clients_that_leave_leave_nothing_behind(ready):
    before = fd_count(ready.pid)
    for _ in range(20):
        for target in ("/v1/logs?follow=true", "/v1/events?follow=true"):
            connection, answer = ready.control.follow(target)
            connection.sock.close()
            connection.close()
            answer.close()
    wait_until(lambda: fd_count(ready.pid) <= before, "all connections are closed")


def test_with_everything_on_and_nobody_looking_panelind_sleeps(panelind):
    daemon = start(panelind, sidecar=True)
    daemon.ready()
    command("why", path=daemon.socket)

    def switches():
        total = 0
        for task in pathlib.Path(f"/proc/{daemon.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
        return total

    # What the start and the question left to do is soon done; then five seconds of nothing.
    wait_until(lambda: (a := switches()) == (time.sleep(0.5), switches())[1] and a, "panelind is at rest")
    before = switches()
    time.sleep(5)
    assert switches() - before <= 1
