"""serving.py: the benchmarks of what a client sees: health, front, bodies, crash, answers, reload.

Requests through proxies are driven by wrk (as fast as they are answered) or by client.c (at a rate, each judged).
Read harness.py before; client.c has the kinds of failure.
"""
import http.client
import socket
import time
from statistics import median

import harness as h
from contenders import ALL, free_port
from harness import Run, attempt, contenders, installed, memory, rounds, scaled, seconds
from reloads import RELOADS

BOOT = 300                          # ms that the worker of crash and answers needs to listen


def loaded_rows(rates: dict[str, dict], base: str) -> list[dict]:
    """Medians over the rounds, each contender's rate against the base of the same round, and how far the rounds spread."""
    rows = []
    for name, got in rates.items():
        if not got:
            continue
        row = {"contender": name} | {k: median([g[k] for g in got.values()]) for k in next(iter(got.values()))}
        row["_rounds"] = got
        rows.append(row)
    reference = next((row for row in rows if row["contender"] == base), None)
    for row in rows:
        row[f"rps_of_{base}"] = h.paired(row, reference, "rps") or ""
        row["rps_spread"] = h.spread([g["rps"] for g in row["_rounds"].values()])
    return rows


def health():
    """wrk -t1 -c64 on the health endpoint, answered from memory; nginx `return 200` is the ceiling. Errors are answers other
    than 200.

    Does not show: a rate that a health check has; it is the cost of one answer. Client and contender share the cores.
    """
    rates = {c.name: {} for c in contenders("health")}
    for n, c in rounds(contenders("health"), scaled(4, 1)):
        port = free_port()
        with attempt(f"health, {c.name}"), Run(c, "pause", port=port) as run:
            h.wait_ok(port, c.health)
            url = f"http://127.0.0.1:{port}{c.health}"
            h.wrk(url, 64, seconds(1))       # warm up
            rates[c.name][n] = h.loaded(run, url, 64, seconds(4))
    return loaded_rows(rates, "nginx")


def front():
    """A KiB from one nginx through each proxy, wrk -t1 -c80, connections kept on both sides, PSS at 80 % of the run.
    `haproxy-headers` sets the headers that panelind always sets; the gates compare with plain haproxy.

    Does not show: TLS, HTTP/2, or a network. Client, proxy and upstream share the cores, so that `rps_of_direct` cannot reach 1
    and p99 is that of a saturated machine; CPU per request is the firm figure.
    """
    field, small = contenders("proxy"), free_port()
    rates: dict[str, dict] = {"direct": {}} | {c.name: {} for c in field}
    with Run(ALL["nginx"], "pause", port=small) as upstream:
        h.wait_ok(small, "/1k")
        for n, c in rounds([None, *field], scaled(5, 1)):
            with attempt(f"front, {c.name if c else 'direct'}"):
                if c is None:
                    url = f"http://127.0.0.1:{small}/1k"
                    h.wrk(url, 80, seconds(1))
                    rates["direct"][n] = h.loaded(upstream, url, 80, seconds(5))
                    continue
                port = free_port()
                with Run(c, "pause", port=port, worker_port=small) as run:
                    h.wait_ok(port, "/1k")
                    url = f"http://127.0.0.1:{port}/1k"
                    h.wrk(url, 80, seconds(1))  # warm up
                    rates[c.name][n] = h.loaded(run, url, 80, seconds(5))
    return loaded_rows(rates, "direct")


def bodies():
    """100 MB down and up through each proxy, one transfer each, and how far the proxy's peak memory grew.

    Does not show: the highest throughput, for the client is Python; the memory is firm.
    """
    rows, large, size = [], free_port(), scaled(100, 5) * 1_000_000
    with Run(ALL["direct"], "http", large):
        h.wait_port(large)
        for c in [None, *contenders("proxy")]:
            if c is None:
                rows.append({"contender": "direct", "down_MBps": body(large, size, False), "up_MBps": body(large, size, True)})
                continue
            port = free_port()
            with attempt(f"bodies, {c.name}"), Run(c, "pause", port=port, worker_port=large) as run:
                h.wait_ok(port, "/1k")
                idle = memory(run.pids())["peak"]
                rows.append({"contender": c.name, "down_MBps": body(port, size, False), "up_MBps": body(port, size, True),
                             "peak_growth_kib": memory(run.pids())["peak"] - idle})
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
    finally:
        con.close()
    ok = reply.status == 200 and (up or got == size)
    return size / 1e6 / (time.monotonic() - begin) if ok else 0


def serving(c, how: str):
    """Runs that serve one booting worker: through its own port (crash), an inherited socket, or a front; and where."""
    web, port = free_port(), free_port()
    if how == "sockets":
        listener = socket.create_server(("127.0.0.1", web), backlog=1024)
        run = Run(c, "http", "fd:3", BOOT, listener=listener)
        listener.close()            # from now on only the contender holds it
        return [run], web
    if how == "front" and c.name.startswith("panelind"):  # supervisor and proxy in one
        return [Run(c, "http", web, BOOT, port=port, worker_port=web)], port
    run = Run(c if how == "crash" else ALL["s6-supervise"], "http", web, BOOT)
    return ([run, Run(c, "pause", port=port, worker_port=web)], port) if how == "front" else ([run], web)


def can_serve(c, how: str) -> bool:
    """A proxy alone restarts nothing."""
    return how != "front" or c.name.startswith("panelind") or any(s.name == "s6-supervise" for s in installed("crash"))


def kill_every_second(run: Run, load: h.Client, length: int) -> int:
    """From half a second on; where no replacement runs yet, none is killed."""
    stamp, kills = run.stamps.latest(10), 0
    for n in range(length):
        # Not always at the same distance from a request that is due, each 5 ms.
        time.sleep(max(0, load.begin + n + 0.5 + n * 0.37 % 1 * 0.005 - time.monotonic()))
        stamp = run.stamps.latest(0.001) or stamp
        kills += bool(stamp) and h.kill(stamp[1])
    return kills


def crash():
    """200 GETs a second on fresh connections, 2 ms each, while the worker, which boots in 300 ms, is killed every second.
    crash: the client connects to the worker's own port. sockets: the worker inherits the listening socket. front: a proxy
    before a worker that s6-supervise restarts; panelind is both, with restart.delay 0. wait_over_boot is the longest wait less 300 ms.
    `panelind-notify` has a worker that says READY=1; `panelind` finds out by asking every 100 ms. begun: answers cut off
    behind their first byte, which none can save; failed and cut are without them.

    Does not show: a default backoff, which waits longer with every failure in a row. Fewer kills: no replacement was up yet.
    """
    rows, length = [], scaled(10, 1)
    for c, how in [(c, how) for how in ("crash", "sockets", "front") for c in contenders(how) if can_serve(c, how)]:
        runs: list[Run] = []
        with attempt(f"crash, {c.name} ({how})"):
            try:
                runs, port = serving(c, how)
                h.wait_port(port)
                h.wait_ok(port, "/slow?2")
                h.settle(1.2)
                load = h.Client("rate", port, 200, length, 500, "fresh", "/slow?2")
                kills = kill_every_second(runs[0], load, length)
                got = load.result()
                rows.append({"contender": c.name, "path": how, "kills": kills, "requests": got["requests"],
                             "failed": got["requests"] - got["ok"] - got["cut_begun"], "refused": got["refused"],
                             "cut": got["cut"], "begun": got["cut_begun"], "5xx": got["e5xx"], "p99_ok_ms": got["p99_ms"],
                             "max_ms": got["max_ms"], "wait_over_boot_ms": got["max_ms"] - BOOT})
            finally:
                [each.stop() for each in reversed(runs)]
    return rows


def answers():
    """80 clients without pause, every fourth request a POST, answers in two halves 30 ms apart, the worker killed every second
    in the midst of them. lost: GETs that failed although no byte of an answer had come, which a front could have saved;
    closed: those of them where a kept connection was closed without a word, as haproxy does, so that the client asks again.
    begun: answers cut off behind their first byte, which none can save. post: POSTs that failed, which none may repeat.

    Does not show: whether a POST ran twice; the tests do (Tests/EndToEnd/test_front_crash.py).
    """
    rows, length = [], scaled(10, 1)
    for c in [c for c in contenders("answers") if can_serve(c, "front")]:
        runs: list[Run] = []
        with attempt(f"answers, {c.name}"):
            try:
                runs, port = serving(c, "front")
                h.wait_ok(port, "/slow?2")
                h.settle(1.2)
                load = h.Client("closed", port, length, 80, "kept", "/parts?20,30", "mixed")
                kills = kill_every_second(runs[0], load, length)
                got = load.result()
                posts = sum(n for kind, n in got.items() if kind.startswith("post_") and kind != "post_ok")
                rows.append({"contender": c.name, "kills": kills, "requests": got["requests"],
                             "lost": sum(got[kind] for kind in ("refused", "stale", "cut", "e5xx", "other")),
                             "closed": got["stale"],
                             "begun": got["cut_begun"], "post": posts, "post_begun": got["post_cut_begun"],
                             "max_ok_ms": got["max_ok_ms"]})
            finally:
                [each.stop() for each in reversed(runs)]
    return rows


def reload():
    """Reloads under 200 requests a second (half of them on fresh connections, half on kept ones, every fourth a POST): 15 to good
    settings, then 5 to broken ones. panelind, uvicorn and gunicorn replace the worker; nginx, haproxy and caddy replace only
    themselves or their settings, before a worker that stays. failed: requests, in the good and the broken part.

    Does not show: uvicorn and gunicorn have no check of new code, so that their broken part shows what a supervisor is for.
    """
    rows, part = [], scaled(15)
    for c in contenders("reload"):
        how, web, port = RELOADS[c.name], free_port(), free_port()
        with attempt(f"reload, {c.name}"), Run(ALL["direct"], "http", web) as own, \
                Run(c, "http", web, port=port, worker_port=web) as run:
            h.wait_port(web)
            h.wait_ok(port, "/x", 20)
            h.settle(1)
            row = {"contender": c.name, "replaces": how.replaces}
            for name, count, good in (("good", part, True), ("broken", max(1, part // 3), False)):
                length, told, took = count * 0.8 + 0.7, 0, []
                loads = [h.Client("rate", port, 100, length, 100, each, "/slow?2", "mixed") for each in ("fresh", "kept")]
                for n in range(count):
                    time.sleep(max(0, loads[1].begin + n * 0.8 + 0.3 - time.monotonic()))
                    at = time.monotonic()
                    if run.p.poll() is None:
                        told += how.ask(run, n + (0 if good else 100), good) is good
                        took.append((time.monotonic() - at) * 1e3)
                for kind, load in zip(("fresh", "kept"), loads):
                    got = load.result()
                    asked = got["requests"]
                    row[f"{name}_failed_{kind}"] = asked - got["ok"] - got["post_ok"]
                    row[f"{name}_max_ms"] = max(row.get(f"{name}_max_ms", 0), got["max_ms"])
                    row["requests"] = row.get("requests", 0) + asked
                row[f"{name}_reloads"] = len(took)
                if how.replaces == "worker" or told:
                    row[f"{name}_told"] = told
                    row[f"{name}_took_ms"] = median(took) if took else ""
            row["alive"] = "yes" if run.p.poll() is None else "no"
            rows.append(row)
    return rows
