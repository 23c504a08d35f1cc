#!/usr/bin/env python3
"""bench.py: side-by-side benchmarks of panelind, supervisors, front proxies and relays of output; see README.md.

    python3 bench.py [BENCHMARK...] [--only NAME,NAME] [--scale F] [--json FILE] [--from FILE] [--report]

Without a name: all of them. Prints each table, then what was promised. Read harness.py, then the benchmarks' files.
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path

import growth
import harness as h
import relaying
import report
import serving
import supervision
from promises import promises

BENCHMARKS = {b.__name__: b for b in (
    serving.crash, serving.answers, serving.reload, serving.front, serving.bodies, serving.health, supervision.start,
    supervision.restart, supervision.flip, supervision.footprint, supervision.stop, supervision.churn, relaying.log,
    relaying.flood, growth.grow_requests, growth.grow_connections, growth.grow_logs, growth.grow_restarts)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", nargs="*", help=f"some of: {', '.join(BENCHMARKS)}; all without")
    parser.add_argument("--only", type=lambda s: s.split(","), help="only these contenders")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full run's lengths and counts")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--from", dest="source", type=Path, help="measure nothing; take what --json wrote")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md, the pictures and the README's table")
    args = parser.parse_args()
    if unknown := set(args.benchmark) - {*BENCHMARKS}:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    return args


def measure(args: argparse.Namespace) -> dict:
    """Runs the benchmarks, and prints each table when it is there."""
    h.setup(args.scale, args.only)
    h.TROUBLE += report.others_running()
    began = time.monotonic()
    run = {"date": time.strftime("%F"), "scale": args.scale, "machine": report.about_machine(), "versions": report.versions(),
           "results": {}, "trouble": h.TROUBLE, "baseline": h.BASELINE}
    try:
        for name in args.benchmark or BENCHMARKS:
            h.sample_baseline()
            begin, load = time.monotonic(), os.getloadavg()[0]
            rows = BENCHMARKS[name]()
            run["results"][name] = rows
            print(f"\n## {name} ({time.strftime('%F %T')}, {time.monotonic() - begin:.0f} s, load before {load:.1f})\n\n"
                  f"{report.table(report.shaped(name, rows))}", flush=True)
            run |= {"minutes": (time.monotonic() - began) / 60}
            run["machine"]["ticks_after"] = report.ticks()
            if args.json:           # after each, so that an interrupted run is not lost
                args.json.write_text(json.dumps(run))
    finally:
        h.reap()
    return run


def main() -> None:
    args = parse()
    run = json.loads(args.source.read_text()) if args.source else measure(args)
    print(f"\n## what was promised ({run['date']}, {run['machine']['cores']} cores, load {run['machine']['load']:.1f} before)\n\n"
          f"{report.table([p.row() for p in promises(run['results'])])}\n\nnoise: {report.noise(run['machine'], run['baseline'])}")
    for line in run["trouble"]:
        print(f"trouble: {line}", file=sys.stderr)
    if args.report:
        for path in report.write(run, BENCHMARKS):
            print(f"wrote {path.relative_to(report.ROOT)}")


if __name__ == "__main__":
    main()
