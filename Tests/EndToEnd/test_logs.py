# test_logs.py
# What panelind writes of itself and of its worker, to the letter of CONTRACT section 8.
# Read harness/daemon.py first.

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from harness import Daemon, free_port, seconds, wait_until

NOTIFY = {"probe.readiness.notify": True}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def sh(script):
    return ["sh", "-c", script]


def python(script):
    return ["python3", "-c", script]


def one_run(panelind, command, settings=None, **options):
    """A worker that writes and ends; panelind ends with it, so that all of its log is there."""
    daemon = panelind(command=command, settings={"restart.policy": "never", **(settings or {})}, **options)
    daemon.code = daemon.wait()
    return daemon


def lines(daemon, stream=None):
    """The worker's records, in order."""
    return [r for r in daemon.records if "event" not in r and (stream is None or r.get("stream") == stream)]


# -- the shape


def test_every_line_is_an_object_with_severity_time_and_message(panelind):
    daemon = one_run(panelind, sh("echo out; echo err >&2; exit 5"))
    assert daemon.code == 5
    assert len(daemon.records) == len(daemon.lines), "a line is no JSON object"
    for record in daemon.records:
        assert list(record)[:3] == ["severity", "time", "message"]
        assert TIME.fullmatch(record["time"])
        assert isinstance(record["message"], str)
    assert [(r["message"], r["stream"], r["generation"], r["severity"]) for r in lines(daemon)].sort() == [
        ("err", "stderr", 1, "INFO"), ("out", "stdout", 1, "INFO")].sort()
    assert [r["event"] for r in daemon.events()][0] == "panelind_started"
    assert [r["event"] for r in daemon.events()][-1] == "panelind_stopped"
    assert daemon.stderr == "", "stderr has usage and configuration errors only"


def test_the_story_of_a_worker_in_its_events(panelind):
    daemon = panelind(["notify READY=1", "exit-after 200ms 9"], {**NOTIFY, "restart.delay": "100ms"})
    daemon.ready(generation=2)
    daemon.stop()
    names = [r["event"] for r in daemon.events() if r["severity"] != "DEBUG"]
    assert names[:6] == [
        "panelind_started", "worker_started", "worker_ready", "worker_exited", "worker_backoff", "worker_started"]
    started = daemon.events("worker_started")[0]
    assert started["pid"] > 0 and started["generation"] == 1


EXITED = {
    "generation": int, "pid": int, "cause": str, "uptime_seconds": (int, float), "last_output": list,
    "max_rss_bytes": int, "user_cpu_seconds": (int, float), "system_cpu_seconds": (int, float), "core_dumped": bool,
}


def check_exited(record):
    for key, kind in EXITED.items():
        assert isinstance(record[key], kind), key
    assert ("exit_code" in record) != ("exit_signal" in record)
    if "exit_signal" in record:
        assert record["exit_signal"].startswith("SIG")
    assert "restart_in_seconds" in record


@pytest.mark.case("C62")
def test_the_record_of_an_exit_is_whole(panelind):
    daemon = panelind(["print 3 lines", "spin 300ms", "exit 5"], {"restart.delay": "200ms", "restart.jitter": 0})
    record = daemon.wait_event("worker_exited")
    check_exited(record)
    assert record["exit_code"] == 5
    assert record["cause"] == "exit"
    assert record["severity"] == "ERROR"
    assert record["restart_in_seconds"] == 0.2
    assert record["last_output"] == ["line 1", "line 2", "line 3"]
    assert record["max_rss_bytes"] > 1 << 20
    assert record["user_cpu_seconds"] + record["system_cpu_seconds"] > 0.01
    assert 0.1 <= record["uptime_seconds"] < 20


@pytest.mark.case("C02")
@pytest.mark.parametrize("name", ["SEGV", "ABRT", "KILL", "TERM", "HUP"])
def test_a_signal_has_its_name(panelind, name):
    daemon = panelind([f"signal-self {name}"], {"restart.delay": "10s"})
    record = daemon.wait_event("worker_exited")
    check_exited(record)
    assert (record["exit_signal"], record["cause"]) == (f"SIG{name}", "signal")


def test_a_core_dump_is_told(panelind, tmp_path):
    """Only where the kernel writes cores at all; the flag is false where not."""
    daemon = panelind(["signal-self SEGV"], {"restart.delay": "10s", "worker.limits.core": 0})
    assert daemon.wait_event("worker_exited")["core_dumped"] is False


def test_a_requested_end(panelind):
    daemon = panelind(["notify READY=1"], NOTIFY)
    daemon.ready()
    assert daemon.stop() == 0
    record = daemon.events("worker_exited")[0]
    check_exited(record)
    assert (record["cause"], record["exit_signal"], record["severity"]) == ("requested", "SIGTERM", "INFO")
    assert record["restart_in_seconds"] is None


def test_a_permanent_failure(panelind):
    daemon = panelind(["print 'no database'", "exit 3"])
    assert daemon.wait() == 70
    record = daemon.events("worker_exited")[0]
    assert (record["cause"], record["exit_code"], record["restart_in_seconds"]) == ("permanent", 3, None)
    failed = daemon.events("worker_failed")[0]
    assert "3" in failed["message"]


def test_a_taken_port(panelind):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = panelind([f"listen {taken.getsockname()[1]}"], {"restart.delay": "20s"})
        record = daemon.wait_event("worker_exited")
        assert record["cause"] == "port_in_use"
        assert any("in use" in line.lower() for line in record["last_output"])


@pytest.mark.parametrize("text", [
    "OSError: [Errno 98] Address already in use", "Error: listen EADDRINUSE: address already in use :::8080",
    "listen tcp :8080: bind: address already in use", "java.net.BindException: Address already in use",
    "Port 8080 is in use by another program.", "bind() to 0.0.0.0:80 failed (98: Address already in use)",
    '[2026-11-28 12:00:00 +0000] [7] [ERROR] Connection in use: ("0.0.0.0", 8000)',
])
def test_the_spellings_of_a_taken_port(panelind, text):
    daemon = panelind(command=["sh", "-c", f"echo '{text}' >&2; exit 1"], settings={"restart.delay": "20s"})
    assert daemon.wait_event("worker_exited")["cause"] == "port_in_use"


def test_a_line_about_a_taken_port_after_ready_is_no_cause(panelind):
    daemon = panelind(["notify READY=1", "barrier", "print 'Address already in use'", "exit 1"], NOTIFY)
    assert daemon.wait_event("worker_exited")["cause"] == "exit"


def test_a_program_that_is_gone_at_a_later_start(panelind, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nsleep 0.2\nrm -f \"$0\"\nexit 9\n")
    program.chmod(0o755)
    daemon = panelind(command=[program], settings={"restart.delay": "20ms"})
    assert daemon.wait() == 70
    record = daemon.events("worker_exited")[-1]
    assert record["cause"] == "not_found"
    assert record["generation"] == 2
    assert record["pid"] is None
    assert str(program) in record["message"]


def test_the_last_output_is_fifty_lines_of_both_streams(panelind):
    daemon = panelind(["print 60 lines", "print 5 lines to stderr", "exit 5"], {"restart.delay": "20s"})
    last = daemon.wait_event("worker_exited")["last_output"]
    assert len(last) == 50
    assert last[-5:] == [f"line {n}" for n in range(1, 6)], "stderr is read behind stdout"
    assert last[0] == "line 16"


def test_the_last_output_is_of_this_generation(panelind, tmp_path):
    file = tmp_path / "second"
    script = f"if [ -e {file} ]; then echo second; else touch {file}; echo first; fi; exit 5"
    daemon = panelind(command=sh(script), settings={"restart.delay": "20ms"})
    assert daemon.wait_event("worker_exited", generation=1)["last_output"] == ["first"]
    assert daemon.wait_event("worker_exited", generation=2)["last_output"] == ["second"]


@pytest.mark.case("C22")
def test_a_child_that_holds_the_pipe_does_not_hold_the_record(panelind):
    daemon = panelind(["child-holds-stdout", "print bye", "exit 5"], {"restart.delay": "100ms"})
    record = daemon.wait_event("worker_exited")
    assert record["last_output"] == ["bye"]
    daemon.wait_event("worker_started", generation=2)


# -- the worker's lines


def test_json_passes_with_its_own_fields(panelind):
    text = '{"severity":"WARNING","message":"hi","nested":{"a":[1,2,{"b":null}]},"é":"ü"}'
    daemon = one_run(panelind, python(f"print({text!r})"))
    assert text.encode() + b"\n" in daemon.lines


@pytest.mark.parametrize("text", ['{"a":1', '{"a":1} trailing', "[1,2]", '"text"', "12", "{a:1}", "{'a': 1}", "{}x", '{"a":01}'])
def test_what_is_no_json_object_is_wrapped(panelind, text):
    daemon = one_run(panelind, python(f"print({text!r})"))
    assert [r["message"] for r in lines(daemon)] == [text]


def test_an_empty_line_is_a_line(panelind):
    daemon = one_run(panelind, sh("printf 'a\\n\\nb\\n'"))
    assert [r["message"] for r in lines(daemon)] in (["a", "", "b"], ["a", "b"])


@pytest.mark.parametrize("text, severity, message", [
    ("<3>disk gone", "ERROR", "disk gone"), ("<7>chatter", "DEBUG", "chatter"), ("<0>x", "EMERGENCY", "x"),
    ("<1>x", "ALERT", "x"), ("<2>x", "CRITICAL", "x"), ("<4>x", "WARNING", "x"), ("<5>x", "NOTICE", "x"),
    ("<6>x", "INFO", "x"), ("<8>x", "INFO", "<8>x"), ("<b>x", "INFO", "<b>x"),
    ("INFO:     Started server process [1]", "INFO", None), ("WARNING:  careful", "WARNING", None),
    ("ERROR:    Exception in ASGI application", "ERROR", None), ("CRITICAL: x", "CRITICAL", None),
    ("DEBUG: x", "DEBUG", None), ("WARNING:root:careful", "WARNING", None),
    ("[2026-11-22 10:00:00 +0000] [7] [ERROR] Worker failed to boot.", "ERROR", None),
    ("2026-11-22 10:00:00,123 - name - WARNING - text", "WARNING", None),
    ("2026-11-22 10:00:00.123 | DEBUG    | m:f:1 - text", "DEBUG", None),
    ("2026/11/22 10:00:00 [error] 7#7: *1 open() failed", "ERROR", None),
    ("level=warn msg=x", "WARNING", None),
    ("Errors are fun", "INFO", None), ("Information: x", "INFO", None), ("an ERROR in the middle", "INFO", None),
])
def test_the_severity_of_its_own_prefix(panelind, text, severity, message):
    daemon = one_run(panelind, python(f"import sys; print({text!r}, file=sys.stderr)"))
    (record,) = lines(daemon)
    assert (record["severity"], record["message"]) == (severity, message or text)
    assert record["stream"] == "stderr"


def test_plain_lines_are_info_on_both_streams(panelind):
    daemon = one_run(panelind, sh("echo a; echo b >&2"))
    assert {(r["message"], r["severity"]) for r in lines(daemon)} == {("a", "INFO"), ("b", "INFO")}


CRASH = """
import sys
print('before', file=sys.stderr, flush=True)
def inner():
    raise ValueError('first')
try:
    inner()
except ValueError as error:
    raise RuntimeError('outer') from error
"""


def test_the_lines_of_a_traceback_are_one_entry(panelind):
    daemon = one_run(panelind, python(CRASH))
    found = lines(daemon, "stderr")
    assert [r["message"] for r in found][0] == "before"
    tracebacks = [r for r in found if "Traceback" in r["message"]]
    assert len(tracebacks) == 1, [r["message"][:60] for r in found]
    assert tracebacks[0]["severity"] == "ERROR"
    text = tracebacks[0]["message"]
    assert "ValueError: first" in text and text.rstrip().endswith("RuntimeError: outer")
    assert len(found) == 2


def test_a_traceback_in_a_living_worker_does_not_wait_for_ever(panelind):
    script = "import sys, time, traceback\ntry:\n 1/0\nexcept Exception:\n traceback.print_exc()\ntime.sleep(1000)"
    daemon = panelind(command=python(script))
    wait_until(
        lambda: [r for r in daemon.records if "ZeroDivisionError" in r.get("message", "")], "the traceback is written")
    (record,) = [r for r in daemon.records if "Traceback" in r.get("message", "")]
    assert record["severity"] == "ERROR" and "ZeroDivisionError" in record["message"]


@pytest.mark.case("C60")
def test_carriage_returns_nul_and_invalid_utf_8(panelind):
    script = r"""printf 'windows\r\n'; printf 'a\rb\n'; printf 'nul\000byte\n'; printf 'bad\377utf\303\n'; printf 'tab\tquote"back\\slash\033[31m\n'"""
    daemon = one_run(panelind, sh(script))
    assert [r["message"] for r in lines(daemon)] == [
        "windows", "a\rb", "nul\0byte", "bad�utf�", 'tab\tquote"back\\slash\x1b[31m']


@pytest.mark.case("C60")
def test_all_256_bytes_are_valid_json(panelind):
    daemon = one_run(panelind, [*scripted(), "binary", "binary", "exit", "5"])
    assert len(daemon.records) == len(daemon.lines)
    for line in daemon.lines:
        line.decode()
    assert len([r for r in lines(daemon) if "�" in r["message"]]) >= 2


def scripted():
    from harness import scripted_worker

    return scripted_worker()


@pytest.mark.case("C60")
@pytest.mark.parametrize("limit", [None, "4KiB"])
def test_a_line_of_a_mebibyte_is_cut_into_marked_parts(panelind, limit):
    settings = {"log.lineLimit": limit} if limit else {}
    size = 1 << 20
    daemon = one_run(panelind, python(f"import sys; sys.stdout.write('0123456789abcdef'*({size}//16)+'\\nnext\\n')"), settings)
    *parts, last, after = lines(daemon, "stdout")
    assert after["message"] == "next" and "partial" not in after
    assert all(part["partial"] is True for part in parts)
    assert "partial" not in last
    bytes_of_limit = 4096 if limit else 65536
    assert all(len(part["message"]) <= bytes_of_limit for part in [*parts, last])
    assert "".join(part["message"] for part in [*parts, last]) == "0123456789abcdef" * (size // 16)


@pytest.mark.case("C60")
def test_a_long_line_is_not_cut_inside_a_character(panelind):
    daemon = one_run(panelind, python("import sys; sys.stdout.buffer.write('\\u00e9\\u20ac\\U0001d11e'.encode()*2000+b'\\n')"), {"log.lineLimit": "1KiB"})
    text = "".join(r["message"] for r in lines(daemon))
    assert text == "é€𝄞" * 2000


@pytest.mark.case("C60")
def test_the_last_line_without_a_newline_is_kept(panelind):
    daemon = one_run(panelind, sh("printf 'no newline'; printf 'nor here' >&2; exit 5"))
    assert {(r["message"], r["stream"]) for r in lines(daemon)} == {("no newline", "stdout"), ("nor here", "stderr")}
    assert set(daemon.events("worker_exited")[0]["last_output"]) == {"no newline", "nor here"}


@pytest.mark.case("C58")
def test_20_000_lines_and_an_exit_lose_nothing(panelind):
    """Ten times; the research wants 200. The last line is always there, and the order holds."""
    daemon = panelind(["print 20000 lines", "exit 5"], {"restart.limit": 9, "restart.delay": "5ms", "restart.maxDelay": "5ms"})
    # Asked record by record, a test would read slower than panelind writes and hold the flush up.
    assert daemon.popen.wait(150) == 70
    wait_until(lambda: daemon._ended, "the log is read", timeout=150, every=0.2)
    by_generation = {}
    for record in lines(daemon):
        by_generation.setdefault(record["generation"], []).append(record["message"])
    assert sorted(by_generation) == list(range(1, 11))
    wanted = [f"line {number}" for number in range(1, 20001)]
    for generation, found in by_generation.items():
        assert found == wanted, f"generation {generation} has {len(found)} lines"
    # The record of an exit waits 250 ms for a slow sink, not longer: only the first one surely found room.
    assert daemon.events("worker_exited")[0]["last_output"] == wanted[-50:]


def test_order_within_a_stream_with_both_under_way(panelind):
    script = (
        "import os\nfor n in range(5000):\n os.write(1, b'o%d\\n' % n)\n os.write(2, b'e%d\\n' % n)\n")
    daemon = one_run(panelind, python(script))
    assert [r["message"] for r in lines(daemon, "stdout")] == [f"o{n}" for n in range(5000)]
    assert [r["message"] for r in lines(daemon, "stderr")] == [f"e{n}" for n in range(5000)]


def test_lines_come_before_the_record_of_the_exit(panelind):
    daemon = one_run(panelind, sh("for i in 1 2 3 4 5; do echo $i; done; exit 5"))
    kinds = [r.get("event") or r["message"] for r in daemon.records]
    assert kinds.index("5") < kinds.index("worker_exited") < kinds.index("panelind_stopped")


def test_times_of_the_workers_lines_do_not_run_back(panelind):
    daemon = one_run(panelind, sh("for i in 1 2 3 4 5 6 7 8; do echo $i; done"))
    times = [seconds(r) for r in lines(daemon)]
    assert times == sorted(times)


# -- the sink


def is_ready(daemon):
    """Without its log: the sidecar tells."""

    def told():
        try:
            return daemon.get("/ready").status == 200
        except OSError:
            return False

    wait_until(told, "/ready is 200")


@pytest.mark.case("C59")
def test_a_blocked_sink_does_not_block_the_worker_and_the_loss_is_told(panelind, tmp_path):
    reading, writing = os.pipe()
    settings = {**NOTIFY, "log.buffer": "64KiB", "log.overflow": "drop"}
    daemon = panelind(["print 20000 lines bytes 200", f"record {tmp_path}/done yes", "notify READY=1"], settings, stdout=writing, sidecar=True)
    os.close(writing)
    wait_until(lambda: (tmp_path / "done").exists(), "the worker has written all")
    is_ready(daemon)
    with os.fdopen(reading, "rb") as pipe:
        daemon.send(signal.SIGTERM)
        text = pipe.read()
    assert daemon.wait() == 0
    records = [json.loads(line) for line in text.splitlines()]
    dropped = [r for r in records if r.get("event") == "log_dropped"]
    assert dropped and sum(r.get("lines", r.get("count", 0)) for r in dropped) > 1000, dropped
    assert [r for r in records if r.get("event") == "panelind_started"], "own records outlive the flood"


@pytest.mark.case("C59")
def test_block_holds_the_worker_and_loses_nothing(panelind, tmp_path):
    reading, writing = os.pipe()
    settings = {"log.buffer": "64KiB", "log.overflow": "block", "restart.policy": "never"}
    daemon = panelind(["print 40000 lines bytes 100", f"record {tmp_path}/done yes", "exit 0"], settings, stdout=writing, sidecar=True)
    os.close(writing)
    time.sleep(1.5)  # Longer than the second after which `drop` would drop.
    assert not (tmp_path / "done").exists()
    assert daemon.get("/health").status == 200
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    daemon.wait()
    records = [json.loads(line) for line in text.splitlines()]
    assert not [r for r in records if r.get("event") == "log_dropped"]
    count = len([r for r in records if "event" not in r])
    assert count == 40000


@pytest.mark.case("C61")
@pytest.mark.parametrize("kind", ["file", "null", "closed", "gone"])
def test_any_stdout_will_do(panelind, tmp_path, kind):
    options = {}
    reading = None
    if kind == "file":
        options["stdout"] = open(tmp_path / "out", "wb")
    elif kind == "null":
        options["stdout"] = subprocess.DEVNULL
    elif kind == "gone":
        reading, options["stdout"] = os.pipe()
        os.close(reading)
    else:
        options.update(stdout=subprocess.DEVNULL, wrapper=["sh", "-c", 'exec "$0" "$@" >&-'])
    daemon = panelind(["print 100 lines", "notify READY=1"], NOTIFY, sidecar=True, **options)
    if kind in ("file", "gone"):
        stdout = options["stdout"]
        stdout.close() if kind == "file" else os.close(stdout)
    is_ready(daemon)
    assert daemon.stop() == 0
    if kind == "file":
        records = [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
        assert [r["message"] for r in records if "event" not in r] == [f"line {n}" for n in range(1, 101)]


def test_a_reader_that_leaves_does_not_end_panelind(panelind):
    """SIGPIPE is ours (CONTRACT section 3)."""
    reading, writing = os.pipe()
    daemon = panelind(["every 20ms print tick", "notify READY=1"], NOTIFY, sidecar=True, stdout=writing)
    os.close(writing)
    os.read(reading, 10)
    os.close(reading)
    is_ready(daemon)
    assert daemon.stop() == 0


def test_the_level_is_of_panelinds_own_lines(panelind):
    daemon = one_run(panelind, sh("echo '<7>debug line'; exit 5"), {"log.level": "error"})
    assert [r["message"] for r in lines(daemon)] == ["debug line"]
    assert {r["severity"] for r in daemon.events()} <= {"ERROR", "CRITICAL"}
    assert daemon.events("worker_exited")


# -- text and inherit


def run_on_pty(daemon_directory, command, settings, environment, until=None):
    """panelind with a terminal as stdout; all that was written there."""
    import pty
    import select

    master, slave = pty.openpty()
    daemon = Daemon(daemon_directory, command=command, settings=settings, environment=environment, stdout=slave)
    daemon.start()
    os.close(slave)
    text = b""
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    piece = os.read(master, 65536)
                except OSError:
                    break  # EIO: the last writer has gone.
                text += piece
        daemon.wait()
    finally:
        os.close(master)
        daemon.clean_up()
    return text.decode()


NEVER = {"restart.policy": "never"}
COLOURED = "printf '\\033[32mgreen\\033[0m\\n'; echo plain; exit 5"


def test_text_on_a_terminal_is_coloured(tmp_path):
    text = run_on_pty(tmp_path, sh(COLOURED), NEVER, {"TERM": "xterm"})
    assert "\x1b[" in text
    assert "\x1b[32mgreen" in text
    assert "plain" in text and "g1 out" in text and "panelind" in text
    assert '{"severity"' not in text
    assert re.search(r"exit: .*exit 5", text), "the cause comes first"


def test_no_color_is_obeyed(tmp_path):
    text = run_on_pty(tmp_path, sh("echo plain; exit 5"), NEVER, {"TERM": "xterm", "NO_COLOR": "1"})
    assert "\x1b[" not in text
    assert "plain" in text


def test_text_elsewhere_has_no_escapes(panelind):
    daemon = one_run(panelind, sh(COLOURED), {"log.format": "text"})
    text = b"".join(daemon.lines).decode()
    assert "\x1b" not in text
    assert "green" in text and "plain" in text


def test_json_on_a_terminal_has_no_colour_of_ours(tmp_path):
    text = run_on_pty(tmp_path, sh("echo plain"), {**NEVER, "log.format": "json"}, {"TERM": "xterm"})
    assert "\x1b" not in text
    assert all(json.loads(line) for line in text.splitlines())


def test_inherit_leaves_the_streams_alone(panelind, tmp_path):
    daemon = panelind(
        command=sh("ls -l /proc/self/fd >&2; printf 'raw \\377'; exit 5"),
        settings={"log.format": "inherit", "restart.policy": "never"})
    assert daemon.wait() == 5
    assert any(line.startswith(b"raw \xff") for line in daemon.lines)
    # stderr of the worker is panelind's own, and so in the test's file.
    assert "1 -> " in daemon.stderr
    # What the worker wrote without a newline stands before a record of ours, as in any shell.
    text = b"".join(daemon.lines)
    assert text.startswith(b'{"severity":"INFO"') and b'"event":"worker_exited"' in text


# -- what must never be in a log


CANARY = "canary-4f1d9a"


def test_secrets_are_nowhere_but_in_the_workers_environment(panelind, tmp_path):
    from harness import command_line, environment_of

    file = tmp_path / "secret"
    file.write_text(CANARY + "\n")
    daemon = panelind(["notify READY=1", f"dump-state {tmp_path}/state"], {
        **NOTIFY, "worker.secrets": {"API_KEY": str(file)}, "log.level": "debug"}, sidecar=True)
    daemon.ready()
    worker = daemon.worker()
    assert environment_of(worker)[b"API_KEY"] == CANARY.encode()
    assert CANARY not in command_line(worker)
    for path in ("environ", "cmdline"):
        with open(f"/proc/{daemon.pid}/{path}", "rb") as handle:
            assert CANARY.encode() not in handle.read()
    for path in ("/health", "/ready", "/metrics", "/"):
        assert CANARY.encode() not in daemon.get(path).body
    assert daemon.stop() == 0
    assert CANARY.encode() not in b"".join(daemon.lines)
    assert CANARY not in daemon.stderr


def test_secrets_are_read_afresh_at_every_start(panelind, tmp_path):
    from harness import environment_of

    file = tmp_path / "secret"
    file.write_text("first\r\n\n")
    daemon = panelind(["notify READY=1"], {
        **NOTIFY, "worker.secrets": {"API_KEY": str(file)}, "restart.delay": "500ms", "restart.jitter": 0})
    daemon.ready()
    assert environment_of(daemon.worker())[b"API_KEY"] == b"first\r\n", "one trailing newline is removed"
    file.write_text("second")
    os.kill(daemon.worker(), signal.SIGKILL)
    daemon.ready(generation=2)
    assert environment_of(daemon.worker(2))[b"API_KEY"] == b"second"
    file.write_text("")
    os.kill(daemon.worker(2), signal.SIGKILL)
    # Empty at a later start: a failed start, tried again.
    failed = daemon.wait_event("worker_exited", generation=3)
    assert failed["pid"] is None and "empty" in failed["message"] and failed["restart_in_seconds"] > 0
    file.write_text("third")
    daemon.wait_event("worker_ready", count=3)


def test_own_output_is_not_lost_when_the_worker_floods(panelind):
    daemon = panelind(["print 80000 lines bytes 100", "exit 5"], {"restart.policy": "never"})
    assert daemon.wait() == 5
    assert len(lines(daemon)) == 80000
    assert not daemon.events("log_dropped")


def test_a_port_that_frees_itself(panelind):
    """The holder goes, and the next start binds."""
    port = free_port()
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen()
    daemon = panelind([f"listen {port}", "notify READY=1"], {**NOTIFY, "restart.delay": "200ms"})
    assert daemon.wait_event("worker_exited")["cause"] == "port_in_use"
    taken.close()
    daemon.wait_event("worker_ready")
