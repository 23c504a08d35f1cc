# test_trees.py
# No process of a worker's tree outlives it: CONTRACT section 3. Cases C16 to C26, in all three placements.
# Survivors are found by a tag on their command line. Read harness/daemon.py first.

import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from http.client import HTTPException

import pytest

from harness import (
    PATIENCE,
    Placement,
    accepts,
    children,
    free_port,
    http,
    is_alive,
    process_group,
    scripted_worker,
    seconds,
    wait_until,
    zombies,
)

FAST = {"restart.delay": "10ms", "restart.jitter": 0, "restart.maxDelay": "20ms"}


def killed(daemon, generation=1):
    """The commands of those that the log says were killed."""
    return [
        command
        for event in daemon.events("worker_killed_survivors", generation=generation)
        for command in event["commands"]
    ]


@pytest.mark.case("C16", "C17")
def test_orphans_are_reaped(panelind, placement):
    """100 orphans end one after the other. Where panelind cannot adopt them it says so, and has no zombie of them."""
    steps = [f"fork-orphans 10 sleep {number * 100}ms" for number in range(1, 11)]
    daemon = panelind(steps, placement=placement)
    leader = daemon.worker()
    daemon.ready()
    wait_until(lambda: [one.pid for one in daemon.survivors()] == [leader], "only the leader is left")
    wait_until(lambda: not zombies(daemon.pid), "no zombie is left")
    assert len(daemon.events("subreaper_refused")) == (1 if placement is Placement.REFUSED else 0)
    # Debug level at most: an orphan that ends is no news.
    assert not [
        event for event in daemon.events() if "reap" in event["event"] and event["event"] != "subreaper_refused"
    ]
    assert daemon.stop() == 0
    assert daemon.survivors() == []
    assert daemon.events("worker_killed_survivors") == []


@pytest.mark.case("C18")
def test_the_leaders_end_is_never_missed_among_others(panelind, placement):
    """Children that die together with the leader: SIGCHLD comes once for all of them."""
    steps = ["fork-orphans 2 sleep 5ms", "children 2 sleep 5ms", "sleep 5ms", "exit 1"]
    daemon = panelind(
        steps,
        {"restart.delay": "1ms", "restart.jitter": 0, "restart.factor": 1, "restart.limit": 60},
        placement=placement,
    )
    assert daemon.wait(4 * PATIENCE) == 70
    exited = daemon.events("worker_exited")
    assert [event["generation"] for event in exited] == list(range(1, 62))
    assert daemon.survivors() == []


@pytest.mark.case("C19")
def test_a_child_that_ignores_term_is_killed_at_the_end_of_the_grace(panelind, placement):
    daemon = panelind(["child begin tag stubborn ignore TERM end"], {"stop.grace": "1s"}, placement=placement)
    daemon.ready()
    assert len(daemon.survivors()) == 2
    assert daemon.stop() == 0
    # It keeps what remains of the grace after its leader has left, and not more.
    assert 1 <= daemon.took < 4
    assert daemon.survivors() == []
    [command] = killed(daemon)
    assert "stubborn" in command
    [event] = daemon.events("worker_killed_survivors")
    assert len(event["pids"]) == 1


@pytest.mark.case("C20")
@pytest.mark.parametrize("how", ["setsid-child", "daemonize-child"])
def test_who_left_the_group_and_session_gets_the_signal_and_then_kill(panelind, placement, how):
    daemon = panelind(
        [
            f"{how} begin tag polite record-signals polite end",
            f"{how} begin tag stubborn record-signals stubborn ignore TERM end",
        ],
        {"stop.grace": "1s"},
        placement=placement,
    )
    daemon.ready()
    wait_until(lambda: len(daemon.survivors()) == 3, lambda: daemon.survivors())
    assert daemon.stop() == 0
    assert 1 <= daemon.took < 4
    assert daemon.survivors() == []
    for name in ["polite", "stubborn"]:
        assert [line.split()[2] for line in (daemon.directory / name).read_text().splitlines()] == ["SIGTERM"]
    [command] = killed(daemon)
    assert "stubborn" in command


@pytest.mark.case("C19", "C20")
def test_a_tree_that_leaves_by_itself_does_not_wait_for_the_grace(panelind, placement):
    """Nobody is killed, and panelind ends with the last of them."""
    daemon = panelind(
        ["child begin on TERM exit 0 after 300ms end", "setsid-child begin on TERM exit 0 after 400ms end"],
        {"stop.grace": "8s"},
        placement=placement,
    )
    daemon.ready()
    assert daemon.stop() == 0
    assert 0.4 <= daemon.took < 5
    assert daemon.events("worker_killed_survivors") == []
    assert daemon.survivors() == []


@pytest.mark.case("C21")
@pytest.mark.parametrize("end", ["/exit?code=1", "/crash?signal=SEGV"])
def test_after_a_crash_the_rest_is_gone_before_the_next_starts(panelind, placement, end):
    """A child holds the listening socket: the next worker can only bind if that child is gone."""
    port = free_port()
    daemon = panelind(
        ["listen env", "child-holds-listener", "daemonize-child ignore TERM", "child ignore TERM"],
        {**FAST, "worker.limits.core": 0},
        environment={"PORT": port},
        placement=placement,
    )
    daemon.ready()
    wait_until(lambda: len(daemon.survivors()) == 4, lambda: daemon.survivors())
    before = {one.pid for one in daemon.survivors()}
    with contextlib.suppress(OSError, HTTPException):
        http(port, end)
    daemon.ready(2)
    assert not before & {one.pid for one in daemon.survivors()}
    started = daemon.events("worker_started")
    assert [event["generation"] for event in started] == [1, 2], "the replacement bound at its first try"
    assert len(killed(daemon)) == 3
    swept = daemon.events("worker_killed_survivors", generation=1)[0]
    assert seconds(swept) <= seconds(started[1])
    assert http(port).status == 200
    assert daemon.stop() == 0
    assert daemon.survivors() == []
    assert not accepts(port)


@pytest.mark.case("C22")
def test_a_grandchild_that_holds_stdout_delays_nothing(panelind, placement):
    daemon = panelind(
        [
            "print hello",
            "child-holds-stdout",
            "setsid-child ignore TERM",
            "listen env",
            "wait-file go",
            "signal-self KILL",
        ],
        FAST,
        environment={"PORT": free_port()},
        placement=placement,
    )
    daemon.ready()
    (daemon.directory / "go").touch()
    exited = daemon.wait_event("worker_exited")
    started = daemon.wait_event("worker_started", generation=2)
    (daemon.directory / "go").unlink()
    # The record waits for the output's tail at most 250 ms; the restart does not wait for it, nor for an end of file.
    assert seconds(started) - seconds(exited) < 2
    assert exited["exit_signal"] == "SIGKILL"
    assert "hello" in exited["last_output"]
    daemon.stop()
    assert daemon.survivors() == []


@pytest.mark.case("C25")
@pytest.mark.parametrize("errno", [1, 22, 38])
def test_a_refused_subreaper_is_one_warning(panelind, tool, errno):
    daemon = panelind([], wrapper=[tool("refuse"), "36", str(errno)])
    daemon.ready()
    [warned] = daemon.events("subreaper_refused")
    assert warned["severity"] == "WARNING"
    assert daemon.stop() == 0


@pytest.mark.case("C26")
def test_a_zombie_of_the_worker_is_not_ours_and_stops_nothing(panelind, placement):
    """The research wants a count of them; CONTRACT has none, and leaves them to their parent."""
    daemon = panelind(["zombie"], placement=placement)
    leader = daemon.worker()
    wait_until(lambda: zombies(leader), "the worker has a zombie")
    daemon.ready()
    assert zombies(leader)
    assert zombies(daemon.pid) == []
    assert daemon.stop() == 0
    assert daemon.survivors() == []
    assert daemon.events("worker_killed_survivors") == []


def test_a_leader_that_dies_first_leaves_a_deep_tree(panelind, placement):
    """Twenty below it, some in their own sessions: none survives a crash, and the next has its own."""
    deep = "child begin setsid-child begin child begin ignore TERM end ignore TERM end ignore TERM end"
    daemon = panelind(
        [deep, deep, deep, "fork-orphans 5 ignore TERM", "listen env", "wait-file go", "exit 1"],
        FAST,
        environment={"PORT": free_port()},
        placement=placement,
    )
    daemon.ready()
    wait_until(lambda: len(daemon.survivors()) == 15, lambda: daemon.survivors())
    first = {one.pid for one in daemon.survivors()}
    (daemon.directory / "go").touch()
    daemon.wait_event("worker_exited")
    (daemon.directory / "go").unlink()
    daemon.ready(2)
    wait_until(lambda: len(daemon.survivors()) == 15, lambda: daemon.survivors())
    assert not first & {one.pid for one in daemon.survivors()}
    assert len(killed(daemon)) == 14
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_a_tree_that_forks_as_fast_as_it_can_is_ended(panelind, placement):
    daemon = panelind(["fork-bomb 300"], {"stop.grace": "300ms"}, placement=placement)
    daemon.ready()
    wait_until(lambda: len(daemon.survivors()) > 100, "the bomb goes off")
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_one_that_hops_to_new_sessions_is_ended(panelind, placement):
    """One at a time, always in a new session, its parent gone: only adoption or its environment tells whose it is."""
    daemon = panelind(["hop 400 20ms"], {"stop.grace": "300ms"}, placement=placement)
    daemon.ready()
    assert daemon.stop() == 0
    wait_until(lambda: not daemon.survivors(), lambda: daemon.survivors(), timeout=2)


def test_kill_goes_to_the_whole_tree_with_stop_target_leader(panelind, placement):
    daemon = panelind(
        ["ignore TERM", "child ignore TERM", "setsid-child ignore TERM"],
        {"stop.target": "leader", "stop.grace": "300ms"},
        placement=placement,
    )
    daemon.ready()
    wait_until(lambda: len(daemon.survivors()) == 3, lambda: daemon.survivors())
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_a_strangers_process_is_never_touched(panelind, placement, tmp_path):
    """A process of another panelind, and one of nobody's in the same session, live on."""
    other = panelind(["setsid-child ignore TERM"])
    other.ready()
    neighbours = {one.pid for one in other.survivors()}
    daemon = panelind(["child ignore TERM", "exit-after 300ms 1"], {**FAST, "restart.limit": 2}, placement=placement)
    assert daemon.wait() == 70
    assert daemon.survivors() == []
    assert {one.pid for one in other.survivors()} == neighbours
    assert other.stop() == 0


def test_a_visitor_in_the_container_is_not_the_workers(panelind):
    """What `docker exec` starts is no descendant of PID 1: a restart of the worker must not end it."""
    daemon = panelind(
        ["listen env", "wait-file go", "exit 1"], FAST, environment={"PORT": free_port()}, placement=Placement.PID1
    )
    daemon.ready()
    own = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
    with subprocess.Popen(["nsenter", "-t", str(daemon.pid), *own, "-p", "-m", "sleep", "60"]) as visitor:
        [inside] = wait_until(
            lambda: [one for one in children(visitor.pid) if one.command == "sleep 60"], "the visitor is in"
        )
        (daemon.directory / "go").touch()
        daemon.wait_event("worker_exited")
        (daemon.directory / "go").unlink()
        daemon.ready(2)
        assert is_alive(inside.pid)
        # It goes with the container.
        assert daemon.stop() == 0
        wait_until(lambda: not is_alive(inside.pid), "the visitor is gone")
        visitor.wait()


def test_an_exec_probes_command_and_its_rest_are_gone_too(panelind, placement, tmp_path):
    """A probe's command is in a group of its own; what it leaves behind belongs to the worker."""
    tag = f"probe-{uuid.uuid4().hex}"
    daemon = panelind(
        [],
        {
            "probe.readiness.exec": scripted_worker(f"tag {tag}", "daemonize-child ignore TERM", "sleep 50ms"),
            "probe.readiness.timeout": "10s",
        },
        placement=placement,
    )
    daemon.ready()
    assert [one for one in daemon.survivors() if tag in one.command]
    assert daemon.stop() == 0
    assert daemon.survivors() == []


def test_the_workers_group_is_its_own(panelind):
    daemon = panelind(["dump-state state"])
    dumped = json.loads(
        wait_until(
            lambda: (daemon.directory / "state").exists() and (daemon.directory / "state").read_text(), "the state"
        )
    )
    leader = daemon.worker()
    assert dumped["pgid"] == dumped["pid"] == leader
    assert process_group(daemon.pid) != leader
    daemon.stop()


def test_no_process_outlives_giving_up(panelind, placement):
    daemon = panelind(
        ["daemonize-child ignore TERM", "child ignore TERM", "exit 1"],
        {**FAST, "restart.limit": 1},
        placement=placement,
    )
    assert daemon.wait() == 70
    assert daemon.survivors() == []


def test_no_process_outlives_an_end_without_restarts(panelind, placement):
    daemon = panelind(
        ["daemonize-child ignore TERM", "child ignore TERM", "exit 5"], {"restart.policy": "never"}, placement=placement
    )
    assert daemon.wait() == 5
    assert daemon.survivors() == []
    assert len(killed(daemon)) == 2


def test_a_mainpid_of_a_daemonized_worker_is_followed(panelind, placement):
    """The process that we started may leave: what it named is the worker from then on."""
    daemon = panelind(
        ["mainpid-child", "notify READY=1", "sleep 300ms"],
        {**FAST, "probe.readiness.notify": True},
        placement=placement,
    )
    leader = daemon.worker()
    daemon.ready()
    if placement is Placement.REFUSED:
        # Nobody tells panelind of the end of a process that is not its child: the one that we started counts.
        assert daemon.stop() == 0
        assert daemon.survivors() == []
        return
    wait_until(lambda: not is_alive(leader), "the first process has left")
    time.sleep(0.5)
    assert daemon.events("worker_exited") == []
    [main] = daemon.survivors()
    os.kill(main.pid, signal.SIGKILL)
    exited = daemon.wait_event("worker_exited")
    assert exited["exit_signal"] == "SIGKILL"
    assert exited["pid"] != daemon.events("worker_started")[0]["pid"], "it names the process that ended"
    daemon.ready(2)
    assert daemon.stop() == 0
    assert daemon.survivors() == []
