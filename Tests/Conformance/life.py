# life.py
# The cases about a worker's life: restarts, readiness, its log, its secrets, and the configuration.
# Read cases.py first, fronts.py next.

import re
import socket
import time

from harness import free_port, http
from cases import answers, beats, case, expect, records, started, until, up
from contenders import Want


@case("Restart", "a crashed worker is started again", "restart")
def restart(bed):
    bed.start(Want([up(bed), "exit-after 200ms 1"]))
    started(bed, 3)


@case("Restart", "the pauses of a crash loop grow", "backoff")
def backoff(bed):
    bed.start(Want([up(bed), "exit 1"], delay="200ms", factor=2))
    times = [at / 1e9 for _, at, _ in started(bed, 4)]
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    expect(gaps[2] > gaps[0] * 1.5, f"pauses of {', '.join(f'{gap:.2f} s' for gap in gaps)}")


@case("Restart", "after a limit of crashes it gives up, and says so by exit code or state", "giveup")
def give_up(bed):
    run = bed.start(Want([up(bed), "exit 1"], limit=3))
    expect(run.contender.gave_up(run), f"{len(records(bed / 'up'))} starts later it has not")


@case("Restart", "a stop during the pause ends at once and starts nothing", "restart stop")
def stop_in_backoff(bed):
    run = bed.start(Want([up(bed), "exit 1"], delay="30s", factor=2))
    started(bed)
    time.sleep(0.3)
    code, took = run.stop()
    count = len(records(bed / "up"))
    expect(code is not None and took < 3, f"after {took:.1f} s it {'runs' if code is None else 'had ended'}")
    time.sleep(1.2)
    expect(len(records(bed / "up")) == count, "a worker was started after the stop")


@case("Restart", "a restart by command replaces the worker by exactly one", "command")
def restart_by_command(bed):
    run = bed.start(Want([up(bed), f"every 20ms record {bed / 'beat'} x"]))
    first = started(bed)[0][0]
    time.sleep(1.2)  # runit and s6 do not start a service twice a second
    run.contender.restart(run)
    started(bed, 2)
    time.sleep(1)
    seen = beats(bed)
    alive = {pid for pid, at, _ in seen if at > seen[-1][1] - 300_000_000}
    expect(len(records(bed / "up")) == 2 and len(alive) == 1 and first not in alive,
           f"{len(records(bed / 'up'))} starts, {len(alive)} alive")


@case("Restart", "the port stays open over a restart: clients wait, none is refused", "inherit")
def port_kept(bed):
    port = free_port()
    bed.start(Want([up(bed), "boot 300ms", "listen fd FD"], inherit=port))
    until(lambda: answers(port), "the worker does not serve")
    try:
        http(port, "/crash")
    except OSError:
        pass
    refused = []
    end = time.monotonic() + 0.25
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError as error:
            refused.append(error)
        time.sleep(0.01)
    expect(not refused, f"{len(refused)} connections were refused")
    expect(http(port, "/pid", timeout=15).status == 200, "no answer")
    started(bed, 2)


# -- readiness


@case("Readiness", "it calls the worker ready when the worker says so, not before", "ready")
def ready_true(bed):
    run = bed.start(Want([up(bed), f"wait-file {bed / 'go'}", "ready-fd 3"], ready=True))
    started(bed)
    time.sleep(0.7)
    expect(not run.contender.ready(run), "ready before the worker is")
    (bed / "go").write_text("")
    until(lambda: run.contender.ready(run), "not ready after the worker is")


@case("Readiness", "a worker that died is not called ready", "ready")
def ready_gone(bed):
    run = bed.start(Want([up(bed), "ready-fd 3", f"wait-file {bed / 'go'}", "signal-self KILL"], ready=True, delay="30s"))
    started(bed)
    until(lambda: run.contender.ready(run), "it has not become ready")
    (bed / "go").write_text("")
    until(lambda: not run.contender.ready(run), "ready without a worker", 3)


@case("Readiness", "a worker that hangs is replaced", "liveness")
def hung(bed):
    port = free_port()
    bed.start(Want([up(bed), f"listen {port}", "wait-file " + str(bed / "go"), "hang"], liveness=port))
    started(bed)
    until(lambda: answers(port), "the worker does not serve")
    time.sleep(1)
    (bed / "go").write_text("")
    until(lambda: not answers(port), "it does not hang")
    (bed / "go").unlink(missing_ok=True)
    # monit waits up to half a minute for a pid that its init has not reaped yet.
    started(bed, 2, 75)


# -- logs and secrets


@case("Logs and secrets", "2,000 lines of a worker that ends at once are all in the log, in order", "log")
def last_lines(bed):
    run = bed.start(Want([up(bed), "print 2000 lines", "exit 1"], log=True, delay="30s"))
    started(bed)

    def whole():
        try:
            numbers = [int(found[1]) for line in run.contender.lines(run) if (found := re.search(r"line (\d+)", line or ""))]
        except OSError:
            return False
        # Who starts it again has them twice.
        return numbers[:2000] == list(range(1, 2001))

    until(whole, "lines are missing")


@case("Logs and secrets", "the last line of a crashed worker is in the log, also without its newline", "log restart")
def partial_line(bed):
    run = bed.start(Want([up(bed), "print begin", "partial the-last-word", "exit 1"], log=True, delay="30s"))
    started(bed)

    def there():
        try:
            return any("the-last-word" in (line or "") for line in run.contender.lines(run))
        except OSError:
            return False

    until(there, "it is not", 6)


@case("Logs and secrets", "a secret is in the worker's environment, not in the supervisor's, its command line or the log", "secret")
def secret(bed):
    word = "hunter2-hunter2"
    run = bed.start(Want([f"dump-state {bed / 'state'}", up(bed)], secret=word, log=True))
    started(bed)
    text = until(lambda: (bed / "state").exists() and (bed / "state").read_text(), "the worker has not started")
    expect("THE_SECRET" in text, "the worker has no secret")
    expect(word not in run.place.first(run.process), "the supervisor has it")
    expect(word.encode() not in (run.directory / "out").read_bytes(), "the log has it")


# -- configuration


@case("Configuration", "a broken configuration is refused before anything starts", "config")
def broken_configuration(bed):
    run = bed.start(Want([] if bed.contender.is_proxy else [up(bed)], broken=True))
    code = run.process.wait(10)
    expect(code not in (None, 0), f"exit {code}" if code is not None else "it runs")
    expect(not records(bed / "up"), "a worker was started")


@case("Configuration", "a reload of a broken configuration is reported, and changes nothing", "reload")
def broken_reload(bed):
    port = free_port()
    if bed.contender.is_proxy:
        run = bed.start(Want([up(bed), "listen WORKER"], front=port))
    else:
        run = bed.start(Want([up(bed), f"listen {port}"], port=port,
                             settings={"serve.mode": "direct"} if bed.contender.name == "panelind" else {}))
    started(bed)
    until(lambda: answers(port), "it does not serve")
    time.sleep(0.5)
    expect(run.contender.break_configuration(run), "no error was reported")
    time.sleep(1.5)
    expect(run.process.is_alive, "the supervisor has ended")
    expect(answers(port), "it serves no longer")
    expect(len(records(bed / "up")) == 1, "the worker was restarted")


@case("Configuration", "a second supervisor of the same state is refused and harms nobody", "exclusive")
def exclusive(bed):
    run = bed.start(Want([up(bed), f"every 20ms record {bed / 'beat'} x"]))
    first = started(bed)[0][0]
    time.sleep(1)
    code = run.again()
    expect(code is not None, "it runs beside the first")
    expect(run.process.is_alive and {pid for pid, _, _ in records(bed / "up")} == {first}, "another worker was started")
