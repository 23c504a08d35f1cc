# book.py
# What is allowed to fail, and what was seen: requests, the witness's records, log lines, samples of the process.
# Read agent.py and traffic.py for where it comes from; soak.py prints it.
"""The rules, for one request:

* GET (no body): answered 200, in order, whole. It may fail only where its answer had begun when its worker died, or where
  two workers died under it (the front asks again once), or 503 when it was held for all of serve.hold; the time that it
  lay with a hung worker, which never accepted it, does not count.
* POST: answered 200, or 502 where a worker died while it was under way, or 503 as above. Its id reaches a worker once at
  most, whatever was answered; exactly once where the answer is 200.
* event stream: as GET; a reload or restart cuts none. websocket: may also end by a close frame of the worker.
* After /ready has said 200, the next request is no 502 or 503, unless a worker died in that moment, twice.
"""

import collections
import datetime
import json
import os
import re
import statistics
import struct
import threading
import time

HOLD = 10.0
# Seconds after which what a death left behind in sockets is surely seen by everyone.
AFTERMATH = 0.5


class Book:
    """Outcomes and the deaths we caused, judged when all is over."""

    def __init__(self):
        self.counts = collections.Counter()
        self.goodbyes = 0
        self.failures = []
        self.answered = set()
        self.deaths = []
        self.longest = 0.0

    def add(self, outcome):
        self.counts[outcome.kind] += 1
        self.longest = max(self.longest, outcome.ended - outcome.began)
        if outcome.identity and outcome.status == 200:
            self.answered.add(outcome.identity)
        if not outcome.fine:
            self.failures.append(outcome)
        elif outcome.error.startswith("goodbye"):
            self.goodbyes += 1

    def death(self, began):
        """A worker begins to die now, by us; the returned function says when it is gone."""
        entry = [began, None]
        self.deaths.append(entry)

        def over():
            entry[1] = time.monotonic() + AFTERMATH

        return over

    def deaths_during(self, outcome):
        return sum(began <= outcome.ended and (end or float("inf")) >= outcome.began for began, end in self.deaths)

    def judge(self, outcome):
        """(allowed, why)"""
        deaths = self.deaths_during(outcome)
        took = outcome.ended - outcome.began
        if not outcome.right:
            return False, "a wrong answer"
        if "TimeoutError" in outcome.error:
            return False, "no answer"
        if outcome.status == 503 and outcome.whole:
            return took >= HOLD - 0.1, "held for all of serve.hold" if took >= HOLD - 0.1 else "503 before serve.hold"
        if outcome.status in (200, 101) and not outcome.whole:
            return deaths >= 1, "its answer had begun when its worker died" if deaths else "cut without a death"
        if outcome.status == 502 and outcome.method == "POST":
            return deaths >= 1, "a POST under way when its worker died" if deaths else "502 without a death"
        if outcome.status == 502:
            return deaths >= 2, "two workers died under it" if deaths >= 2 else "an untouched GET was not saved"
        if outcome.status == 0:
            return False, f"no answer: {outcome.error}"
        return False, f"status {outcome.status}"

    def verdicts(self):
        """Counter of (kind, why) of what was allowed, and the list of what was not."""
        allowed, wrong = collections.Counter(), []
        for one in self.failures:
            good, why = self.judge(one)
            if good:
                allowed[one.kind, why] += 1
            else:
                wrong.append((one, why))
        return allowed, wrong


class Log(threading.Thread):
    """Reads panelind's stdout, slowly where told; keeps the numbers of the worker's numbered lines, and events."""

    line = re.compile(rb'"message":"soak-line (\d+) (\d+) ')
    event = re.compile(rb'"event":"([a-z_]+)"')

    def __init__(self, descriptor):
        super().__init__(daemon=True)
        self.file = os.fdopen(descriptor, "rb", buffering=1 << 16)
        self.go = threading.Event()
        self.go.set()
        self.ranges = collections.defaultdict(list)
        self.out = collections.Counter()
        self.disorder = []
        self.last = {}
        self.events = collections.Counter()
        self.announced = 0
        self.broken = []
        self.latest = b""
        self.tail = collections.deque(maxlen=60)
        self.reloads = collections.deque(maxlen=20)

    def run(self):
        for text in self.file:
            self.go.wait()
            self.latest = text
            if not text.startswith(b"{") or not text.endswith(b"}\n"):
                self.broken.append(text[:200])
            if found := self.line.search(text):
                generation, number = int(found[1]), int(found[2])
                if number <= self.last.get(generation, 0):
                    self.disorder.append((generation, number))
                self.last[generation] = number
                self.out[generation] += 1
            else:
                self.tail.append(text)
                if found := self.event.search(text):
                    name = found[1].decode()
                    self.events[name] += 1
                    if name.startswith(("reload", "config", "clock")):
                        self.reloads.append(text[:600])

    def time(self):
        """Of the last line that was read, in seconds since 1970."""
        return datetime.datetime.fromisoformat(json.loads(self.latest)["time"][:19] + "+00:00").timestamp()

    def account(self, records):
        """Over all generations: (surely written, read back, missing, more than was written)."""
        written = out = missing = surplus = 0
        for path in records.glob("lines-*"):
            generation = int(path.name.partition("-")[2])
            begun, done = struct.unpack("<QQ", path.read_bytes())
            written += done
            out += self.out[generation]
            missing += max(0, done - self.out[generation])
            surplus += max(0, self.out[generation] - begun)
        return written, out, missing, surplus


class Samples:
    """Resources of one process over time; the last tenth is compared with the first."""

    def __init__(self):
        self.rows = []
        self.cold = 0

    def warm(self):
        """What was taken until now is not compared."""
        self.cold = self.cold or len(self.rows)

    def take(self, pid):
        page = os.sysconf("SC_PAGE_SIZE")
        with open(f"/proc/{pid}/statm") as file:
            rss = int(file.read().split()[1]) * page
        self.rows.append((rss, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))))

    def tenths(self, column):
        """Medians of the first and the last tenth."""
        values = [row[column] for row in self.rows[self.cold :]] or [0]
        size = max(1, len(values) // 10)
        return statistics.median(values[:size]), statistics.median(values[-size:])

    def most(self, column):
        return max(row[column] for row in self.rows)

    def least(self, column):
        return min(row[column] for row in self.rows)


def twice(records):
    """Ids that reached a worker more than once, and all that did."""
    seen = collections.Counter()
    try:
        with open(records / "requests") as file:
            for line in file:
                seen[line.split()[0]] += 1
    except FileNotFoundError:
        pass
    return [identity for identity, count in seen.items() if count > 1], set(seen)
