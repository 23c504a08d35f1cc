#!/usr/bin/env python3
# soak.py
# Minutes of traffic and chaos on the built binary with the example agent; ends with a table and 0, or 1 if a rule was broken.
# Read book.py for the rules, chaos.py for what is done; `make soak MINUTES=n SEED=n` runs it.

import argparse
import asyncio
import datetime
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "EndToEnd"))

from harness import Daemon, binaries, free_port, http  # noqa: E402
from book import Book, Log, Samples, twice  # noqa: E402
from chaos import Chaos, Clock, agent_command, zombies  # noqa: E402
from stops import BUDGET, SITUATIONS, Trial  # noqa: E402
from traffic import Traffic  # noqa: E402

# What may come on top in the last tenth: pages that an allocator keeps, a descriptor of a connection in progress.
MEMORY, DESCRIPTORS = 2 << 20, 4


class Soak:
    def __init__(self, minutes, seed, directory, acts=None):
        self.minutes, self.seed, self.directory, self.acts = minutes, seed, directory, acts
        self.records = directory / "records"
        self.records.mkdir()
        self.port, self.sidecar = free_port(), free_port()
        self.environment = {"AGENT_TESTING": "1", "SOAK_RECORDS": str(self.records), "PYTHONDONTWRITEBYTECODE": "1"}
        self.clock = Clock(directory)
        read, write = os.pipe()
        self.write_end = write
        self.log = Log(read)
        self.daemon = Daemon(
            directory,
            command=agent_command(),
            settings={
                "serve.listen": f"127.0.0.1:{self.port}", "sidecar.listen": f"127.0.0.1:{self.sidecar}",
                "control.path": "c.sock", "log.format": "json", "log.buffer": "1MiB",
                "worker.environment": self.environment,
                "probe.liveness": {"http": "/health", "period": "1s", "timeout": "2s", "failures": 3},
                "restart.delay": "100ms", "restart.maxDelay": "1s", "restart.permanentExitCodes": [],
                # What a hung worker gets between its signal and KILL: with the rest of the budget a start behind it
                # would come later than the hold allows.
                "stop.grace": "3s",
            },
            environment=self.clock.environment,
            stdout=write,
            start_new_session=True,
            wrapper=["setpriv", "--pdeathsig", "TERM"],
        )
        self.book, self.samples = Book(), Samples()
        self.wrong = []
        self.interrupted = asyncio.Event()

    async def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.interrupted.set)
        self.log.start()
        self.daemon.start()
        os.close(self.write_end)
        traffic = Traffic(self.port, self.book)
        chaos = self.chaos = Chaos(self.daemon, traffic, self.book, self.log, self.records, self.clock, self.seed,
                                   self.acts)
        while not chaos.socket.exists():
            if self.daemon.popen.poll() is not None:
                raise SystemExit(f"panelind has ended: {self.daemon.stderr}")
            await asyncio.sleep(0.02)
        await chaos.ready()
        clients = [asyncio.create_task(client) for client in traffic.clients()]
        self.begin = time.monotonic()
        end = self.begin + self.minutes * 60
        watch = asyncio.create_task(self.watch())
        acts = asyncio.create_task(chaos.run(lambda: end))
        interruption = asyncio.create_task(self.interrupted.wait())
        await asyncio.wait([acts, interruption], return_when=asyncio.FIRST_COMPLETED)
        # The traffic goes on to the end of the time, and for a moment after the last act.
        while time.monotonic() < end and not self.interrupted.is_set():
            await asyncio.sleep(0.1)
        chaos.over.set()
        await acts
        await asyncio.sleep(0.5)
        traffic.over.set()
        await asyncio.gather(*clients)
        self.seconds = time.monotonic() - self.begin
        watch.cancel()
        interruption.cancel()
        self.status = (await chaos.ask("/v1/status"))[1]
        await self.finish()
        self.trials = []
        if not self.interrupted.is_set():
            await asyncio.to_thread(self.try_stops)

    async def watch(self):
        """Once a second: resources, and zombies that stay."""
        before = set()
        shown = 0
        while True:
            await asyncio.sleep(1)
            if self.chaos.frozen:
                before = set()
                continue
            try:
                self.samples.take(self.daemon.pid)
                if self.chaos.warm.is_set():
                    self.samples.warm()
                now = zombies(self.daemon.pid)
            except OSError as error:
                self.wrong.append(f"panelind is gone: {error}")
                return self.interrupted.set()
            if stay := now & before:
                self.wrong.append(f"zombies for a second: {sorted(stay)}")
            before = now
            if len(self.samples.rows) // 30 > shown:
                shown = len(self.samples.rows) // 30
                acts, asked = sum(map(len, self.chaos.done.values())), sum(self.book.counts.values())
                print(f"  {time.monotonic() - self.begin:.0f} s: {asked} requests, {acts} acts, "
                      f"RSS {self.samples.rows[-1][0] / 2**20:.1f} MiB", flush=True)

    async def finish(self):
        """The lines that are under way, then the stop, then what is left."""
        end = time.monotonic() + 10
        while self.log.account(self.records)[0] > self.log.account(self.records)[1] and time.monotonic() < end:
            await asyncio.sleep(0.1)
        metrics = (await asyncio.to_thread(http, self.sidecar, "/metrics")).body.decode()
        self.metrics = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
        begin = time.monotonic()
        self.code = await asyncio.to_thread(self.daemon.stop, signal.SIGTERM, 60)
        self.stopped_in = time.monotonic() - begin
        self.log.join(5)
        self.left = self.daemon.survivors()

    def try_stops(self):
        for number, situation in enumerate(SITUATIONS):
            if self.interrupted.is_set():
                return
            trial = Trial(self.directory / f"stop-{number}", agent_command(), self.environment)
            took, wrong = trial.run(situation)
            self.trials.append((situation, took, wrong))

    # -- the table

    def rows(self):
        """(promise, what was seen, whether it holds)"""
        book, chaos, log, samples = self.book, self.chaos, self.log, self.samples
        allowed, wrong = book.verdicts()
        for kind, count in sorted(book.counts.items()):
            good = "; ".join(f"{n} {why}" for (k, why), n in sorted(allowed.items()) if k == kind)
            bad = [(one, why) for one, why in wrong if one.kind == kind]
            more = f"; {book.goodbyes} ended by the worker's close frame" if kind == "websocket" else ""
            yield f"requests: {kind}", f"{count}{more}{'; allowed: ' + good if good else ''}{self.some(bad)}", not bad
        repeated, seen = twice(self.records)
        unheard = book.answered - seen
        yield "no POST twice", f"{len(seen)} ids at the workers, {len(repeated)} twice; " \
            f"{len(unheard)} answered 200 without one", not repeated and not unheard
        yield "longest answer", f"{book.longest:.1f} s", True
        for name in sorted(chaos.done):
            times = chaos.done[name]
            bad = [one for one in chaos.wrong if one.startswith(name + ":")]
            yield f"chaos: {name}", f"{len(times)} times, {max(times):.1f} s at most until all was well" \
                + "".join(f"; {one}" for one in bad[:3]), not bad
        own = len(book.deaths)
        unasked = int(self.status["restarts"]) - own
        yield "nobody died unasked", f"{self.status['restarts']} restarts, {own} workers killed or hung by the soak; " \
            f"{self.status['generation']} generations", unasked <= 0
        written, out, missing, surplus = log.account(self.records)
        dropped = int(self.metrics["panelind_log_dropped_total"])
        yield "log lines in = out", f"{written} numbered lines written, {out} read, {missing} missing, {dropped} records " \
            f"counted as dropped (slow reader); {len(log.disorder)} out of order, {len(log.broken)} no JSON", \
            missing <= dropped and not surplus and not log.disorder and not log.broken
        first, last = samples.tenths(0)
        judged = samples.cold and len(samples.rows) - samples.cold >= 120
        yield "memory flat", f"once every act was done: RSS {first / 2**20:.1f} MiB in the first tenth, " \
            f"{last / 2**20:.1f} MiB in the last, " \
            f"{samples.most(0) / 2**20:.1f} MiB at most{'' if judged else '; not judged in so short a run'}", \
            last <= first + MEMORY or not judged
        first, last = samples.tenths(1)
        yield "descriptors flat", f"{first:g} in the first tenth, {last:g} in the last, {samples.most(1)} at most", \
            last <= first + DESCRIPTORS
        yield "threads constant", f"{samples.least(2)} to {samples.most(2)} in {len(samples.rows)} samples", \
            samples.least(2) == samples.most(2)
        yield "no zombie stays, nobody is lost", "; ".join(self.wrong[:5]) or "none seen in any sample", not self.wrong
        yield "the last stop", f"exit {self.code} after {self.stopped_in:.2f} s of {BUDGET:g} s", \
            self.code == 0 and self.stopped_in <= BUDGET
        yield "no survivor", f"{len(self.left)} left" + "".join(f"; {one.command}" for one in self.left[:3]), not self.left
        for situation, took, bad in self.trials:
            yield f"stop: {situation}", f"{took:.2f} s of {BUDGET:g} s{'; ' + bad if bad else ''}", not bad

    def some(self, bad):
        text = "".join(
            f"; **{why}** at {one.began - self.begin:.1f} s after {one.ended - one.began:.2f} s "
            f"(status {one.status}, {one.error or 'no error'})" for one, why in bad[:3]
        )
        return text + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "")

    def report(self):
        rows = list(self.rows())
        good = all(holds for _, _, holds in rows)
        version = subprocess.run([binaries() / "panelind", "--version"], capture_output=True, text=True).stdout.strip()
        lines = [
            f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, {self.seconds / 60:.1f} minutes, "
            f"panelind {version}, {os.cpu_count()} cores at a load of {os.getloadavg()[2]:.1f} (a shared machine), "
            f"Linux {platform.release().split('-')[0]}",
            "",
            "| promise | seen | holds |",
            "|---|---|---|",
            *[f"| {name} | {seen} | {'yes' if holds else '**no**'} |" for name, seen, holds in rows],
            "",
            f"To repeat it: `make soak MINUTES={self.minutes:g} SEED={self.seed}"
            f"{' ARGS=' + chr(34) + '--acts ' + ','.join(self.acts) + chr(34) if self.acts else ''}`",
        ]
        return "\n".join(lines), good


def main():
    parser = argparse.ArgumentParser(description="Traffic and chaos on the built binary; exit 0 if every rule held.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="decides the order of the chaos and its times")
    parser.add_argument("--report", type=pathlib.Path, help="write the table into this file too, as Markdown")
    parser.add_argument("--acts", type=lambda text: text.split(","), help="only these of chaos.py, in this order, for ever")
    parser.add_argument("--keep", action="store_true", help="keep the directory of the run")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 31)
    print(f"soak: {arguments.minutes:g} minutes, seed {seed}", flush=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="panelind-soak-"))
    soak = Soak(arguments.minutes, seed, directory, arguments.acts)
    try:
        asyncio.run(soak.run())
        text, good = soak.report()
        print("\n" + text, flush=True)
        if not good:
            print(b"".join(soak.log.reloads).decode(errors="replace"), file=sys.stderr)
            print(b"".join(soak.log.tail).decode(errors="replace"), soak.daemon.stderr, file=sys.stderr)
        if arguments.report:
            arguments.report.parent.mkdir(parents=True, exist_ok=True)
            preface = (HERE / "preface.md").read_text()
            arguments.report.write_text(f"{preface}\n{text}\n")
        return 130 if soak.interrupted.is_set() else 0 if good else 1
    finally:
        soak.daemon.clean_up()
        if arguments.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
