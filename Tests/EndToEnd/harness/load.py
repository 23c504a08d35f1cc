# load.py
# Clients by the hundred on one loop of their own thread: at a fixed rate, or so many at once; every outcome is kept.
# Read rawclient.py first.

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass


@dataclass
class Outcome:
    """One request: `status` is None where no answer had begun, `whole` whether it came to its end."""

    number: int
    method: str
    began: float
    took: float = 0.0
    status: int | None = None
    whole: bool = False
    error: str = ""

    @property
    def failed(self):
        return not self.whole or self.status >= 500


class Load:
    """`rate` requests a second whatever becomes of them, or `clients` that ask one after the other.

    make(number) gives (method, bytes) of a request. Connections are kept where the answer lets them.
    """

    def __init__(self, port, make, rate=None, clients=None, timeout=25):
        self.port, self.make, self.rate, self.clients, self.timeout = port, make, rate, clients, timeout
        self.outcomes = []
        self.idle = []
        self.begun = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(self.timeout + 10)

    async def _run(self):
        if self.clients:
            await asyncio.gather(*(self._client() for _ in range(self.clients)))
        else:
            tasks, begin = set(), time.monotonic()
            for number in itertools.count():
                # By the clock, so that a late loop catches up instead of asking less.
                await asyncio.sleep(max(0, begin + number / self.rate - time.monotonic()))
                if self.over.is_set():
                    break
                task = asyncio.ensure_future(self._one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)
        for _, writer in self.idle:
            writer.close()

    async def _client(self):
        while not self.over.is_set():
            await self._one()

    async def _one(self):
        number, self.begun = self.begun, self.begun + 1
        method, data = self.make(number)
        outcome = Outcome(number, method, time.monotonic())
        writer = None
        try:
            async with asyncio.timeout(self.timeout):
                reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(data)
                keep = await self._answer(reader, outcome)
                if keep:
                    self.idle.append((reader, writer))
                    writer = None
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            outcome.error = repr(error)
        finally:
            if writer:
                writer.close()
        outcome.took = time.monotonic() - outcome.began
        self.outcomes.append(outcome)

    @staticmethod
    async def _answer(reader, outcome):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        outcome.status = int(head.split(" ")[1])
        if "transfer-encoding: chunked" in head:
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                await reader.readexactly(size + 2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        else:
            length = head.split("content-length:")[1].split("\r\n")[0]
            await reader.readexactly(int(length))
        outcome.whole = True
        return "connection: close" not in head

    @property
    def outstanding(self):
        """Asked and not answered."""
        return self.begun - len(self.outcomes)

    def failures(self):
        return [one for one in self.outcomes if one.failed]
