# test_systemd_journal.py
# log.format journal: entries as journald's socket gets them, in a mount namespace where the test is journald.
# A real journald reads them in Tests/Environments. Read harness/service.py first.

import os
import subprocess

import pytest

from harness import Journal, in_namespace, wait_until

NOTIFY = {"probe.readiness.notify": True}


def can_mount():
    return subprocess.run([*in_namespace("mount -t tmpfs tmpfs /run"), "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="no mount namespace may be made here")

EMPTY = "mount -t tmpfs tmpfs /run\nmkdir -p /run/systemd/journal\n"


@pytest.fixture
def journal(tmp_path):
    """journald's socket; `journal.wrapper` puts it where a daemon looks for it."""
    place = tmp_path / "journal"
    place.mkdir()
    one = Journal(place / "socket")
    one.wrapper = in_namespace(EMPTY + f"mount --bind {place} /run/systemd/journal")
    yield one
    one.close()


def test_own_records_and_lines_are_entries_with_fields(panelind, journal):
    daemon = panelind(
        ["notify READY=1", "print '<4>careful'", "print 'ERROR: bad' to stderr", "exit-after 100ms 3"],
        {**NOTIFY, "log.format": "journal", "restart.policy": "never"}, wrapper=journal.wrapper)
    assert daemon.wait() == 3
    started = journal.wait_entry(PANELIND_EVENT="panelind_started")
    assert started["PRIORITY"] == ["6"] and started["PANELIND_PID"] == [str(daemon.pid)]
    assert started["SYSLOG_IDENTIFIER"] == ["panelind"]
    line = journal.wait_entry(MESSAGE="careful")
    assert (line["PRIORITY"], line["PANELIND_STREAM"], line["PANELIND_GENERATION"]) == (["4"], ["stdout"], ["1"])
    assert journal.wait_entry(MESSAGE="ERROR: bad")["PRIORITY"] == ["3"]
    exited = journal.wait_entry(PANELIND_EVENT="worker_exited")
    assert exited["PANELIND_EXIT_CODE"] == ["3"] and exited["PANELIND_CAUSE"] == ["exit"]
    assert "<4>careful" in exited["PANELIND_LAST_OUTPUT"][0].splitlines()
    journal.wait_entry(PANELIND_EVENT="panelind_stopped")
    assert daemon.lines == [], "nothing goes to standard output"


def test_a_traceback_is_one_entry(panelind, journal):
    text = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nValueError: no"
    daemon = panelind(
        command=["sh", "-c", f"printf '%s\\n' '{text}' next; sleep 60"], settings={"log.format": "journal"},
        wrapper=journal.wrapper)
    assert journal.wait_entry(MESSAGE=text)["PRIORITY"] == ["3"]
    journal.wait_entry(MESSAGE="next")
    assert daemon.stop() == 0


@pytest.mark.parametrize("is_journal", [True, False])
def test_standard_output_that_is_the_journal_chooses_it(panelind, journal, is_journal):
    reading, writing = os.pipe()
    status = os.fstat(writing)
    try:
        daemon = panelind(
            ["notify READY=1"], {**NOTIFY, "platform": None}, stdout=writing, wrapper=journal.wrapper,
            environment={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + (0 if is_journal else 1)}"})
        if is_journal:
            assert journal.wait_entry(PANELIND_EVENT="panelind_started")["PANELIND_PLATFORM"] == ["systemd"]
            journal.wait_entry(PANELIND_EVENT="worker_ready")
        else:
            assert b'"platform":"local"' in os.read(reading, 65536)
        assert daemon.stop() == 0
        assert bool(journal.entries) == is_journal
    finally:
        os.close(reading)
        os.close(writing)


def test_without_a_journal_json_goes_to_standard_output_with_one_warning(panelind):
    daemon = panelind(
        ["print hello", "notify READY=1"], {**NOTIFY, "log.format": "journal"}, wrapper=in_namespace(EMPTY))
    daemon.ready()
    daemon.wait_message("hello")
    said = [r for r in daemon.records if "cannot reach the journal" in r["message"]]
    assert len(said) == 1 and said[0]["severity"] == "WARNING"
    assert "no such file (ENOENT)" in said[0]["message"]
    assert daemon.stop() == 0


def test_an_entry_that_no_datagram_holds_arrives_whole(panelind, journal):
    """sd_journal_sendv passes it in a sealed file."""
    daemon = panelind(
        command=["sh", "-c", "head -c 1500000 /dev/zero | tr '\\0' x; echo; echo after; sleep 60"],
        settings={"log.format": "journal", "log.lineLimit": "2MiB"}, wrapper=journal.wrapper)
    journal.wait_entry(MESSAGE="after")
    long = [e for e in journal.entries if e["MESSAGE"][0].startswith("xxxx")]
    assert [len(e["MESSAGE"][0]) for e in long] == [1_500_000]
    assert long[0]["PANELIND_STREAM"] == ["stdout"]
    assert daemon.stop() == 0


def test_a_journal_that_stands_holds_neither_worker_nor_stop(panelind, tmp_path):
    place = tmp_path / "journal"
    place.mkdir()
    journal = Journal(place / "socket", paused=True)
    done = tmp_path / "done"
    daemon = panelind(
        command=["sh", "-c", f"yes line of some length | head -n 400000; touch {done}; exec sleep 60"],
        settings={"log.format": "journal", "log.buffer": "256KiB", "stop.budget": "8s"}, sidecar=True,
        wrapper=in_namespace(EMPTY + f"mount --bind {place} /run/systemd/journal"))
    wait_until(done.exists, "the worker has written 8 MB that nobody reads", timeout=60)
    assert daemon.get("/health", timeout=2).status == 200
    assert daemon.stop() == 0
    assert daemon.took < 8.5
    journal.close()
