"""growth.py: how cost grows with load: requests a second, idle connections, output, restarts. Measured, and drawn into docs/.

Each measure returns rows with `x`; `draw` makes one SVG of them (matplotlib, only here).  Read harness.py before.
"""
import subprocess
import time
from pathlib import Path

import harness as h
from contenders import ALL, free_port
from harness import Run, attempt, contenders, cpu, memory, scaled

COLOURS = {"panelind": "#c2410c", "haproxy": "#2563eb", "nginx": "#15803d", "s6-log": "#2563eb", "cat": "#6b7280",
           "circus": "#2563eb", "supervisord": "#15803d"}
MARKS = {"panelind": "o", "haproxy": "s", "nginx": "^", "s6-log": "s", "cat": "^", "circus": "s", "supervisord": "^"}


def grow_requests():
    """A KiB from one nginx through the proxy at a rate kept by client.c (64 kept connections, times from when a request was due):
    CPU of the proxy as a share of one core, and p99. Medians of two rounds; a point is left out where less than
    97 % of the rate was served.

    Does not show: where a proxy with a core of its own would end; here three programs share the machine.
    """
    rates, seconds, small = [500, 1000, 2000, 4000, 8000, 12000, 16000], h.seconds(2), free_port()
    rates = rates if not h.tiny() else rates[:2]
    rows: list[dict] = []
    with Run(ALL["nginx"], "pause", port=small):
        h.wait_ok(small, "/1k")
        for _, c in h.rounds(contenders("grow-requests"), min(2, h.few())):
            port = free_port()
            with attempt(f"growth, {c.name}"), Run(c, "pause", port=port, worker_port=small) as run:
                h.wait_ok(port, "/1k")
                h.client("rate", port, 1000, .5, 64, "kept", "/1k")
                for rate in rates:
                    pids = run.pids()
                    used, begin = cpu(pids), time.monotonic()
                    got = h.client("rate", port, rate, seconds, 64, "kept", "/1k")
                    rows.append({"contender": c.name, "x": rate, "cpu_percent": (cpu(pids) - used) / seconds * 100,
                                 "p99_ms": got["p99_ms"],
                                 "served": got["ok"] / (rate * max(seconds, time.monotonic() - begin - .1))})
    return [row for row in middle(rows, ("cpu_percent", "p99_ms", "served")) if row["served"] >= .97 or h.tiny()]


def grow_connections():
    """RSS with open connections that have asked once and are idle.

    Does not show: TLS, which costs more than all the rest.
    """
    counts = [0, 250, 500, 1000, 2000, 4000] if not h.tiny() else [0, 50]
    rows, small = [], free_port()
    with Run(ALL["nginx"], "pause", port=small):
        h.wait_ok(small, "/1k")
        for c in contenders("grow-connections"):
            for count in counts:
                port = free_port()
                with attempt(f"growth, {c.name}"), Run(c, "pause", port=port, worker_port=small) as run:
                    h.wait_ok(port, "/1k")
                    p = subprocess.Popen([h.CLIENT, "idle", str(port), str(count), "/1k"], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
                    h.OURS.add(p.pid)
                    opened = int(p.stdout.readline().split()[1])
                    time.sleep(.3)
                    m = memory(run.pids())
                    p.communicate()
                    h.OURS.discard(p.pid)
                    if opened == count:
                        rows.append({"contender": c.name, "x": count, "rss_mib": m["rss"] / 1024, "pss_mib": m["pss"] / 1024})
    return rows


def grow_logs():
    """CPU of the relay as a share of one core while the worker writes lines of 200 bytes, 4 KiB a write, at a rate. panelind makes JSON
    records of them. A point is left out where the rate was not reached.

    Does not show: a disk.
    """
    rates, seconds = ([1, 5, 10, 25, 50, 100, 150] if not h.tiny() else [1, 5]), h.seconds(2)
    rows: list[dict] = []
    for _ in range(min(2, h.few())):
        for rate in rates:
            for c in contenders("grow-logs"):
                path = h.SCRATCH / f"grow-{c.name}"
                try:
                    with attempt(f"growth, {c.name}"), Run(c, "lines", round(rate * 5000 * (seconds + 1)), 200, 4096, rate, log=path) as run:
                        begin = run.stamps.next(10)[2] / 1e9
                        time.sleep(max(0, begin + .1 - time.monotonic()))
                        pids = run.pids()
                        used, at, read = cpu(pids), time.monotonic(), read_bytes(pids)
                        time.sleep(seconds * .8)
                        took = time.monotonic() - at
                        rows.append({"contender": c.name, "x": rate, "cpu_percent": (cpu(pids) - used) / took * 100,
                                     "MBps": (read_bytes(pids) - read) / took / 1e6})
                finally:
                    h.shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return [row for row in middle(rows, ("cpu_percent", "MBps")) if row["MBps"] >= .9 * row["x"] or h.tiny()]


def grow_restarts():
    """RSS and descriptors over the restarts of a worker that exits at once, at the smallest delay that each permits: up to
    5,000, or as many as 25 s allow.

    Does not show: days. The soak test runs longer.
    """
    marks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    want, limit, rows = scaled(5000, 20), scaled(25, 2), []
    for c in contenders("grow-restarts"):
        with attempt(f"growth, {c.name}"), Run(c, "exit", 1) as run:
            begin, seen = time.monotonic(), 0
            while seen < want and time.monotonic() - begin < limit and run.stamps.next(5):
                seen += 1
                if seen in marks:
                    m = memory(run.pids())
                    rows.append({"contender": c.name, "x": seen, "rss_mib": m["rss"] / 1024, "descriptors": h.fewest_descriptors(run)})
    return rows


def read_bytes(pids: list[int]) -> int:
    return sum(int(text.split()[1]) for pid in pids if (text := h.read(f"/proc/{pid}/io")))


def middle(rows: list[dict], keys) -> list[dict]:
    """One row for each contender and x, with medians."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["contender"], row["x"]), []).append(row)
    return [{"contender": name, "x": x} | {key: h.median([row[key] for row in group]) for key in keys}
            for (name, x), group in groups.items()]


# benchmark -> file, title, label of x, whether x is logarithmic, and the panels: key and label of y
PICTURES = {
    "grow_requests": ("growth-requests", "Cost of a proxied request, 1 KiB answers", "requests a second", False,
                      [("cpu_percent", "CPU of the proxy (% of one core)"), ("p99_ms", "p99 (ms)")]),
    "grow_connections": ("growth-connections", "Memory for open idle connections", "open connections", False,
                         [("rss_mib", "RSS (MiB)")]),
    "grow_logs": ("growth-logs", "CPU for the worker's output, lines of 200 bytes", "output (MB a second)", False,
                  [("cpu_percent", "CPU of the relay (% of one core)")]),
    "grow_restarts": ("growth-restarts", "Memory and descriptors over restarts", "restarts so far", True,
                      [("rss_mib", "RSS (MiB)"), ("descriptors", "open descriptors")]),
}


def pivot(name: str, rows: list[dict]) -> list[dict]:
    """One row for each x, one column for each panel and contender."""
    _, _, x_label, _, panels = PICTURES[name]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    by = {(row["x"], row["contender"]): row for row in rows}
    return [{x_label: x} | {f"{n} {key}": by.get((x, n), {}).get(key, "") for key, _ in panels for n in names}
            for x in sorted({row["x"] for row in rows})]


def draw(results: dict[str, list[dict]], docs: Path, caption: str) -> list[str]:
    """Writes the pictures of what was measured, and returns their names."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    matplotlib.rcParams |= {"svg.hashsalt": "panelind", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
                            "axes.grid": True, "grid.color": "#e5e7eb", "figure.facecolor": "white"}
    made = []
    for name, (file, title, x_label, logarithmic, panels) in PICTURES.items():
        rows = results.get(name)
        if not rows:
            continue
        figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.8), squeeze=False, layout="constrained")
        for axis, (key, y_label) in zip(axes[0], panels):
            for contender in dict.fromkeys(row["contender"] for row in rows):
                points = sorted((row["x"], row[key]) for row in rows if row["contender"] == contender)
                axis.plot(*zip(*points), label=contender, color=COLOURS.get(contender), marker=MARKS.get(contender, "o"),
                          markersize=4, linewidth=2 if contender == "panelind" else 1.4)
            if logarithmic:
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:,.0f}"))
            elif max(row["x"] for row in rows) >= 1000:
                axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:,.0f}"))
            axis.set_xlabel(x_label)
            axis.set_ylabel(y_label)
            if key == "p99_ms":     # from a tenth of a millisecond to the queue of a saturated machine
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
                axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            else:
                axis.set_ylim(bottom=0)
        axes[0][0].legend(frameon=False, loc="best")
        figure.suptitle(title, fontsize=12)
        figure.supxlabel(caption, x=.99, ha="right", fontsize=7, color="#6b7280")
        figure.savefig(docs / f"{file}.svg", metadata={"Date": None})
        pyplot.close(figure)
        made.append(f"{file}.svg")
    return made
