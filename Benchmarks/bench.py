#!/usr/bin/env python3
"""Side-by-side benchmarks of worker supervisors and front proxies; see README.md.

    python3 bench.py [BENCHMARK...] [--only NAME,NAME] [--scale F] [--json FILE]

Without a name: what supervision promises, each number as a ratio to a peer of the same run, with its gate and aim.
"""
import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import harness as h
from contenders import ALL, free_port
from harness import Run, contenders, cpu, memory, quantile, wakeups

args = argparse.Namespace()


def scaled(n: float, least: int = 1) -> int:
    return max(least, round(n * args.scale))


def start_overhead():
    """Exec of the contender to the worker's first instruction, less a direct exec."""
    field = contenders("start", args.only)
    took = {c.name: [] for c in field}
    for _ in range(scaled(50, 3)):
        for c in field:             # interleaved, so that drift hits everyone alike
            with Run(c, "pause", timed=True) as run:
                begin, first = run.stamps.next(10), run.stamps.next(20)
                if begin and first:
                    took[c.name].append((first[2] - begin[2]) / 1e6)
    base = median(took["direct"]) if took.get("direct") else 0
    return [{"contender": n, "min_ms": min(v), "median_ms": median(v), "p90_ms": quantile(v, .9),
             "overhead_ms": median(v) - base, "runs": len(v)} for n, v in took.items() if v]


def footprint():
    """Memory, threads and idle activity with one sleeping worker; all contenders at once."""
    runs = [Run(c, "pause") for c in contenders("footprint", args.only)]
    for run in runs:
        run.stamps.next(20)
    time.sleep(8)                   # past every start window
    seconds = scaled(20, 3)
    before = [(run.pids(), wakeups(run.pids()), cpu(run.pids())) for run in runs]
    time.sleep(seconds)
    rows = []
    for run, (pids, wakes, used) in zip(runs, before):
        m = memory(run.pids())
        rows.append({"contender": run.c.name, "processes": len(pids), "threads": m["threads"],
                     "rss_kib": m["rss"], "pss_kib": m["pss"], "dirty_kib": m["dirty"], "peak_kib": m["peak"],
                     "wakeups_per_s": (wakeups(pids) - wakes) / seconds,
                     "cpu_ms_per_min": (cpu(pids) - used) / seconds * 60e3})
    [run.stop() for run in runs]
    return rows


def restart_latency():
    """kill -9 to the replacement's first instruction, on young and on settled workers."""
    runs = [Run(c, "pause") for c in contenders("restart", args.only)]
    rows = []
    # Settled: round robin, so that the others' workers age meanwhile.  Young: one by one.
    for label, age, kills in (("settled", 1.5, scaled(50, 3)), ("young", 0.05, scaled(15, 3))):
        took = {r.c.name: [] for r in runs}
        order = [r for _ in range(kills) for r in runs] if age > 1 else \
            [r for r in runs for _ in range(kills)]
        for run in order:
            stamp = run.last = getattr(run, "last", None) or run.stamps.next(5)
            if stamp is None:
                continue
            time.sleep(max(0, stamp[2] / 1e9 + age - time.monotonic()))
            at = time.monotonic_ns()
            h.kill(stamp[1])
            run.last = run.stamps.next(15)
            if run.last:
                took[run.c.name].append((run.last[2] - at) / 1e6)
        rows += [{"contender": name, "worker": label, "p50_ms": quantile(v, .5),
                  "p99_ms": quantile(v, .99), "kills": len(v), "floor": ALL[name].floor}
                 for name, v in took.items()]
    [run.stop() for run in runs]
    return rows


def ready_flip():
    """kill -9 of the worker to the first non-200 from the health endpoint."""
    rows = []
    for c in contenders("ready", args.only):
        port, web, took, polls = free_port(), free_port(), [], []
        kills = scaled(30, 3)
        with Run(c, "http", web, 300, port=port, worker_port=web, checks=True) as run:
            # A proxy does not supervise: the harness runs and restarts its worker.
            own = None if "restart" in c.kinds else subprocess.Popen(run.job.argv)
            h.wait_port(port)
            con = http.client.HTTPConnection("127.0.0.1", port)  # kept alive

            def healthy() -> bool:
                con.request("GET", c.health)
                with con.getresponse() as reply:
                    return reply.read() is not None and reply.status == 200

            for _ in range(kills):
                stamp = run.stamps.latest(20)
                h.wait_port(web)
                while not healthy():
                    time.sleep(0.001)
                time.sleep(0.2)
                begin = now = time.monotonic_ns()
                h.kill(stamp[1])
                up = True
                while up and now < begin + 1_000_000_000:
                    up = healthy()
                    polls.append((time.monotonic_ns() - now) / 1e6)
                    now = time.monotonic_ns()
                took += [] if up else [(now - begin) / 1e6]
                if own:
                    own.wait()
                    own = subprocess.Popen(run.job.argv)
        rows.append({"contender": c.name, "p50_ms": quantile(took, .5),
                     "p99_ms": quantile(took, .99), "seen": len(took), "of": kills,
                     "poll_ms": median(polls)})
    return rows


def health_throughput():
    """wrk -t1 -c64 on the health endpoint; nginx `return 200` is the ceiling."""
    rates = {c.name: [] for c in contenders("health", args.only)}
    for _ in range(3):
        for c in contenders("health", args.only):
            port = free_port()
            with Run(c, "pause", port=port) as run:
                h.wait_port(port)
                time.sleep(0.5)
                url = f"http://127.0.0.1:{port}{c.health}"
                rates[c.name].append(h.loaded(run, url, 64, scaled(4, 2)))
    return best_of(rates, "nginx")


def best_of(rates: dict[str, list[dict]], base: str) -> list[dict]:
    """Medians over the rounds, and each contender's rate against the base of the same round."""
    return [{"contender": name} | {k: median([g[k] for g in got]) for k in got[0]} |
            {f"of_{base}": median([g["rps"] / b["rps"] for g, b in zip(got, rates[base])])
             if base in rates else ""} for name, got in rates.items()]


def proxy():
    """1 KiB through the front proxy at concurrency 80, then 100 MB each way."""
    field, small, large = contenders("proxy", args.only), free_port(), free_port()
    rates: dict[str, list[dict]] = {"direct": []} | {c.name: [] for c in field}
    with Run(ALL["nginx"], "pause", port=small) as up, Run(ALL["direct"], "http", large):
        h.wait_port(small)
        h.wait_port(large)
        for _ in range(3):
            url = f"http://127.0.0.1:{small}/1k"
            rates["direct"].append(h.loaded(up, url, 80, scaled(5, 2)))
            for c in field:
                port = free_port()
                with Run(c, "pause", port=port, worker_port=small) as run:
                    h.wait_port(port)
                    time.sleep(0.7)
                    url = f"http://127.0.0.1:{port}/1k"
                    h.wrk(url, 80, 1)  # warm up
                    rates[c.name].append(h.loaded(run, url, 80, scaled(5, 2)))
        rows, size = best_of(rates, "direct"), scaled(100) * 1_000_000
        rows[0] |= {"down_MBps": body(large, size, False), "up_MBps": body(large, size, True)}
        for c, row in zip(field, rows[1:]):
            port = free_port()
            with Run(c, "pause", port=port, worker_port=large) as run:
                h.wait_port(port)
                time.sleep(0.7)
                idle = memory(run.pids())["peak"]
                row |= {"down_MBps": body(port, size, False),
                        "up_MBps": body(port, size, True),
                        "body_peak_growth_kib": memory(run.pids())["peak"] - idle}
    return rows


def body(port: int, size: int, up: bool) -> float:
    """MB/s of one large upload or download; 0 if it failed."""
    con, buf = http.client.HTTPConnection("127.0.0.1", port), bytearray(1 << 20)
    begin, got = time.monotonic(), 0
    try:
        if up:
            blocks = (buf[:size - at] for at in range(0, size, len(buf)))
            con.request("POST", "/upload", blocks, {"Content-Length": str(size)})
        else:
            con.request("GET", f"/bytes/{size}")
        reply = con.getresponse()
        while n := reply.readinto(buf):
            got += n
    except OSError:
        return 0
    ok = reply.status == 200 and (up or got == size)
    return size / 1e6 / (time.monotonic() - begin) if ok else 0


def one_request(port: int, due: float, path: str) -> tuple[str, float]:
    """A request on a fresh connection; ("ok" or what went wrong, ms since it was due)."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.settimeout(10)
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while part := s.recv(65536):
                data += part
        code = data[9:12].decode()
        kind = "ok" if code == "200" and len(data) > 1024 else "5xx" if code[:1] == "5" else "cut"
    except ConnectionRefusedError:
        kind = "refused"
    except OSError:
        kind = "cut"                # reset or timed out after connecting
    return kind, (time.monotonic() - due) * 1e3


def crash_under_load():
    """200 requests/s (2 ms each) while the worker, which boots in 300 ms, is killed every second.

    crash: the client connects to the worker's own port.  sockets: the worker inherits the
    listening socket.  front: a proxy before a worker that s6-supervise restarts.
    """
    rate, seconds, rows = 200, scaled(12, 4), []
    for c, how in [(c, how) for how in ("crash", "sockets", "front")
                   for c in contenders(how, args.only)]:
        web, port, front, listener = free_port(), free_port(), None, None
        if how == "sockets":
            listener = socket.create_server(("127.0.0.1", web), backlog=1024)
            run = Run(c, "http", "fd:3", 300, listener=listener)
            listener.close()        # from now on only the contender holds it
        elif how == "front" and "crash" in c.kinds:  # supervisor and proxy in one
            run = Run(c, "http", web, 300, port=port, worker_port=web)
        else:
            run = Run(c if how == "crash" else ALL["s6-supervise"], "http", web, 300)
            if how == "front":
                front = Run(c, "pause", port=port, worker_port=web)
        stamp, target = run.stamps.next(10), port if how == "front" else web
        h.wait_port(target)
        time.sleep(1.2)
        begin, results, kills = time.monotonic() + 0.1, [], 0
        with ThreadPoolExecutor(96) as pool:
            for i in range(rate * seconds):
                due = begin + i / rate
                time.sleep(max(0, due - time.monotonic()))
                if i % rate == rate // 2:
                    stamp = run.stamps.latest(0.001) or stamp
                    kills += h.kill(stamp[1])  # none while the replacement is still due
                results.append(pool.submit(one_request, target, due, "/slow?2"))
        done = [r.result() for r in results]
        count = lambda kind: sum(k == kind for k, _ in done)
        rows.append({"contender": c.name, "path": how, "kills": kills, "requests": len(done),
                     "failed": len(done) - count("ok"), "refused": count("refused"),
                     "cut": count("cut"), "5xx": count("5xx"),
                     "p99_ok_ms": quantile([ms for k, ms in done if k == "ok"], .99),
                     "max_ms": max(ms for _, ms in done)})
        [each.stop() for each in (front, run) if each]
    return rows


def log_relay():
    """1 GB of 200-byte lines on the worker's stdout, relayed to a file in memory."""
    rows = []
    for chunk in (200, 65536):      # one write per line, and a worker that buffers
        for c in contenders("log", args.only):
            lines = scaled(5_000_000 if chunk > 200 else 1_000_000)
            log = h.SCRATCH / f"log-{c.name}"
            with Run(c, "lines", lines, 200, chunk, log=log) as run:
                begin = run.stamps.next(10)[2] / 1e9
                last, end = b"", time.monotonic()  # done at the marker, or when all is still
                while time.monotonic() - end < 3:
                    if (now := tail_of(log)) != last:
                        last, end = now, time.monotonic()
                    if b"END-OF-STREAM" in now:
                        break
                    time.sleep(0.005)
                pids = run.pids()
                used, m = cpu(pids), memory(pids)
            found = sum(b"LINE 0" in line for f in log_files(log) for line in open(f, "rb"))
            gb = lines * 200 / 1e9
            rows.append({"contender": c.name, "write_bytes": chunk, "GB": gb,
                         "MBps": found * 200 / 1e6 / (end - begin), "cpu_s_per_GB": used / gb,
                         "lost": lines - found, "peak_kib": m["peak"]})
            shutil.rmtree(log) if log.is_dir() else log.unlink()
    return rows


def log_files(log):
    if not log.is_dir():
        return [log] if log.exists() else []
    return sorted(f for f in log.iterdir() if f.name[0] in "@c" and f.name != "config")


def tail_of(log) -> bytes:
    try:
        with open(log_files(log)[-1], "rb") as f:  # "current" sorts behind "@..."
            f.seek(max(0, os.fstat(f.fileno()).st_size - 512))
            return f.read()
    except (IndexError, FileNotFoundError):  # not there yet, or just rotated
        return b""


def exit_time(run: Run) -> float | str:
    begin = time.monotonic()
    run.p.terminate()
    try:
        run.p.wait(12)
        return time.monotonic() - begin
    except subprocess.TimeoutExpired:
        return "> 12"


def shutdown():
    """SIGTERM with a 3 s request in flight, and with a worker that ignores SIGTERM."""
    rows = []
    for c in contenders("shutdown", args.only):
        web = free_port()
        with Run(c, "http", web, grace=5.0, worker_port=web) as run, ThreadPoolExecutor() as pool:
            h.wait_port(web)
            time.sleep(1.2)
            reply = pool.submit(one_request, web, time.monotonic(), "/slow?3000")
            time.sleep(0.5)
            row = {"contender": c.name, "exit_after_s": exit_time(run), "ideal_s": 2.5,
                   "request": reply.result()[0]}
        with Run(c, "ignore", grace=2.0, worker_port=web) as run:
            run.stamps.next(10)
            time.sleep(1.2)
            row |= {"ignoring_exit_s": exit_time(run), "grace_s": 2.0}
            left = [p for p in h.descendants(os.getpid()) if h.is_worker(p)]
            row["worker_left"] = sum(h.state(p)[:1] not in ([], ["Z"]) for p in left)
        rows.append(row)
    return rows


def churn():
    """2,000 restarts of a worker that exits at once; growth of memory, descriptors, zombies."""
    rows, want, limit = [], scaled(2000, 10), scaled(60, 8)
    for c in contenders("churn", args.only):
        with Run(c, "exit", 1) as run:
            begin, seen = time.monotonic(), 0
            while seen < want and time.monotonic() - begin < limit and run.stamps.next(5):
                seen += 1
                if seen in (1, 3, 100):  # the baseline, again once caches are warm
                    first, used, t0 = memory(run.pids()), cpu(run.pids()), time.monotonic()
                    mark = seen
            last, took = memory(run.pids()), time.monotonic() - t0
            zombies = sum(h.state(p)[:1] == ["Z"] for p in h.descendants(run.p.pid))
            rows.append({"contender": c.name, "restarts": seen, "per_s": (seen - mark) / took,
                         "cpu_ms_each": (cpu(run.pids()) - used) * 1e3 / max(1, seen - mark),
                         "rss_growth_kib": last["rss"] - first["rss"],
                         "fd_growth": last["fds"] - first["fds"], "zombies": zombies})
    return rows


# What `make bench` runs: everything that needs no front.
SUPERVISION = ["start_overhead", "footprint", "restart_latency", "ready_flip", "health_throughput",
               "log_relay", "shutdown", "churn"]


def gates(results: dict[str, list[dict]]) -> list[dict]:
    """The promises as ratios: the first bound is the gate, the second the aim."""
    def row(benchmark, contender, **match):
        for r in results.get(benchmark, []):
            if r["contender"] == contender and all(r.get(k) == v for k, v in match.items()):
                return r
        return None

    rows = []

    def judge(promise, value, gate, aim, more_is_better=False, unit=""):
        if value is None or value != value:
            return
        good = (lambda bound: value >= bound) if more_is_better else (lambda bound: value <= bound)
        verdict = "aim" if good(aim) else "gate" if good(gate) else "MISSED"
        rows.append({"promise": promise, "value": f"{value:.3g}{unit}",
                     "gate": f"{'>=' if more_is_better else '<='} {gate:g}{unit}",
                     "aim": f"{'>=' if more_is_better else '<='} {aim:g}{unit}", "reached": verdict})

    def ratio(a, b, key):
        return a[key] / b[key] if a and b and b[key] else None

    us = lambda benchmark, **m: row(benchmark, "panelind", **m)
    judge("start overhead over direct exec / runsv's", ratio(us("start_overhead"), row("start_overhead", "runsv"), "overhead_ms"), 3, 1)
    judge("restart p50, settled / runsv's", ratio(us("restart_latency", worker="settled"), row("restart_latency", "runsv", worker="settled"), "p50_ms"), 1.5, .5)
    judge("restart p50, young / settled: no one-second floor", ratio(us("restart_latency", worker="young"), us("restart_latency", worker="settled") and us("restart_latency", worker="settled"), "p50_ms"), 10, 3)
    flip = us("ready_flip")
    judge("/ready flips after the death, p50", flip and flip["p50_ms"], 2, .3, unit=" ms")
    judge("health CPU per request / nginx's", ratio(us("health_throughput"), row("health_throughput", "nginx"), "cpu_us_per_req"), 1.3, 1.1)
    idle = us("footprint")
    if idle:
        judge("idle wake-ups a second", idle["wakeups_per_s"], 0, 0)
        judge("threads", idle["threads"], 2, 2)
        judge("RSS", idle["rss_kib"] / 1024, 16, 12, unit=" MiB")
        judge("private dirty", idle["dirty_kib"] / 1024, 2, 1, unit=" MiB")
    churned = us("churn")
    if churned:
        judge("restarts a second at delay 0", churned["per_s"], 700, 1000, True)
        judge("RSS growth over the restarts", churned["rss_growth_kib"], 256, 0, unit=" KiB")
        judge("descriptors kept", churned["fd_growth"], 0, 0)
        judge("zombies", churned["zombies"], 0, 0)
    for size in (65536, 200):
        for name in ("panelind", "panelind-text"):
            ours = row("log_relay", name, write_bytes=size)
            if ours:
                what = f"{'json' if name == 'panelind' else 'text'}, {size}-byte writes"
                judge(f"log lines lost ({what})", ours["lost"], 0, 0)
                judge(f"log throughput / s6-log's ({what})", ratio(ours, row("log_relay", "s6-log", write_bytes=size), "MBps"), 1, 2, True)
                if idle:
                    judge(f"log peak RSS growth ({what})", (ours["peak_kib"] - idle["peak_kib"]) / 1024, 8, 8, unit=" MiB")
    return rows


BENCHMARKS = [start_overhead, footprint, restart_latency, ready_flip, health_throughput, proxy,
              crash_under_load, log_relay, shutdown, churn]


def table(rows: list[dict]) -> str:
    keys = list(dict.fromkeys(k for row in rows for k in row))
    show = lambda v: f"{v:.4g}" if isinstance(v, float) and abs(v) < 1e4 else \
        f"{v:.0f}" if isinstance(v, float) else str(v)
    lines = [keys, ["---"] * len(keys)] + [[show(row.get(k, "")) for k in keys] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    names = {b.__name__: b for b in BENCHMARKS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", nargs="*", help=f"all, or some of: {', '.join(names)}")
    parser.add_argument("--only", type=lambda s: s.split(","))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full run counts")
    parser.add_argument("--json", help="append one JSON object per benchmark to this file")
    parser.parse_args(namespace=args)
    if unknown := set(args.benchmark) - {*names, "all"}:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    h.setup()
    results: dict[str, list[dict]] = {}
    try:
        for name in names if "all" in args.benchmark else args.benchmark or SUPERVISION:
            rows, load = names[name](), os.getloadavg()[0]
            print(f"\n## {name} ({time.strftime('%F %T')}, load {load:.1f})\n\n{table(rows)}",
                  flush=True)
            results[name] = rows
            if args.json:
                with open(args.json, "a") as f:
                    print(json.dumps({"benchmark": name, "at": time.time(), "rows": rows}), file=f)
        if summary := gates(results):
            print(f"\n## what was promised ({time.strftime('%F')}, {os.cpu_count()} cores, "
                  f"load {os.getloadavg()[0]:.1f})\n\n{table(summary)}", flush=True)
    finally:
        h.reap()
        shutil.rmtree(h.SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    main()
