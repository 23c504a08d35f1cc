"""promises.py: what panelind promises of speed and cost, as numbers: the first bound is the gate, the second the aim.

Decides which figure of which benchmark answers a promise; ratios are medians of the ratios of each round.  `short`
promises are the README's.  Read bench.py before; report.py writes them down.
"""
from dataclasses import dataclass

from harness import paired


@dataclass
class Promise:
    text: str
    value: float | None             # None: not measured, since it or its peer was not there
    gate: float
    aim: float
    more: bool = False              # more is better
    unit: str = ""
    short: bool = False

    def reached(self) -> str:
        if self.value is None:
            return "not measured"
        good = (lambda bound: self.value >= bound) if self.more else (lambda bound: self.value <= bound)
        return "aim" if good(self.aim) else "gate" if good(self.gate) else "MISSED"

    def row(self) -> dict:
        sign = ">=" if self.more else "<="
        return {"promise": self.text, "value": "" if self.value is None else f"{self.value:.3g}{self.unit}",
                "gate": f"{sign} {self.gate:g}{self.unit}", "aim": f"{sign} {self.aim:g}{self.unit}", "reached": self.reached()}


def promises(results: dict[str, list[dict]]) -> list[Promise]:
    made: list[Promise] = []

    def row(benchmark, contender="panelind", **match):
        return next((r for r in results.get(benchmark, []) if r["contender"] == contender and
                     all(r.get(k) == v for k, v in match.items())), None)

    def figure(key, *where, **match):
        found = row(*where, **match)
        value = found.get(key) if found else None
        # An exit that never came is beyond any gate; a figure that is not there is none.
        return float("inf") if value == "never" else None if value in (None, "") or value != value else value

    def promise(benchmark, text, value, gate, aim, **more):
        if benchmark in results:
            made.append(Promise(text, value, gate, aim, **more))

    promise("crash", "failed GETs, answer not begun, worker killed every second under 200 a second",
            figure("failed", "crash", path="front"), 0, 0, short=True)
    promise("crash", "the longest wait of them beyond the worker's boot",
            figure("wait_over_boot_ms", "crash", path="front"), 100, 25, unit=" ms", short=True)
    promise("crash", "the same where the worker says READY=1",
            figure("wait_over_boot_ms", "crash", "panelind-notify"), 100, 25, unit=" ms")
    promise("crash", "refused or answered with an error over an inherited socket",
            plus(figure("refused", "crash", path="sockets"),
            figure("5xx", "crash", path="sockets")), 0, 0)
    promise("answers", "GETs lost at concurrency 80 with kills in mid-answer, answer not begun",
            figure("lost", "answers"), 0, 0, short=True)
    reloads = row("reload", "panelind-reload")
    counts = [reloads[f"{part}_reloads"] if reloads else 0 for part in ("good", "broken")]
    promise("reload", f"failed requests over {sum(counts)} reloads, {counts[1]} of them broken, under 200 a second",
            sum(v for k, v in reloads.items() if "_failed_" in k) if reloads else None, 0, 0, short=True)
    promise("reload", "good reloads refused and broken ones accepted, of these", reloads and sum(
        reloads[f"{part}_reloads"] - reloads[f"{part}_told"] for part in ("good", "broken")), 0, 0)
    us, haproxy, caddy = row("front"), row("front", "haproxy"), row("front", "caddy")
    promise("front", "CPU per proxied request / haproxy's",
            paired(us, haproxy, "cpu_us_per_req"), 1.6, 1.15, short=True)
    promise("front", "proxied requests a second / haproxy's",
            paired(us, haproxy, "rps"), .65, .9, more=True, short=True)
    promise("front", "proxied requests a second / caddy's", paired(us, caddy, "rps"), 2, 4, more=True)
    promise("front", "p99 at concurrency 80 / haproxy's", paired(us, haproxy, "p99_us"), 2, 1.2)
    promise("front", "PSS under load / haproxy's", paired(us, haproxy, "pss_kib"), 1.5, .5, short=True)
    promise("bodies", "growth of peak memory over 100 MB down and up",
            none_or(figure("peak_growth_kib", "bodies"), 1 / 1024), 8, .25, unit=" MiB")
    promise("health", "CPU per /ready / nginx's `return 200`",
            paired(row("health"), row("health", "nginx"), "cpu_us_per_req"), 1.3, 1.1)
    promise("health", "answers other than 200", figure("errors", "health"), 0, 0)
    promise("start", "start overhead over direct exec / runsv's",
            paired(row("start"), row("start", "runsv"), "overhead"), 3, 1)
    settled, young = row("restart", worker="settled"), row("restart", worker="young")
    promise("restart", "restart after kill -9, p50 / runsv's",
            paired(settled, row("restart", "runsv", worker="settled"), "ms"), 1.5, .5, short=True)
    promise("restart", "restart of a young worker, p50 / of a settled one", paired_p50(young, settled), 10, 3)
    promise("flip", "/ready is not 200 after the worker's death, p50",
            figure("p50_ms", "flip"), 2, .3, unit=" ms", short=True)
    for name, what in (("panelind", ""), ("panelind-all", ", all listeners on")):
        promise("footprint", f"idle wake-ups a second{what}",
                figure("wakeups_per_s", "footprint", name), 0, 0, short=name != "panelind")
    promise("footprint", "threads", figure("threads", "footprint"), 2, 2)
    promise("footprint", "RSS", none_or(figure("rss_kib", "footprint"), 1 / 1024), 16, 12, unit=" MiB")
    promise("footprint", "private dirty memory", none_or(figure("dirty_kib", "footprint"), 1 / 1024), 2, 1, unit=" MiB")
    for key, what in (("idle_ms", "idle worker: exit after SIGTERM"), ("busy_over_ms", "request in flight: exit beyond its end"),
                      ("ignoring_over_ms", "worker that ignores SIGTERM: exit beyond the grace")):
        promise("stop", f"stop, {what}", figure(key, "stop"), 50, 10, unit=" ms", short=key.startswith("ignoring"))
    promise("stop", "stop, processes left and requests unanswered",
            plus(figure("left", "stop"), figure("unanswered", "stop")), 0, 0)
    promise("churn", "restarts a second at delay 0", figure("per_s", "churn"), 700, 1000, more=True)
    promise("churn", "RSS growth over them", figure("rss_growth_kib", "churn"), 256, 0, unit=" KiB")
    promise("churn", "descriptors and zombies kept over them",
            plus(figure("fd_growth", "churn"), figure("zombies", "churn")), 0, 0)
    for size, what in ((65536, "64 KiB writes"), (200, "a write per line")):
        for name, form in (("panelind", "JSON"), ("panelind-text", "text")):
            ours, s6 = row("log", name, write_bytes=size), row("log", "s6-log", write_bytes=size)
            short = (size, name) == (65536, "panelind")
            promise("log", f"log lines lost ({form}, {what})", figure("lost", "log", name, write_bytes=size), 0, 0)
            promise("log", f"log throughput / s6-log's ({form}, {what})",
                    paired(ours, s6, "MBps"), 1.5, 2, more=True, short=short)
            promise("log", f"log CPU per GB / s6-log's ({form}, {what})", paired(ours, s6, "cpu"), .6, .4)
        if row("footprint"):
            peak, idle = figure("peak_kib", "log", write_bytes=size), figure("peak_kib", "footprint")
            promise("log", f"log peak RSS growth (JSON, {what})",
                    none_or(peak and peak - idle, 1 / 1024), 8, 8, unit=" MiB")
    quiet, flooded, paced = (figure(f"{kind}_p99_ms", "flood") for kind in ("silent", "flooded", "paced"))
    control = next((r for r in results.get("flood", []) if r["contender"].startswith("nginx")), {}).get("paced_p99_ms")
    promise("flood", "/health p99 under a flood of output, beyond that with a silent worker",
            plus(flooded, quiet, -1), 5, 1, unit=" ms")
    promise("flood", "/health p99 under 50 MB of output a second / nginx's beside s6-log",
            none_or(paced, 1 / control) if control else None, 1.5, 1)
    return made


def none_or(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def plus(a: float | None, b: float | None, factor: float = 1) -> float | None:
    return None if a is None or b is None else a + b * factor


def paired_p50(a: dict | None, b: dict | None) -> float | None:
    return a["p50_ms"] / b["p50_ms"] if a and b and a["kills"] and b["kills"] else None
