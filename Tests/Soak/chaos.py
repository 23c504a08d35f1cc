# chaos.py
# What is done to panelind and its worker during a soak, in an order that a seed decides; each act says what it broke.
# Read soak.py first; book.py has the rules that must hold meanwhile.

import asyncio
import json
import mmap
import os
import pathlib
import random
import signal
import socket
import struct
import sys
import time

from harness import binaries, children, is_alive, state
from harness.control import UnixConnection
from harness.faults import build_library

GOOD, TYPO = "agent:app", "agent_with_a_typo:app"


class Chaos:
    """Acts, one at a time, each after a random pause; `wrong` collects what must not be."""

    # An act and how often it comes, relative to the others.
    acts = {
        "kill": 6, "kill_twice": 2, "kill_in_reload": 2, "hang": 2, "blip": 3, "reload": 3, "reload_hup": 3,
        "reload_bad_file": 2, "reload_broken_worker": 2, "restart": 2, "flood": 3, "flood_and_kill": 3,
        "escape_and_kill": 3, "escape_and_reload": 2, "freeze": 3, "freeze_both": 2, "stall_log": 2, "control_clients": 2,
        "clock_step": 3, "clock_step_and_kill": 2,
    }

    def __init__(self, daemon, traffic, book, log, records, clock, seed, acts=None):
        self.only, self.clock = acts, clock
        self.story = []
        self.daemon, self.traffic, self.book, self.log, self.records = daemon, traffic, book, log, records
        self.random = random.Random(seed)
        self.done, self.wrong = {}, []
        self.round = 0
        self.frozen = False
        self.socket = daemon.directory / "c.sock"
        self.over = asyncio.Event()
        #: every act was done once: what memory they take has been taken
        self.warm = asyncio.Event()

    def schedule(self):
        """Endless: every act once in a random order, so that the first minutes have all, then by weight."""
        names = list(self.only or self.acts)
        if not self.only:
            self.random.shuffle(names)
        yield from names
        self.warm.set()
        while self.only:
            yield from names
        while True:
            yield self.random.choices(list(self.acts), list(self.acts.values()))[0]

    async def run(self, until):
        self.begin = time.monotonic()
        for name in self.schedule():
            pause = self.random.uniform(0.3, 2.5)
            if self.over.is_set() or time.monotonic() + pause > until():
                return
            await self.sleep(pause)
            if self.over.is_set():
                return
            at = time.monotonic()
            self.story.append(f"{name} at {at - self.begin:.1f} s")
            try:
                await getattr(self, name)()
                await self.settle(name)
            except (OSError, ValueError, KeyError, TimeoutError) as error:
                self.say(name, f"could not be done: {error!r}")
            self.done.setdefault(name, []).append(time.monotonic() - at)

    async def sleep(self, seconds):
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            pass

    def say(self, act, what):
        self.wrong.append(f"{act}: {what}")
        print(f"  ! {act}: {what[:500]}; lately: {', '.join(self.story[-4:])}", flush=True)

    # -- looking

    def _ask(self, target, method="GET"):
        connection = UnixConnection(self.socket, 40)
        try:
            connection.request(method, target)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    async def ask(self, target, method="GET"):
        return await asyncio.to_thread(self._ask, target, method)

    async def leader(self):
        """The pid of the present worker, once there is one that is ready."""
        return (await self.ready())["pid"]

    async def ready(self, within=40, but=None):
        end = time.monotonic() + within
        while time.monotonic() < end:
            _, status = await self.ask("/v1/status")
            if status["state"] == "ready" and status["pid"] and status["pid"] != but:
                return status
            await asyncio.sleep(0.05)
        short = {key: status[key] for key in ("state", "reason", "generation", "pid", "held")}
        raise TimeoutError(f"not ready{f' with another worker than {but}' if but else ''} within {within} s: {short}")

    def leaders(self):
        return [one.pid for one in children(self.daemon.pid) if "uvicorn" in one.command and one.state not in "ZX"]

    def escaped(self):
        """(pid, leader) of escaped descendants that live."""
        found = (path.name.split("-")[1:] for path in self.records.glob("escaped-*"))
        return [(int(pid), int(leader)) for pid, leader in found if is_alive(int(pid))]

    async def settle(self, act):
        """Ready, no predecessor left, no process of a worker that is gone."""
        await self.ready()
        end = time.monotonic() + 20
        while True:
            leaders = self.leaders()
            orphans = [pid for pid, leader in self.escaped() if not is_alive(leader)]
            if len(leaders) == 1 and not orphans:
                return
            if time.monotonic() > end:
                return self.say(act, f"20 s later there are the leaders {leaders} and the survivors {orphans}")
            await asyncio.sleep(0.1)

    async def kill(self, pid=None):
        pid = pid or await self.leader()
        over = self.book.death(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            await asyncio.sleep(0.005)
        over()
        return pid

    # -- acts

    async def kill_twice(self):
        """The next one too: while it starts, or when it has just become ready."""
        first = await self.kill()
        if self.random.random() < 0.5:
            await self.ready(but=first)
        else:
            await self.sleep(self.random.uniform(0.2, 0.8))
        for pid in self.leaders():
            await self.kill(pid)

    async def hang(self):
        """The liveness probe must see it, and nothing else than a restart may come of it."""
        pid = await self.leader()
        over = self.book.death(time.monotonic())
        os.kill(pid, signal.SIGSTOP)
        end = time.monotonic() + 25
        while is_alive(pid) and time.monotonic() < end:
            await asyncio.sleep(0.05)
        if is_alive(pid):
            self.say("hang", "the liveness probe has not seen a stopped worker within 25 s")
            os.kill(pid, signal.SIGCONT)
        over()

    async def unharmed(self, act, pid):
        """The worker is the same a few probes later."""
        await self.sleep(3)
        if (now := await self.leader()) != pid:
            self.say(act, f"the worker {pid} was replaced by {now}")

    async def blip(self):
        """Too short for the probe to give up."""
        pid = await self.leader()
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(self.random.uniform(0.2, 1.5))
        os.kill(pid, signal.SIGCONT)
        await self.unharmed("blip", pid)

    def write(self, app=GOOD, text=None):
        self.round += 1
        command = [word if word not in (GOOD, TYPO) else app for word in self.daemon.settings["worker.command"]]
        environment = {**self.daemon.settings["worker.environment"], "SOAK_ROUND": str(self.round)}
        self.daemon.write_settings({"worker.command": command, "worker.environment": environment})
        if text:
            self.daemon.config.write_text(text)

    async def command(self, *words):
        """`panelind WORDS` as somebody types it: exit code and what it says."""
        process = await asyncio.create_subprocess_exec(
            str(binaries() / "panelind"), *words, "--control", str(self.socket),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        text, _ = await process.communicate()
        return process.returncode, text.decode().strip()

    async def reload(self):
        pid = await self.leader()
        self.write()
        code, text = await self.command("reload")
        if code != 0:
            self.say("reload", f"exit {code}: {text}")
        elif await self.leader() == pid:
            self.say("reload", "the worker is the same")

    async def reload_hup(self):
        pid = await self.leader()
        self.write()
        os.kill(self.daemon.pid, signal.SIGHUP)
        await self.ready(but=pid)

    async def refused(self, act, **broken):
        pid = await self.leader()
        self.write(**broken)
        code, text = await self.command("reload")
        if code == 0 or not text:
            self.say(act, f"exit {code}: {text!r}")
        if await self.leader() != pid:
            self.say(act, "the worker was replaced")
        self.write()

    async def reload_bad_file(self):
        await self.refused("reload_bad_file", text="worker: { command: [uvicorn }\n")

    async def reload_broken_worker(self):
        await self.refused("reload_broken_worker", app=TYPO)

    async def kill_in_reload(self):
        pid = await self.leader()
        self.write()
        reloading = asyncio.create_task(self.command("reload"))
        await asyncio.sleep(self.random.uniform(0.05, 1.5))
        await self.kill(self.random.choice(self.leaders() or [pid]))
        await reloading

    async def restart(self):
        pid = await self.leader()
        code, text = await self.command("restart")
        if code != 0 or await self.leader() == pid:
            self.say("restart", f"exit {code}: {text}")

    async def flood(self):
        await self.traffic.order(f"/soak/flood?{self.random.randrange(2_000, 30_000)}")
        await self.sleep(1)

    async def flood_and_kill(self):
        await self.traffic.order("/soak/flood?100000")
        await asyncio.sleep(self.random.uniform(0, 0.3))
        await self.kill()

    async def escape_and_kill(self):
        """Three of them; before the next worker starts they must be gone: it looks for them itself."""
        for _ in range(3):
            await self.traffic.order("/soak/escape")
        if not self.escaped():
            self.say("escape_and_kill", "no descendant has escaped")
        before = set(self.records.glob("start-*"))
        await self.kill()
        await self.ready()
        for path in set(self.records.glob("start-*")) - before:
            if len(words := path.read_text().split()) > 1:
                self.say("escape_and_kill", f"worker g{path.name[6:]} started beside the survivors {words[1:]}")

    async def escape_and_reload(self):
        await self.traffic.order("/soak/escape")
        await self.reload_hup()

    async def freeze(self):
        """panelind itself is stopped for longer than the liveness probe would take: nobody is to die of that."""
        pid = await self.leader()
        await self.frozen_for(self.random.uniform(0.5, 8), [self.daemon.pid])
        await self.unharmed("freeze", pid)

    async def freeze_both(self):
        pid = await self.leader()
        await self.frozen_for(self.random.uniform(1, 6), [pid, self.daemon.pid])
        await self.unharmed("freeze_both", pid)

    async def frozen_for(self, seconds, pids):
        self.frozen = True
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            for pid in self.random.sample(pids, len(pids)):
                os.kill(pid, signal.SIGCONT)
            self.frozen = False

    def step(self):
        """The wall clock jumps: seconds to a day, forwards or back, or to the truth again."""
        self.clock.step(self.random.choice([-86400, -3600, -7, 0, 7, 3600, 86400]))

    async def clock_step(self):
        """Nobody is to live longer or shorter for it, and what is written from then on has the new time."""
        pid = await self.leader()
        self.step()
        await self.traffic.order("/soak/flood?2000")
        await self.unharmed("clock_step", pid)
        if abs(off := self.log.time() - self.clock.time()) > 60:
            self.say("clock_step", f"the log's time is {off:.0f} s beside the clock's")

    async def clock_step_and_kill(self):
        """While its successor is waited for; it comes as soon as at any other time."""
        first = await self.kill()
        self.step()
        await self.ready(within=15, but=first)

    async def stall_log(self):
        """Nobody reads the log for a while, and more is written than the buffer holds."""
        self.log.go.clear()
        try:
            await self.traffic.order("/soak/flood?30000")
            await asyncio.sleep(self.random.uniform(1.5, 4))
        finally:
            self.log.go.set()

    async def control_clients(self):
        """Silent ones, half requests, followers that read nothing, and another user; status is answered all the same."""
        held = []
        try:
            for text in [b"", b"GET /v1/sta", b"GET /v1/events?follow=true HTTP/1.1\r\nHost: p\r\n\r\n",
                         b"GET /v1/logs?follow=true HTTP/1.1\r\nHost: p\r\n\r\n", b"\0\xff" * 100] * 4:
                one = socket.socket(socket.AF_UNIX)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                one.settimeout(5)
                one.connect(str(self.socket))
                one.sendall(text)
                held.append(one)
            await self.traffic.order("/soak/flood?10000")
            code, text = await self.command("status")
            if code != 0:
                self.say("control_clients", f"status beside them: exit {code}: {text}")
            if os.geteuid() == 0 and await self.as_nobody() == 0:
                self.say("control_clients", "another user was let in")
            await self.sleep(self.random.uniform(0.5, 3))
        finally:
            for one in held:
                one.close()

    async def as_nobody(self):
        code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);" \
               "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: p\\r\\n\\r\\n'); sys.exit(b' 200 ' not in s.recv(100))"
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-I", "-c", code, str(self.socket),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait()


class Clock:
    """The wall clock of panelind and its workers, by clock.c: the machine's, and what it was stepped by."""

    def __init__(self, directory):
        library, state = build_library(directory, pathlib.Path(__file__).with_name("clock.c")), directory / "clock"
        state.write_bytes(bytes(8))
        with state.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(library), "SOAK_CLOCK": str(state)}
        self.off = 0

    def step(self, off):
        """To so many seconds beside the machine's."""
        self.off = off
        self.memory[:] = struct.pack("=q", off * 10**9)

    def time(self):
        """Seconds since 1970, as panelind has them."""
        return time.time() + self.off


def zombies(pid):
    return {one.pid for one in children(pid) if state(one.pid) == "Z"}


def agent_command():
    """The agent with its witness, as the quick start runs the agent."""
    here = pathlib.Path(__file__).resolve().parent
    uvicorn = here.parents[1] / ".venv" / "agent" / "bin" / "uvicorn"
    if not uvicorn.exists():
        sys.exit(f"cannot find {uvicorn}: scripts/setup agent makes it")
    return [str(uvicorn), GOOD, "--app-dir", str(here), "--uds", "{socket}", "--no-access-log"]
