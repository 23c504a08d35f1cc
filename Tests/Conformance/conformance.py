#!/usr/bin/env python3
# conformance.py
# Runs every case against panelind in all its places and against its peers, and prints the table as Markdown.
# Read cases.py for the promises, contenders.py for how each is started. `make conformance` runs it.

import argparse
import concurrent.futures
import datetime
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "EndToEnd"))

import cases  # noqa: E402
import life  # noqa: E402,F401  (the order of the table)
import fronts  # noqa: E402,F401
from contenders import Panelind, Run  # noqa: E402
from peers import Init, Monit, Runit, S6, Supervisord  # noqa: E402
from places import PLACES  # noqa: E402
from proxies import Caddy, Haproxy, Nginx  # noqa: E402

PEERS = {
    one.name: one for one in [
        Init("tini", "-s", "-g", "--"), Init("dumb-init", "--"), Init("catatonit", "-g", "--"),
        Runit(), S6(), Supervisord(), Monit(), Nginx(), Haproxy(), Caddy(),
    ]
}

YES, NO, NONE = "yes", "no", "—"
OWN = "panelind "


class Bed:
    """What a case sees of one contender: a directory, and supervisors started in it."""

    def __init__(self, contender, place, directory):
        self.contender, self.place, self.base = contender, place, directory
        self.runs = []

    def __truediv__(self, name):
        return self.base / name

    def directory(self, name):
        return self.base

    def start(self, want):
        run = Run(self.contender, self.place, want, self.base)
        self.runs.append(run)
        return run.start()

    def clean_up(self):
        for run in self.runs:
            run.clean_up()


def columns(only):
    """title -> (contender, place)"""
    found = {OWN + place.name: (Panelind(), key) for key, place in PLACES.items()}
    found |= {name: (peer, peer.place) for name, peer in PEERS.items()}
    if only:
        found = {title: one for title, one in found.items() if any(word in (title, title.split(" ")[0]) for word in only)}
    return {
        title: (contender, place) for title, (contender, place) in found.items()
        if contender.is_there() and getattr(PLACES[place], "is_there", lambda: True)()
    }


def try_case(case, title, contender, place, base):
    """(verdict, what was observed)"""
    if not case.needs <= contender.can:
        return NONE, ""
    if case.as_first and place == "process" and title in PEERS:
        place = "pid1"
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{case.name}-", dir=base))
    directory.chmod(0o777)
    bed = Bed(contender, PLACES[place], directory)
    try:
        case.run(bed)
        return YES, ""
    except cases.Failed as failure:
        return NO, str(failure)
    except cases.Unseen:
        return NONE, ""
    except Exception as error:  # a fault of the kit must not end the run, and is no `yes`
        return NO, f"{type(error).__name__}: {error}"[:200]
    finally:
        if os.environ.get("CONFORMANCE_KEEP"):
            print(f"{title} {case.name}: {directory}", file=sys.stderr)
        bed.clean_up()
        end_all(directory)
        if not os.environ.get("CONFORMANCE_KEEP"):
            shutil.rmtree(directory, ignore_errors=True)


def end_all(directory):
    """Whoever has this run's directory on the command line or in the environment is its own to end.

    panelind is ended by KILL here, and a descendant that holds a listener has a command line without the directory.
    """
    mine = str(directory).encode()
    for _ in range(50):
        left = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                place = pathlib.Path("/proc", name)
                if int(name) != os.getpid() and any(mine in (place / it).read_bytes() for it in ("cmdline", "environ")):
                    left.append(int(name))
            except OSError:
                pass
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.02)


def table(chosen, titles, results):
    """Markdown, with a number at each `no`, and the notes."""
    notes, lines = [], []
    lines.append("| promise | " + " | ".join(titles) + " |")
    lines.append("|---|" + "---|" * len(titles))
    group = None
    for case in chosen:
        if case.group != group:
            group = case.group
            lines.append(f"| **{group}** |" + " |" * len(titles))
        cells = []
        for title in titles:
            verdict, observed = results[case.name, title]
            if verdict == NO:
                note = f"{title}, {case.promise}: {observed}."
                notes.append(note)
                verdict = f"no ({len(notes)})"
            cells.append(verdict)
        lines.append(f"| {case.promise} | " + " | ".join(cells) + " |")
    return lines, [f"{number}. {note}" for number, note in enumerate(notes, 1)]


def own_columns(text):
    """promise -> verdicts of panelind's columns, of a table in a document."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    head = rows[0]
    places = [i for i, title in enumerate(head) if title.startswith(OWN.strip())]
    return {(row[0], head[i]): row[i].split(" ")[0] for row in rows[1:] for i in places if len(row) == len(head) and row[i]}


def versions(titles):
    packages = {"runit": "runit", "s6": "s6", "monit": "monit", "tini": "tini", "dumb-init": "dumb-init",
                "catatonit": "catatonit", "nginx": "nginx-light", "haproxy": "haproxy", "caddy": "caddy",
                OWN + "container": "runc", OWN + "gVisor": "runsc"}
    found = []
    for title in titles:
        if package := packages.get(title):
            done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
            found.append(f"{package} {done.stdout or '?'}")
    if "supervisord" in titles:
        done = subprocess.run([PEERS["supervisord"].program, "--version"], capture_output=True, text=True)
        found.append(f"supervisord {done.stdout.strip()}")
    return ", ".join(found)


def main():
    parser = argparse.ArgumentParser(description="Black-box promises, against panelind and its peers.")
    parser.add_argument("--only", action="append", help="a column, as `panelind PID 1` or `runit`; `panelind` is all of its")
    parser.add_argument("--case", action="append", help="a case by its name; see --list")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=6, help="cases side by side; most of their time is waiting")
    parser.add_argument("--write", action="store_true", help="write docs/evidence/conformance.md and the README's table")
    parser.add_argument("--compare", action="store_true", help="fail where panelind differs from docs/evidence/conformance.md")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{case.name:22} {case.promise}" for case in cases.ALL))
        return 0
    chosen = [case for case in cases.ALL if not arguments.case or case.name in arguments.case]
    found = columns(arguments.only)
    results, begin = {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pc-", dir="/tmp") as base:
        os.chmod(base, 0o755)
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            jobs = {pool.submit(try_case, case, title, *one, base): (case, title)
                    for case in chosen for title, one in found.items()}
            for job in concurrent.futures.as_completed(jobs):
                case, title = jobs[job]
                results[case.name, title] = job.result()
                if job.result()[0] == NO:
                    print(f"  no: {title}: {case.name}: {job.result()[1]}", file=sys.stderr, flush=True)
        # A peer's `no` counts if it comes again without others beside it; panelind's counts at once.
        for (name, title), (verdict, _) in list(results.items()):
            if verdict == NO and title in PEERS:
                case = next(case for case in chosen if case.name == name)
                results[name, title] = try_case(case, title, *found[title], base)
        for place in PLACES.values():
            getattr(place, "close", lambda: None)()
    titles = list(found)
    lines, notes = table(chosen, titles, results)
    print("\n".join(lines), *(["", *notes] if notes else []), sep="\n")
    count = sum(verdict != NONE for verdict, _ in results.values())
    print(f"\n{len(chosen)} promises, {count} runs in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    own = [(name, title) for (name, title), (verdict, _) in results.items() if verdict == NO and title.startswith(OWN)]
    evidence = ROOT / "docs/evidence/conformance.md"
    if arguments.write:
        evidence.parent.mkdir(parents=True, exist_ok=True)
        preface = (HERE / "preface.md").read_text()
        date = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, {versions(titles)}."
        evidence.write_text("\n".join([preface, date, "", *lines, "", *notes, ""]))
        readme = (ROOT / "README.md").read_text()
        readme = re.sub(r"(<!-- conformance -->\n).*?(<!-- /conformance -->)",
                        lambda found: found[1] + "\n".join(lines) + "\n" + found[2], readme, flags=re.S)
        (ROOT / "README.md").write_text(readme)
    if arguments.compare:
        said = own_columns(evidence.read_text())
        seen = own_columns("\n".join(lines))
        for key, verdict in seen.items():
            if said.get(key) != verdict:
                print(f"{key[1]}, {key[0]}: {verdict}; docs/evidence/conformance.md says {said.get(key)}", file=sys.stderr)
                own.append(key)
    return 1 if own else 0


if __name__ == "__main__":
    sys.exit(main())
