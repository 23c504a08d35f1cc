"""supervision.py: the benchmarks of starting, keeping, restarting and stopping a worker: start, footprint, restart, flip, stop, churn.

Each is a function that returns rows; a row's `_rounds` has its rounds for ratios.  The docstring says what is measured,
its last paragraph what is not; both go into docs/benchmarks.md.  Read harness.py before.
"""
import os
import signal
import subprocess
import time
from statistics import median

import harness as h
from contenders import ALL, free_port
from harness import Run, attempt, contenders, cpu, memory, quantile, rounds, scaled, wakeups


def start():
    """From exec of the contender to the worker's first instruction; overhead is what a direct exec does not take.
    Interleaved; slow starters have every third round.

    Does not show: a cold page cache, or the start of a real worker, which takes a hundred times as long.
    """
    field = contenders("start")
    took = {c.name: {} for c in field}
    for n, c in rounds(field, scaled(36)):
        with attempt(f"start, {c.name}"), Run(c, "pause", timed=True) as run:
            begin, first = run.stamps.next(10), run.stamps.next(20)
            took[c.name][n] = (first[2] - begin[2]) / 1e6
    direct = took.get("direct", {})
    rows = []
    for name, by_round in took.items():
        ms = list(by_round.values())
        if ms:
            rows.append({"contender": name, "min_ms": min(ms), "median_ms": median(ms), "p90_ms": quantile(ms, .9),
                         "overhead_ms": median(ms) - median(direct.values()) if direct else "", "runs": len(ms),
                         "_rounds": {n: {"overhead": v - direct.get(n, 0)} for n, v in by_round.items()}})
    return rows


def footprint():
    """Memory, threads and activity with one sleeping worker, the contenders at once. `panelind-all` has front, sidecar,
    control socket and JSON records switched on; `panelind` supervises only.

    Does not show: RSS and PSS count touched pages of the program, which a static binary cannot share; private dirty is
    what the machine must keep. One wake-up a second of a peer is its own loop.
    """
    field = contenders("footprint")
    # Not two of one program at once: they would share pages, and halve each other's PSS.
    second = [c for c in field if c.name in ("panelind-all", "s6-svscan")]
    return measured_idle([c for c in field if c not in second]) + measured_idle(second)


def measured_idle(field: list) -> list[dict]:
    runs, rows, seconds = [Run(c, "pause") for c in field], [], scaled(15)
    for run in runs:
        run.stamps.next(20)
    time.sleep(scaled(7))           # past every start window
    pids = [run.pids() for run in runs]

    def counters() -> list[tuple]:
        return [(time.monotonic(), wakeups(each), cpu(each)) for each in pids]

    before = counters()
    time.sleep(seconds)
    after = counters()              # before anything else is read: that takes its time
    for run, each, (begin, woken, used), (end, woken_now, used_now) in zip(runs, pids, before, after):
        with attempt(f"footprint, {run.c.name}"):
            assert each and run.p.poll() is None, "it has ended"
            m, took = memory(run.pids()), end - begin
            rows.append({"contender": run.c.name, "processes": len(each), "threads": m["threads"],
                         "rss_kib": m["rss"], "pss_kib": m["pss"], "dirty_kib": m["dirty"], "peak_kib": m["peak"],
                         "wakeups_per_s": (woken_now - woken) / took, "cpu_ms_per_min": (used_now - used) / took * 60e3})
        run.stop()
    return rows


def restart():
    """kill -9 of the worker to its replacement's first instruction, on settled workers (alive for 1.5 s) and on young ones
    (50 ms), with the smallest delay that a contender permits.

    Does not show: a default backoff. max is the worst of so many kills, mostly the machine's scheduling.
    """
    runs = [Run(c, "pause") for c in contenders("restart")]
    rows = []
    # Settled: round robin, so that the others' workers age meanwhile.  Young: one by one.
    for label, age, kills in (("settled", .2 if h.tiny() else 1.5, scaled(30)), ("young", 0.05, scaled(8))):
        took = {r.c.name: {} for r in runs}
        order = [(n, r) for n in range(kills) for r in runs] if label == "settled" else \
            [(n, r) for r in runs for n in range(kills)]
        for n, run in order:
            stamp = run.last = getattr(run, "last", None) or run.stamps.next(5)
            if stamp is None:
                continue
            if label == "young" and n == 0:  # the one that is there has settled
                h.kill(stamp[1])
                stamp = run.last = run.stamps.next(6)
                if stamp is None:
                    continue
            time.sleep(max(0, stamp[2] / 1e9 + age - time.monotonic()))
            at = time.monotonic_ns()
            h.kill(stamp[1])
            run.last = run.stamps.next(6)
            if run.last:
                took[run.c.name][n] = (run.last[2] - at) / 1e6
        rows += [{"contender": name, "worker": label, "p50_ms": quantile(list(v.values()), .5),
                  "max_ms": max(v.values(), default=float("nan")), "kills": len(v), "floor": ALL[name].floor,
                  "_rounds": {n: {"ms": ms} for n, ms in v.items()}}
                 for name, v in took.items()]
    [run.stop() for run in runs]
    return rows


def flip():
    """kill -9 of the worker to the first answer that is not 200 from the health endpoint, asked without pause over one kept
    connection; haproxy checks its server every 10 ms, and another restarts it.

    Does not show: what a load balancer makes of it, which asks every few seconds. Below one poll nothing can be seen.
    """
    rows = []
    for c in contenders("ready"):
        port, web, took, polls, kills = free_port(), free_port(), [], [], scaled(30)
        with attempt(f"flip, {c.name}"), Run(c, "http", web, 100, port=port, worker_port=web, checks=True) as run:
            # A proxy does not supervise: the harness runs and restarts its worker.
            own = None if "restart" in c.kinds else subprocess.Popen(run.job.argv)
            h.wait_port(port)
            for _ in range(kills):
                stamp = run.stamps.latest(20)
                h.wait_port(web)
                h.wait_ok(port, c.health)
                time.sleep(0.1)
                text = subprocess.run([h.CLIENT, "flip", str(port), c.health, str(stamp[1])], capture_output=True,
                                      text=True, check=True).stdout
                flipped, poll = map(int, text.split())
                polls.append(poll / 1e6)
                took += [flipped / 1e6] if flipped >= 0 else []
                if own:
                    own.wait()
                    own = subprocess.Popen(run.job.argv)
            if own:
                own.kill()
                own.wait()
        rows.append({"contender": c.name, "p50_ms": quantile(took, .5), "max_ms": max(took, default=float("nan")),
                     "seen": len(took), "of": kills, "poll_ms": median(polls) if polls else ""})
    return rows


def exit_time(run: Run, at: float, limit: float) -> float | str:
    """Seconds from `at` to the contender's exit."""
    try:
        run.p.wait(limit)
    except subprocess.TimeoutExpired:
        return "never"
    return time.monotonic() - at


def terminate(run: Run) -> float:
    at = time.monotonic()
    os.kill(run.p.pid, signal.SIGTERM)
    return at


def settled(order: list, mode: str, grace: float):
    """(contender, run), one after the other, when all have run for a while: some treat a young worker otherwise."""
    runs = []
    for c in order:
        with attempt(f"stop, {c.name}"):
            web = free_port()
            runs.append(Run(c, mode, *([web] if mode == "http" else []), grace=grace, worker_port=web))
    for run in runs:
        run.stamps.next(5)
    h.settle(1.2)
    for run in runs:
        with attempt(f"stop, {run.c.name}"):
            if mode == "http":
                h.wait_port(run.job.worker_port)
            yield run.c, run
        run.stop()


def stop():
    """SIGTERM to exit: with an idle worker, with one that has a request in flight which it finishes first (over: beyond the
    request's end), and with one that ignores SIGTERM (grace 1 s; over: beyond it).
    left: workers still alive when the contender had gone, or after the limit.

    Does not show: a drain by panelind's front; here the request goes to the worker's own port and the worker drains, so
    that all can take part. An init has no KILL: "never" is what it promises. monit and supervise (daemontools) leave the worker alone.
    """
    field, by_name = contenders("stop"), {c.name: {} for c in contenders("stop")}
    for n in range(h.few()):
        order = field[n % len(field):] + field[:n % len(field)] if field else []
        for c, run in settled(order, "http", 5.0):
            by_name[c.name].setdefault(n, {})["idle"] = exit_time(run, terminate(run), 4)
        for c, run in settled(order, "http", 5.0):
            load = h.Client("rate", run.job.worker_port, 1, .5, 1, "fresh", "/slow?700")
            time.sleep(max(0, load.begin + 0.3 - time.monotonic()))
            at = terminate(run)
            took, answer = exit_time(run, at, 4), load.result()
            # The answer's own end, as the client saw it, is when a perfect contender would be gone.
            over = took if isinstance(took, str) else at + took - (load.begin + answer["max_ms"] / 1e3)
            by_name[c.name].setdefault(n, {}).update(busy=over, answered=answer["ok"])
        for c, run in settled(order, "ignore", 1.0):
            mine = [p for p in h.descendants(run.p.pid) if h.is_worker(p)]
            over = exit_time(run, terminate(run), 1.8)
            left = sum(h.state(p)[:1] not in ([], ["Z"]) for p in mine)
            by_name[c.name].setdefault(n, {}).update(ignoring=over, left=left)
    rows = []
    for name, got in by_name.items():
        if not got:
            continue

        def middle(key, less=0.0):
            values = [g[key] for g in got.values() if key in g]
            times = [v for v in values if not isinstance(v, str)]
            return "never" if len(times) < len(values) else (median(times) - less) * 1e3 if times else ""
        rows.append({"contender": name, "idle_ms": middle("idle"), "busy_over_ms": middle("busy"),
                     "ignoring_over_ms": middle("ignoring", 1.0), "unanswered": sum(not g.get("answered") for g in got.values()),
                     "left": max(g.get("left", 0) for g in got.values()), "runs": len(got)})
    return rows


def lasting_zombies(pid: int) -> int:
    """Zombies that are still there a tenth of a second later: what has just died is not one yet."""
    def now():
        return {p for p in h.descendants(pid) if h.state(p)[:1] == ["Z"]}
    first = now()
    time.sleep(0.1)
    return len(first & now())


def churn():
    """Restarts of a worker that exits at once, at the smallest delay: 2,000, or as many as 15 s allow; growth counts from the
    hundredth (third or first where so many do not fit).

    Does not show: a rate that anyone should want; it finds leaks, and counts what is touched late too. A leak would
    go on in `grow restarts`.
    """
    rows, want, limit = [], scaled(2000, 120), scaled(15, 3)
    for c in contenders("churn"):
        with attempt(f"churn, {c.name}"), Run(c, "exit", 1) as run:
            begin, seen = time.monotonic(), 0
            while seen < want and time.monotonic() - begin < limit and run.stamps.next(5):
                seen += 1
                if seen in (1, 3, 100) and seen < want:  # the baseline, again once caches are warm
                    first, fds, mark = memory(run.pids()), h.fewest_descriptors(run), seen
                    used, t0 = cpu(run.pids()), time.monotonic()
            took, last = time.monotonic() - t0, memory(run.pids())
            zombies = lasting_zombies(run.p.pid)
            assert seen > mark, "no restart seen"
            rows.append({"contender": c.name, "restarts": seen, "per_s": (seen - mark) / took,
                         "cpu_ms_each": (cpu(run.pids()) - used) * 1e3 / max(1, seen - mark),
                         "rss_growth_kib": last["rss"] - first["rss"],
                         "fd_growth": h.fewest_descriptors(run) - fds, "zombies": zombies})
    return rows
