# cases.py
# What a case is, and the cases about processes: exits, signals, stops, trees.
# Each is a promise to a user, seen from outside; it raises what was observed instead. Read contenders.py first, life.py next.

import json
import pathlib
import signal
import time
from dataclasses import dataclass
from typing import Callable

from harness import free_port, http, wait_until
from contenders import Want


class Failed(Exception):
    """What was observed instead of the promise."""


class Unseen(Exception):
    """Here it cannot be seen whether the promise is kept."""


@dataclass
class Case:
    name: str
    group: str
    promise: str
    needs: frozenset
    run: Callable
    as_first: bool = False


ALL: list[Case] = []


def case(group, promise, needs, as_first=False):
    def register(function):
        ALL.append(Case(function.__name__.replace("_", "-"), group, promise, frozenset(needs.split()), function, as_first))
        return function

    return register


def expect(holds, observed):
    if not holds:
        raise Failed(observed)


def until(condition, observed, timeout=20):
    try:
        return wait_until(condition, observed, timeout)
    except AssertionError:
        raise Failed(observed() if callable(observed) else observed) from None


def records(path):
    """(pid, nanoseconds, text) that the worker recorded."""
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError:
        return []
    return [(int(pid), int(at), text) for pid, at, text in (line.split(" ", 2) for line in lines)]


def started(bed, count=1, timeout=20):
    until(lambda: len(records(bed / "up")) >= count, f"start number {count} has not come within {timeout} s", timeout)
    return records(bed / "up")


def beats(bed):
    return records(bed / "beat")


def is_silent(bed):
    """Nobody beats any more: thirty beats long nothing came."""
    before = len(beats(bed))
    time.sleep(0.6)
    return len(beats(bed)) == before


def answers(port, path="/health"):
    try:
        return http(port, path, timeout=2).status == 200
    except OSError:
        return False


def up(bed):
    return f"record {bed / 'up'} up"


# -- ends


@case("Exit and signals", "the worker's exit code is handed on (37)", "oneshot")
def exit_code(bed):
    code = bed.start(Want(["exit 37"], restart=False)).process.wait()
    expect(code == 37, f"exit {code}")


@case("Exit and signals", "a worker's death by a signal is handed on as 128 + its number", "oneshot")
def exit_signal(bed):
    code = bed.start(Want(["signal-self KILL"], restart=False)).process.wait()
    expect(code == 137, f"exit {code}")


@case("Exit and signals", "a command that does not exist ends with 127, one that cannot be executed with 126", "oneshot")
def not_found(bed):
    code = bed.start(Want(command=["/nonexistent/worker"], restart=False)).process.wait()
    expect(code == 127, f"exit {code} for one that does not exist")
    file = bed.directory("text") / "no-program"
    file.write_text("text\n")
    code = bed.start(Want(command=[file], restart=False)).process.wait()
    expect(code == 126, f"exit {code} for one that cannot be executed")


@case("Exit and signals", "a stop reaches the worker as SIGTERM, once", "stop")
def term_once(bed):
    run = bed.start(Want([f"record-signals {bed / 'signals'}", up(bed), "on TERM exit 0 after 300ms"], restart=False))
    started(bed)
    run.stop()
    got = [line.split()[2] for line in (bed / "signals").read_text().splitlines()] if (bed / "signals").exists() else []
    expect(got.count("SIGTERM") == 1, f"the worker saw {got}")


@case("Exit and signals", "SIGUSR1 can be sent to the worker through it", "usr1")
def usr1(bed):
    run = bed.start(Want([f"record-signals {bed / 'signals'}", up(bed)]))
    started(bed)
    run.contender.usr1(run)
    until(lambda: (bed / "signals").exists() and "USR1" in (bed / "signals").read_text(), "the worker saw nothing")


@case("Exit and signals", "signals that were ignored or blocked around it are not for the worker", "stop")
def clean_signals(bed):
    run = bed.start(Want([f"dump-state {bed / 'state'}", up(bed)],
                         around=["env", "--ignore-signal=USR2", "--block-signal=USR1"]))
    started(bed)
    text = until(lambda: (bed / "state").exists() and (bed / "state").read_text(), "the worker has not started")
    state = json.loads(text)
    if not state["sig_ign"]:
        raise Unseen("this kernel's /proc does not say")
    wrong = [what for what, key, number in (("SIGUSR2 is ignored", "sig_ign", 12), ("SIGUSR1 is blocked", "sig_blk", 10))
             if int(state[key], 16) >> (number - 1) & 1]
    expect(not wrong, "in the worker " + " and ".join(wrong))


# -- stops


@case("Stop", "a worker that ignores SIGTERM is gone when the grace of 2 s and 4 s more are over", "kill")
def stop_ignores_term(bed):
    run = bed.start(Want(["ignore TERM", up(bed), f"every 20ms record {bed / 'beat'} x"]))
    started(bed)
    code, took = run.stop()
    expect(code is not None and took < 6, f"after {took:.1f} s it {'runs' if code is None else 'had ended'}")
    expect(is_silent(bed), "the worker lives")


@case("Stop", "a worker that leaves at once ends the stop at once, not after the grace", "stop")
def stop_prompt(bed):
    run = bed.start(Want(["on TERM exit 0 after 100ms", up(bed)], grace=8))
    started(bed)
    code, took = run.stop()
    expect(code is not None and took < 4, f"after {took:.1f} s")


def leaves_behind(bed, how):
    run = bed.start(Want([
        f"{how} begin ignore TERM every 20ms record {bed / 'beat'} x end", up(bed), "on TERM exit 0 after 100ms"]))
    started(bed)
    until(lambda: beats(bed), "the descendant has not begun")
    code, took = run.stop()
    expect(code is not None and took < 6, f"after {took:.1f} s it {'runs' if code is None else 'had ended'}")
    expect(is_silent(bed), "the descendant lives")


@case("Stop", "a child in the worker's group that ignores SIGTERM does not outlive the stop", "group stop")
def stop_group(bed):
    leaves_behind(bed, "child")


@case("Stop", "a descendant in a session of its own (setsid) does not outlive the stop", "tree stop")
def stop_setsid(bed):
    leaves_behind(bed, "setsid-child")


@case("Stop", "a daemon that left by a double fork does not outlive the stop", "tree stop")
def stop_daemon(bed):
    leaves_behind(bed, "daemonize-child")


@case("Stop", "SIGKILL of the supervisor ends the worker too", "pdeath")
def supervisor_killed(bed):
    run = bed.start(Want([up(bed), f"every 20ms record {bed / 'beat'} x"]))
    started(bed)
    run.process.send(signal.SIGKILL)
    run.process.wait()
    expect(is_silent(bed), "the worker lives")


# -- trees


def left_by_a_crash(bed, how):
    child = f"{how} begin ignore TERM every 20ms record {bed / 'beat'} x end"
    bed.start(Want([up(bed), child, "exit-after 400ms 1"]))
    second = started(bed, 2)[1][1]
    time.sleep(0.3)
    first = {pid for pid, at, _ in beats(bed) if at < second}
    expect(first, "the descendant has not begun")
    late = [pid for pid, at, _ in beats(bed) if at > second and pid in first]
    expect(not late, "the descendant lives beside the next worker")


@case("Trees", "a crashed worker's child is gone before the next worker starts", "crashtree restart")
def crash_group(bed):
    left_by_a_crash(bed, "child")


@case("Trees", "a crashed worker's descendant in a session of its own is gone before the next worker starts", "crashtree restart")
def crash_setsid(bed):
    left_by_a_crash(bed, "setsid-child")


@case("Trees", "a crashed worker's daemon (double fork) is gone before the next worker starts", "crashtree restart")
def crash_daemon(bed):
    left_by_a_crash(bed, "daemonize-child")


@case("Trees", "the port that a crashed worker's child held is free for the next worker at its first try", "crashtree restart")
def crash_port(bed):
    port = free_port()
    bed.start(Want([up(bed), f"listen {port}", "child-holds-listener", f"record {bed / 'bound'} x", "exit-after 400ms 1"],
                   port=port, settings={"serve.mode": "direct"} if bed.contender.name == "panelind" else {}))
    started(bed, 3)
    until(lambda: len(records(bed / "bound")) >= 2, "the next worker could not bind")
    starts, bound = records(bed / "up"), records(bed / "bound")
    expect([pid for pid, _, _ in starts[:2]] == [pid for pid, _, _ in bound[:2]], "the next worker could not bind")


@case("Trees", "twenty orphans that end are reaped: no zombie is left", "reap", as_first=True)
def zombies(bed):
    run = bed.start(Want(["fork-orphans 20 sleep 300ms", up(bed)]))
    started(bed)
    time.sleep(0.6)
    until(lambda: run.place.zombies(run.process) == 0, lambda: f"{run.place.zombies(run.process)} zombies", 8)
