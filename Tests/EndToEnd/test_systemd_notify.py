# test_systemd_notify.py
# What systemd is told, and when (CONTRACT section 7): by a receiver of the test's own at NOTIFY_SOCKET.
# A real systemd hears the same in Tests/Environments. Read harness/service.py first.

import glob
import os
import signal
import socket
import subprocess
import time

import pytest

from harness import Receiver, binaries, in_namespace, wait_until

NOTIFY = {"probe.readiness.notify": True}
# What dlopen finds by the name libsystemd.so.0.
LIBRARIES = [os.path.realpath(p) for d in ("/lib", "/usr/lib") for p in glob.glob(f"{d}/*-linux-gnu/libsystemd.so.0")]


@pytest.fixture
def service(tmp_path):
    """A receiver; `service.environment` names it."""
    receiver = Receiver(tmp_path / "notify")
    receiver.environment = {"NOTIFY_SOCKET": receiver.address}
    yield receiver
    receiver.close()


def warnings(daemon, text):
    return [r for r in daemon.records if r.get("severity") == "WARNING" and text in r["message"]]


def switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
    return total


# -- start, readiness, status


@pytest.mark.case("C55")
def test_ready_comes_when_the_worker_is_ready_and_once(panelind, service, tmp_path):
    go = tmp_path / "go"
    daemon = panelind([f"wait-file {go}", "notify READY=1"], NOTIFY, environment=service.environment)
    _, pid, _ = service.wait("STATUS=worker g1 is starting")
    assert pid == daemon.pid, "NotifyAccess=main: panelind itself says it"
    service.wait("EXTEND_TIMEOUT_USEC=")
    daemon.worker()
    assert "READY=1" not in service.texts
    go.write_text("")
    service.wait("READY=1")
    assert service.texts.index("STATUS=worker g1 is ready") < service.texts.index("READY=1")
    os.kill(daemon.worker(), signal.SIGKILL)
    service.wait("STATUS=worker g2 is ready")
    assert daemon.stop() == 0
    assert service.texts.count("READY=1") == 1


def test_the_start_may_take_its_startup_deadline_and_what_the_worker_asks_for(panelind, service):
    panelind(
        ["notify EXTEND_TIMEOUT_USEC=300000000"], {**NOTIFY, "probe.startup.deadline": "200s", "stop.budget": "10s"},
        environment=service.environment)
    assert service.wait("EXTEND_TIMEOUT_USEC=")[2] == "EXTEND_TIMEOUT_USEC=210000000"
    later = int(service.wait("EXTEND_TIMEOUT_USEC=", count=2)[2].partition("=")[2])
    assert 309_000_000 < later <= 310_000_000


def test_the_status_says_why_a_worker_is_not_ready(panelind, service):
    daemon = panelind(
        ["exit 3"], {"restart.delay": "20ms", "restart.maxDelay": "20ms", "restart.limit": 2, "restart.permanentExitCodes": []},
        environment=service.environment)
    assert daemon.wait() == 70
    assert service.wait("STATUS=the next start is in ")[2].endswith(": worker g1 ended: exit 3")
    assert "STATUS=worker g2 is starting; before: worker g1 ended: exit 3" in service.texts
    last = [text for text in service.texts if text.startswith("STATUS=")][-1]
    assert last == "STATUS=gave up: more than 2 failures in a row (restart.limit); worker g3 ended: exit 3"
    assert "READY=1" not in service.texts


def test_a_status_is_one_line(panelind, service, tmp_path):
    """What an error quotes may have more: here the path of a program that is gone at its second start."""
    program = tmp_path / "of two\nlines"
    program.write_text("#!/bin/sh\nrm -f \"$0\"\nexit 1\n")
    program.chmod(0o755)
    daemon = panelind(command=[program], settings={"restart.delay": "20ms"}, environment=service.environment)
    assert daemon.wait() == 70
    text = service.wait("STATUS=gave up")[2]
    assert "\n" not in text and "no such file" in text


# -- reload and stop


@pytest.mark.parametrize("good", [True, False])
def test_a_reload_is_told_with_its_time_and_ends_with_ready(panelind, service, good):
    daemon = panelind(["notify READY=1"], NOTIFY, environment=service.environment)
    service.wait("READY=1")
    daemon.write_settings({"stop.budget": "7s" if good else "seven"})
    before = time.monotonic_ns() // 1000
    daemon.send(signal.SIGHUP)
    text = service.wait("RELOADING=1")[2]
    stamp = int(text.partition("\nMONOTONIC_USEC=")[2])
    assert before <= stamp <= time.monotonic_ns() // 1000
    service.wait("READY=1", count=2)
    if good:
        service.wait("STATUS=worker g2 is ready")
    else:
        status = service.wait("STATUS=worker g1 is ready: the reload was refused: ")[2]
        assert "stop.budget=seven" in status
    assert daemon.stop() == 0


def test_a_reload_that_fails_ends_with_ready_and_says_why(panelind, service):
    daemon = panelind(["notify READY=1"], {**NOTIFY, "restart.delay": "50ms"}, environment=service.environment)
    service.wait("READY=1")
    daemon.write_settings({"worker.command": ["sh", "-c", "exit 5"], "restart.permanentExitCodes": []})
    daemon.send(signal.SIGHUP)
    service.wait("READY=1", count=2)
    service.wait(lambda text: text.startswith("STATUS=") and "the reload failed: exit 5" in text or "exit 5" in text)


@pytest.mark.case("C55")
def test_stopping_comes_at_once_with_the_budget(panelind, service):
    daemon = panelind(
        ["notify READY=1", "on TERM begin sleep 300ms exit 0 end"], {**NOTIFY, "stop.budget": "7s"},
        environment=service.environment)
    service.wait("READY=1")
    begin = time.monotonic()
    assert daemon.stop() == 0
    assert service.wait("STOPPING=1")[0] - begin < 0.25
    texts = service.texts
    assert texts.count("STOPPING=1") == 1
    after = texts[texts.index("STOPPING=1") :]
    assert after[1] == "EXTEND_TIMEOUT_USEC=7000000"
    assert after[-2:] == ["STATUS=stopped", "BARRIER=1"], "systemd has taken all before panelind is gone"


# -- the watchdog


@pytest.mark.case("C55")
def test_the_watchdog_is_kept_while_the_loop_turns_and_not_while_it_stands(panelind, service):
    daemon = panelind(
        ["notify READY=1"], NOTIFY, environment={**service.environment, "WATCHDOG_USEC": "200000"})
    at = [service.wait("WATCHDOG=1", count=n)[0] for n in range(1, 8)]
    assert 0.5 < at[-1] - at[0] < 2, "half of the timeout"
    daemon.send(signal.SIGSTOP)
    wait_until(lambda: open(f"/proc/{daemon.pid}/stat").read().split()[2] == "T", "panelind stands")
    count = service.texts.count("WATCHDOG=1")
    time.sleep(0.5)
    assert service.texts.count("WATCHDOG=1") <= count + 1
    daemon.send(signal.SIGCONT)
    service.wait("WATCHDOG=1", count=count + 3)
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    "variables, said",
    [
        ({"WATCHDOG_USEC": "soon"}, "cannot use WATCHDOG_USEC=soon"),
        ({"WATCHDOG_USEC": "0"}, "cannot use WATCHDOG_USEC=0"),
        ({"WATCHDOG_USEC": "-5"}, "cannot use WATCHDOG_USEC=-5"),
        ({"WATCHDOG_USEC": "99999999999999999999999"}, "cannot use WATCHDOG_USEC=9999"),
        ({"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, "meant for pid 1"),
        ({"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "x"}, "meant for pid x"),
        ({"WATCHDOG_USEC": "100000", "NOTIFY_SOCKET": None}, "without NOTIFY_SOCKET"),
    ],
    ids=str,
)
def test_a_watchdog_that_cannot_be_is_one_warning_and_no_ping(panelind, service, variables, said):
    daemon = panelind(["notify READY=1"], NOTIFY, environment={**service.environment, **variables})
    daemon.ready()
    assert len(warnings(daemon, "WATCHDOG_USEC")) == 1
    assert warnings(daemon, said)
    time.sleep(0.3)
    assert "WATCHDOG=1" not in service.texts
    assert daemon.stop() == 0
    assert len(daemon.events("worker_started")) == 1


def test_a_watchdog_for_this_very_process_is_kept(panelind, service):
    panelind(
        ["notify READY=1"], NOTIFY, environment={**service.environment, "WATCHDOG_USEC": "200000"},
        wrapper=["sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh"])
    service.wait("WATCHDOG=1", count=2)


def test_a_watchdog_of_a_microsecond_is_no_busy_loop(panelind, service):
    daemon = panelind(["notify READY=1"], NOTIFY, environment={**service.environment, "WATCHDOG_USEC": "1"})
    daemon.ready()
    assert len(warnings(daemon, "cannot keep a watchdog")) == 1
    before = switches(daemon.pid)
    time.sleep(1)
    assert switches(daemon.pid) - before < 400
    assert daemon.stop() == 0


# -- receivers that are not as they should be


def test_an_abstract_receiver_is_heard(panelind):
    receiver = Receiver(f"@panelind-test-{os.getpid()}-{time.monotonic_ns()}")
    try:
        daemon = panelind(["notify READY=1"], NOTIFY, environment={"NOTIFY_SOCKET": receiver.address})
        assert receiver.wait("READY=1")[1] == daemon.pid
        assert daemon.stop() == 0
        assert not daemon.events("notify_failed")
    finally:
        receiver.close()


def nobody(directory):
    return directory / "nobody"


def left_behind(directory):
    """A socket file whose owner is gone: it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(directory / "old"))
    return directory / "old"


def stream(directory):
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(directory / "stream"))
    one.listen()
    stream.kept = one
    return directory / "stream"


def plain_file(directory):
    (directory / "file").write_text("")
    return directory / "file"


@pytest.mark.parametrize(
    "address, why",
    [
        (nobody, "no such file (ENOENT)"),
        (left_behind, "connection refused (ECONNREFUSED)"),
        (stream, "wrong type of socket (EPROTOTYPE)"),
        (plain_file, "connection refused (ECONNREFUSED)"),
        (lambda _: "/" + "x" * 150, "151 bytes"),
        (lambda _: "@" + "x" * 150, "151 bytes"),
        (lambda _: "relative/path", ""),
        (lambda _: "@", ""),
    ],
    ids=["nobody", "left behind", "stream", "file", "long path", "long name", "relative", "no name"],
)
def test_a_receiver_that_cannot_be_told_is_one_warning(panelind, tmp_path, address, why):
    path = address(tmp_path)
    daemon = panelind(["notify READY=1"], NOTIFY, environment={"NOTIFY_SOCKET": path})
    daemon.ready()
    assert daemon.stop() == 0
    said = daemon.events("notify_failed")
    assert len(said) == 1, "one warning for the same trouble"
    assert f"cannot notify systemd at NOTIFY_SOCKET={path}: " in said[0]["message"]
    assert why in said[0]["message"]
    assert len(daemon.events("worker_started")) == 1


def test_a_receiver_that_takes_nothing_holds_nothing_up_and_hears_all_in_order_later(panelind, tmp_path):
    receiver = Receiver(tmp_path / "notify", paused=True)
    # Its queue is full before the first message.
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.setblocking(False)
    try:
        while True:
            other.sendto(b"X=1", receiver.address)
    except BlockingIOError:
        pass
    daemon = panelind(
        ["notify READY=1"], NOTIFY, environment={"NOTIFY_SOCKET": receiver.address, "WATCHDOG_USEC": "100000"},
        sidecar=True)
    daemon.ready()
    assert daemon.get("/ready", timeout=2).status == 200
    time.sleep(0.4)
    assert daemon.get("/health", timeout=2).status == 200
    receiver.go_on()
    begun = time.monotonic()
    receiver.wait("READY=1")
    # Two pings in each 100 ms may have come since.
    since = (time.monotonic() - begun) / 0.05
    own = [text for text in receiver.texts if text != "X=1"]
    assert own.index("EXTEND_TIMEOUT_USEC=69000000") < own.index("READY=1")
    assert own.count("WATCHDOG=1") <= 2 + since, "of pings that were not taken only the last is sent"
    receiver.wait("WATCHDOG=1", count=3)
    assert daemon.stop() == 0
    assert receiver.wait("STOPPING=1")
    assert not daemon.events("notify_failed")
    receiver.close()
    other.close()


def test_a_stop_ends_in_its_budget_while_systemd_takes_nothing(panelind, tmp_path):
    receiver = Receiver(tmp_path / "notify", paused=True)
    daemon = panelind(
        ["notify READY=1"], {**NOTIFY, "stop.budget": "3s"},
        environment={"NOTIFY_SOCKET": receiver.address, "WATCHDOG_USEC": "50000"})
    daemon.ready()
    time.sleep(0.5)
    assert daemon.stop() == 0
    assert daemon.took < 1.5
    receiver.close()


# -- the library


@pytest.mark.skipif(not LIBRARIES, reason="no libsystemd is installed here")
def test_the_library_is_loaded_for_systemd_alone(panelind, service):
    def maps(daemon):
        with open(f"/proc/{daemon.pid}/maps") as file:
            return file.read()

    with_it = panelind(["notify READY=1"], NOTIFY, environment=service.environment)
    service.wait("READY=1")
    without = panelind(["notify READY=1"], NOTIFY)
    without.ready()
    assert "libsystemd" in maps(with_it)
    assert "libsystemd" not in maps(without)


@pytest.mark.skipif(not LIBRARIES, reason="no libsystemd is installed here")
def test_without_the_library_there_is_one_warning_and_the_messages_go(panelind, service):
    hide = "\n".join(f"mount --bind /dev/null {path}" for path in LIBRARIES)
    daemon = panelind(
        ["notify READY=1"], NOTIFY, environment={**service.environment, "WATCHDOG_USEC": "100000"},
        wrapper=in_namespace(hide))
    service.wait("READY=1")
    service.wait("WATCHDOG=1", count=3)
    assert daemon.stop() == 0
    service.wait("STATUS=stopped")
    said = daemon.events("notify_failed")
    assert len(said) == 1 and "cannot load libsystemd: " in said[0]["message"]
    assert "BARRIER=1" not in service.texts


def test_the_binary_is_not_linked_against_the_library():
    """It starts in an image without it."""
    needed = subprocess.run(["ldd", binaries() / "panelind"], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in needed and "systemd" not in needed


def test_nothing_wakes_but_the_watchdog_that_is_asked_for(panelind, service):
    daemon = panelind(["notify READY=1"], NOTIFY, environment=service.environment)
    service.wait("READY=1")
    time.sleep(0.5)
    before = switches(daemon.pid)
    time.sleep(2)
    assert switches(daemon.pid) - before <= 1
    assert daemon.stop() == 0
