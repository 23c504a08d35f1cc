# test_signals.py
# What signals to panelind do, and what the worker gets of them: CONTRACT section 3. Cases C07 to C15.
# The terminal's keys are in test_terminal.py. Read harness/daemon.py first.

import json
import os
import signal
import sys
import textwrap
import threading
import time

import pytest

from harness import Placement, is_alive, signal_masks, state, wait_until


def recorded(path):
    """The names of the signals that a worker has recorded, in order; its own children's ends are no news."""
    if not path.exists():
        return []
    return [name for line in path.read_text().splitlines() if (name := line.split()[2]) != "SIGCHLD"]


@pytest.mark.case("C07")
def test_the_named_signals_reach_the_worker_once_and_in_order(panelind, placement):
    """HUP, CONT and the real-time ones of the research are panelind's own by CONTRACT, or nobody's."""
    daemon = panelind(["record-signals sig", "child begin record-signals child-sig end"], placement=placement)
    daemon.ready()
    seen = daemon.directory / "sig"
    for count, name in enumerate(["SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGQUIT", "SIGUSR1"], 1):
        daemon.send(getattr(signal, name))
        wait_until(lambda: len(recorded(seen)) >= count, lambda: f"{name} arrives, not {recorded(seen)}")
    assert daemon.stop() == 0
    assert recorded(seen) == ["SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGQUIT", "SIGUSR1", "SIGTERM"]
    # Signals that are passed go to the leader; the stop goes to the group.
    assert recorded(daemon.directory / "child-sig") == ["SIGTERM"]


@pytest.mark.case("C07")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_told_to_the_worker_once_by_the_stop_signal(panelind, number, placement):
    daemon = panelind(["record-signals sig", "on TERM exit 0 after 300ms"], placement=placement)
    daemon.ready()
    daemon.send(number)
    wait_until(lambda: recorded(daemon.directory / "sig"), "the stop signal")
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert recorded(daemon.directory / "sig") == ["SIGTERM"]
    assert daemon.events("worker_exited")[0]["cause"] == "requested"


@pytest.mark.case("C52")
def test_a_second_term_changes_nothing(panelind):
    """The research wants a kill at the second TERM; by CONTRACT it changes nothing, so that nobody loses the drain."""
    daemon = panelind(["record-signals sig", "on TERM exit 0 after 1s"], {"stop.grace": "5s"})
    daemon.ready()
    for _ in range(3):
        daemon.send(signal.SIGTERM)
        time.sleep(0.05)
    assert daemon.wait() == 0
    assert recorded(daemon.directory / "sig") == ["SIGTERM"]
    [exited] = daemon.events("worker_exited")
    assert exited["exit_code"] == 0


def test_a_second_int_without_a_terminal_changes_nothing(panelind):
    daemon = panelind(["record-signals sig", "on TERM exit 0 after 500ms"])
    daemon.ready()
    daemon.send(signal.SIGINT)
    wait_until(lambda: recorded(daemon.directory / "sig"), "the stop signal")
    daemon.send(signal.SIGINT)
    assert daemon.wait() == 0
    assert daemon.events("worker_exited")[0]["exit_code"] == 0


@pytest.mark.case("C08")
@pytest.mark.parametrize(("name", "got"), [("QUIT", "SIGQUIT"), ("SIGUSR2", "SIGUSR2"), ("INT", "SIGINT")])
def test_the_stop_signal_can_be_chosen(panelind, name, got):
    """Rewriting of single signals is not in CONTRACT; stop.signal says what a stop becomes."""
    daemon = panelind(["record-signals sig", "on QUIT exit 0", "on USR2 exit 0"], {"stop.signal": name})
    daemon.ready()
    assert daemon.stop() == 0
    assert recorded(daemon.directory / "sig") == [got]


@pytest.mark.case("C08")
@pytest.mark.parametrize("value", ["derp", "99", "SIGDERP", [{"TERM": "5"}], [{"TERM": "5s"}, {"NOPE": "1s"}], []])
def test_a_bad_stop_signal_is_78_and_starts_nothing(panelind, value):
    daemon = panelind([["record", "ran", "x"]], {"stop.signal": value})
    assert daemon.wait() == 78
    assert "stop.signal" in daemon.stderr
    assert not (daemon.directory / "ran").exists()


def test_a_list_of_stop_signals_escalates_within_the_grace(panelind, placement):
    daemon = panelind(
        [
            "record-signals sig",
            "ignore TERM",
            "ignore INT",
            "on QUIT exit 0",
            "child begin record-signals child-sig ignore TERM ignore INT on QUIT exit 0 end",
        ],
        {"stop.signal": [{"TERM": "300ms"}, {"INT": "300ms"}, {"QUIT": "1s"}], "stop.grace": "5s"},
        placement=placement,
    )
    daemon.ready()
    assert daemon.stop() == 0
    assert 0.6 <= daemon.took < 4
    assert daemon.events("worker_killed_survivors") == []
    assert daemon.events("worker_exited")[0]["exit_code"] == 0
    for name in ["sig", "child-sig"]:
        assert recorded(daemon.directory / name)[-1] == "SIGQUIT"


def test_the_last_stop_signal_waits_for_the_rest_of_the_grace(panelind):
    daemon = panelind(
        ["ignore TERM", "ignore INT"], {"stop.signal": [{"TERM": "100ms"}, {"INT": "100ms"}], "stop.grace": "1500ms"}
    )
    daemon.ready()
    assert daemon.stop() == 0
    assert 1.5 <= daemon.took < 5
    assert daemon.events("worker_exited")[0]["exit_signal"] == "SIGKILL"


@pytest.mark.case("C09")
def test_the_worker_starts_with_default_dispositions_and_an_empty_mask(panelind):
    """Whatever panelind was started with (tini's rule is to inherit; CONTRACT says default)."""

    def before():
        for number in [signal.SIGTTOU, signal.SIGSEGV, signal.SIGINT, signal.SIGPIPE, signal.SIGHUP]:
            signal.signal(number, signal.SIG_IGN)
        blocked = [signal.SIGTTIN, signal.SIGILL, signal.SIGTERM, signal.SIGRTMIN, signal.SIGUSR1]
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)

    daemon = panelind(["dump-state state"], preexec_fn=before)
    masks = signal_masks(daemon.worker())
    # The runtime of the worker's language sets one or two of its own; none of those that panelind inherited.
    dumped = json.loads(wait_until(lambda: _text(daemon.directory / "state"), "the state"))
    assert int(dumped["sig_blk"], 16) == 0 and masks["SigBlk"] == 0
    for number in [signal.SIGTTOU, signal.SIGSEGV, signal.SIGINT, signal.SIGHUP]:
        assert not masks["SigIgn"] & 1 << number - 1, number
    assert daemon.stop() == 0


@pytest.mark.case("C09")
def test_a_plain_worker_sees_nothing_ignored_or_blocked(panelind):
    daemon = panelind(command=["cat", "/proc/self/status"], settings={"restart.policy": "never"})
    assert daemon.wait() == 0
    sets = {line.split()[1] for line in daemon.messages() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))}
    assert sets == {"0" * 16}


@pytest.mark.case("C10")
@pytest.mark.parametrize("name", ["TERM", "USR1", "USR2"])
def test_a_signal_that_kills_a_default_worker(panelind, placement, name):
    """TERM to panelind is a stop, so 0; USR1 and USR2 pass and kill the worker, which without restarts is 128 + n."""
    daemon = panelind([], {"restart.policy": "never"}, placement=placement)
    daemon.ready()
    number = getattr(signal, f"SIG{name}")
    code = daemon.stop(number)
    assert code == (0 if name == "TERM" else 128 + number)
    assert daemon.events("worker_exited")[0]["exit_signal"] == f"SIG{name}"


POOL = textwrap.dedent(
    """
    import multiprocessing, os, signal, sys, time
    def work(n):
        signal.signal(signal.SIGTERM, lambda *_: note("child"))
        note("up")
        while True: time.sleep(0.05)
    def note(text):
        with open("notes", "a") as f: f.write(text + "\\n")
    if __name__ == "__main__":
        multiprocessing.set_start_method("fork")
        workers = [multiprocessing.Process(target=work, args=(n,), daemon=True) for n in range(3)]
        def stop(*_):
            note("leader")
            for w in workers: w.kill()
            for w in workers: w.join()
            print("pool closed", flush=True)
            sys.exit(0)
        for w in workers: w.start()
        signal.signal(signal.SIGTERM, stop)
        while True: time.sleep(0.05)
    """
)


@pytest.mark.case("C11")
@pytest.mark.parametrize("target", ["leader", "group"])
def test_stop_target_chooses_who_is_signalled(panelind, tmp_path, target):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    daemon = panelind(command=[sys.executable, script], settings={"stop.target": target})
    notes = daemon.directory / "notes"
    wait_until(lambda: _text(notes).count("up") == 3, "the pool is up")
    daemon.ready()
    assert daemon.stop() == 0
    lines = _text(notes).split()
    assert lines.count("leader") == 1
    if target == "leader":
        assert lines.count("child") == 0
    assert "pool closed" in daemon.messages()
    assert not any("KeyboardInterrupt" in (message or "") for message in daemon.messages())
    assert daemon.events("worker_killed_survivors") == []


@pytest.mark.case("C11")
def test_stop_target_leader_spares_the_group_and_its_rest_keeps_the_grace(panelind):
    daemon = panelind(["record-signals sig", "children 2 begin record-signals kids end"], {"stop.target": "leader"})
    daemon.ready()
    assert daemon.stop() == 0
    # The rest is told once the leader has left: nobody else would tell them.
    assert recorded(daemon.directory / "kids") == ["SIGTERM", "SIGTERM"]
    assert daemon.events("worker_killed_survivors") == []


@pytest.mark.case("C14")
def test_panelind_keeps_its_directory_and_the_worker_gets_its_own(panelind, tmp_path):
    """The research wants `/` for daemons; panelind stays in the foreground, and relative paths of its settings hold."""
    other = tmp_path / "other"
    other.mkdir()
    daemon = panelind([f"dump-state {tmp_path}/state"], {"worker.directory": str(other)})
    dumped = json.loads(wait_until(lambda: _text(tmp_path / "state"), "the state"))
    assert dumped["cwd"] == str(other)
    assert os.readlink(f"/proc/{daemon.pid}/cwd") == str(daemon.directory)
    daemon.stop()


@pytest.mark.case("C15")
def test_a_storm_of_signals_is_one_stop(panelind, placement):
    daemon = panelind(["record-signals sig"], placement=placement)
    daemon.ready()

    def storm():
        try:
            for number in range(10_000):
                os.kill(daemon.pid, signal.SIGUSR1)
                if number >= 5_000 and number % 50 == 0:
                    os.kill(daemon.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass

    thread = threading.Thread(target=storm)
    thread.start()
    assert daemon.wait() == 0
    thread.join()
    seen = recorded(daemon.directory / "sig")
    assert seen.count("SIGTERM") == 1
    assert set(seen) <= {"SIGUSR1", "SIGTERM"}
    assert len(daemon.events("worker_exited")) == len(daemon.events("panelind_stopped")) == 1


def test_tstp_stops_the_group_and_panelind_and_cont_resumes_both(panelind):
    daemon = panelind(["child begin tag kid end"], sidecar=True)
    daemon.ready()
    leader = daemon.worker()
    [kid] = [one.pid for one in daemon.survivors() if one.pid != leader]
    daemon.send(signal.SIGTSTP)
    wait_until(lambda: [state(pid) for pid in (leader, kid, daemon.pid)] == ["T"] * 3, "all are stopped")
    # Longer than a clock gap is worth a record.
    time.sleep(1.5)
    daemon.send(signal.SIGCONT)
    wait_until(lambda: "T" not in [state(pid) for pid in (leader, kid, daemon.pid)], "all go on")
    assert daemon.health()["state"] == "ready"
    assert daemon.stop() == 0
    assert len(daemon.events("worker_started")) == 1


def test_tstp_as_pid_1_stops_the_group_and_cont_resumes_it(panelind):
    """The kernel lets nobody stop PID 1 from inside; the worker stops all the same."""
    daemon = panelind([], placement=Placement.PID1)
    daemon.ready()
    leader = daemon.worker()
    daemon.send(signal.SIGTSTP)
    wait_until(lambda: state(leader) == "T", "the worker is stopped")
    daemon.send(signal.SIGCONT)
    wait_until(lambda: state(leader) != "T", "the worker goes on")
    assert daemon.stop() == 0


def test_a_stop_of_a_stopped_worker_is_bounded(panelind, placement):
    """A worker under SIGSTOP hears no TERM; KILL needs no help."""
    daemon = panelind(["stop-self"], {"stop.grace": "500ms"}, placement=placement)
    leader = daemon.worker()
    wait_until(lambda: state(leader) == "T", "it has stopped itself")
    assert daemon.stop() == 0
    assert daemon.took < 8
    assert daemon.survivors() == []


def test_the_passed_signals_end_nothing_where_there_is_no_worker(panelind):
    daemon = panelind(["exit 1"], {"restart.delay": "30s", "restart.jitter": 0})
    daemon.wait_event("worker_backoff")
    for number in [signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGQUIT, signal.SIGPIPE, signal.SIGCONT]:
        daemon.send(number)
    assert daemon.stop() == 0


@pytest.mark.parametrize("placement_of", [Placement.SUBREAPER, Placement.REFUSED], ids=lambda p: p.value)
@pytest.mark.case("C23")
def test_if_panelind_is_killed_the_leader_dies_with_it(panelind, placement_of):
    daemon = panelind(["ignore TERM"], placement=placement_of)
    leader = daemon.worker()
    daemon.ready()
    daemon.send(signal.SIGKILL)
    assert daemon.wait() == 128 + signal.SIGKILL
    wait_until(lambda: not is_alive(leader), "the leader is gone", timeout=5)


@pytest.mark.case("C23")
def test_if_panelind_is_killed_as_pid_1_all_die_with_it(panelind):
    daemon = panelind(["ignore TERM", "setsid-child ignore TERM"], placement=Placement.PID1)
    daemon.ready()
    assert len(daemon.survivors()) == 2
    daemon.send(signal.SIGKILL)
    wait_until(lambda: not daemon.survivors(), "nobody is left", timeout=5)


@pytest.mark.case("C23")
def test_the_leader_dies_with_panelind_after_a_change_of_user_too(panelind):
    """A change of user clears the parent-death signal: it has to be set after it."""
    if os.geteuid() != 0:
        settings = {}
    else:
        settings = {"worker.user": "nobody", "worker.directory": "/"}
    daemon = panelind(["ignore TERM"], settings)
    leader = daemon.worker()
    daemon.ready()
    daemon.send(signal.SIGKILL)
    wait_until(lambda: not is_alive(leader), "the leader is gone", timeout=5)


def _text(path):
    return path.read_text() if path.exists() else ""


def test_a_sigterm_that_was_blocked_before_exec_is_not_lost(panelind, placement):
    """To PID 1 the kernel drops one that is neither blocked nor handled yet; a blocked one waits."""
    early = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
        " os.kill(os.getpid(), signal.SIGTERM); os.execv(sys.argv[1], sys.argv[1:])"
    )
    daemon = panelind([], wrapper=[sys.executable, "-c", early], placement=placement)
    assert daemon.wait() == 0
    assert daemon.events("panelind_stopped", exit_code=0)
