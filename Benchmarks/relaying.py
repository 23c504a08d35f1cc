"""relaying.py: the benchmarks of the worker's output: log (throughput, CPU, losses) and flood (/health beside it).

Read harness.py before; the relays are in contenders.py.
"""
import os
import shutil
import time
from pathlib import Path
from statistics import median

import harness as h
from contenders import ALL, Contender, Launch, free_port
from harness import Run, attempt, contenders, cpu, memory, rounds, scaled


def log():
    """Lines of 200 bytes from the worker to a file in memory: 300 MB by writes of 64 KiB, 100 MB by one write
    per line, three rounds (fewer below `--scale 0.6`).
    `panelind` wraps each line as a JSON record, `panelind-text` passes it; s6-log, svlogd, multilog and cat write it as it is.
    With one write per line the writer's system calls are the ceiling.

    Does not show: a disk, or a sink that is slower than the worker.
    """
    rows = []
    for chunk, count in ((65536, 1_500_000), (200, 500_000)):
        got: dict[str, dict] = {c.name: {} for c in contenders("log")}
        lines = scaled(count, 20_000)
        for n, c in rounds(contenders("log"), h.few()):
            with attempt(f"log, {c.name}"):
                got[c.name][n] = relayed(c, lines, chunk)
        for name, by_round in got.items():
            if by_round:
                values = list(by_round.values())
                rows.append({"contender": name, "write_bytes": chunk, "GB": lines * 200 / 1e9,
                             "MBps": median(v["MBps"] for v in values), "cpu_s_per_GB": median(v["cpu"] for v in values),
                             "lost": max(v["lost"] for v in values), "peak_kib": max(v["peak"] for v in values),
                             "MBps_spread": h.spread([v["MBps"] for v in values]), "_rounds": by_round})
    return rows


def relayed(c, lines: int, chunk: int) -> dict:
    path = h.SCRATCH / f"log-{c.name}"
    try:
        with Run(c, "lines", lines, 200, chunk, log=path) as run:
            begin = run.stamps.next(10)[2] / 1e9
            last, end = b"", time.monotonic()  # done at the marker, or when all is still
            while time.monotonic() - end < 3:
                if (now := tail_of(path)) != last:
                    last, end = now, time.monotonic()
                if b"END-OF-STREAM" in now:
                    break
                time.sleep(0.005)
            pids = run.pids()
            used, m = cpu(pids), memory(pids)
        found = sum(b"LINE 0" in line for f in log_files(path) for line in open(f, "rb"))
    finally:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return {"MBps": found * 200 / 1e6 / (end - begin), "cpu": used / (lines * 200 / 1e9), "lost": lines - found, "peak": m["peak"]}


def log_files(path):
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(f for f in path.iterdir() if f.name[0] in "@c" and f.name != "config")


def tail_of(path) -> bytes:
    try:
        with open(log_files(path)[-1], "rb") as f:  # "current" sorts behind "@..."
            f.seek(max(0, os.fstat(f.fileno()).st_size - 512))
            return f.read()
    except (IndexError, FileNotFoundError):  # not there yet, or just rotated
        return b""


def flood():
    """/health, asked 200 times a second over four kept connections, while the worker is silent, while it writes 50 MB a second
    (4 KiB a write), and while it writes as fast as it is read. The control is nginx, which has nothing to do with the output that
    s6-log relays beside it: what nginx loses is the machine's, for a writer without pause takes a core. panelind makes JSON records.

    Does not show: a machine with a core to spare, where both are flat.
    """
    rows, length = [], h.seconds(4)
    for c in contenders("flood"):
        beside = "" if c.name == "panelind" else f" beside {'s6-log' if bounded_s6_log() else 'cat'}"
        row = {"contender": c.name + beside}
        by: dict[str, list[dict]] = {"silent": [], "paced": [], "flooded": []}
        for _ in range(h.few()):
            for kind, mode in (("silent", ["pause"]), ("paced", ["lines", 1 << 40, 200, 4096, 50]),
                               ("flooded", ["lines", 1 << 40, 200, 4096])):
                with attempt(f"flood, {c.name}"):
                    by[kind].append(asked_beside(c, mode, length))
        for kind, got in by.items():
            for key in ("p50_ms", "p99_ms", "max_ms"):
                row[f"{kind}_{key}"] = median(g[key] for g in got) if got else ""
        for kind in ("paced", "flooded"):
            row[f"{kind}_MBps"] = median(g["MBps"] for g in by[kind]) if by[kind] else ""
        row["failed"] = sum(g["requests"] - g["ok"] for got in by.values() for g in got)
        rows.append(row)
    return rows


def asked_beside(c, mode: list, length: float) -> dict:
    """The client's view of the health endpoint, and how much was relayed meanwhile."""
    port, path, runs = free_port(), h.SCRATCH / "flood", []
    try:
        if c.name == "panelind":    # the sink costs nothing, so that the flood is as strong as it can be
            runs.append(Run(c, *mode, port=port, log=Path("/dev/null")))
            written = runs[0]
        else:
            runs.append(Run(c, "pause", port=port))
            relay = bounded_s6_log() or ALL["cat"]
            written = Run(relay, *mode, log=path if relay.name != "cat" else Path("/dev/null"))
            runs.append(written)
        h.wait_ok(port, "/health")
        h.settle(1.1)
        before = read_so_far(written)
        load = h.Client("rate", port, 200, length, 4, "kept", "/health")
        got = load.result()
        return got | {"MBps": (read_so_far(written) - before) / 1e6 / (length + 0.05)}
    finally:
        [run.stop() for run in runs]
        shutil.rmtree(path, ignore_errors=True)


def bounded_s6_log() -> Contender | None:
    """s6-log that keeps 32 MB: a flood of seconds is gigabytes."""
    return Contender("s6-log-bounded", "s6-log", [], lambda job: Launch(
        ["s6-log", "n1", "s16777215", str(job.log)], stdin_worker=True)) if shutil.which("s6-log") else None


def read_so_far(run: Run) -> int:
    """Bytes that the contender's own processes have read."""
    return sum(int(text.split()[1]) for pid in run.pids() if (text := h.read(f"/proc/{pid}/io")))
