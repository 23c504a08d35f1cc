# traffic.py
# The clients of the soak: kept, fresh and pipelined connections, posts, slow bodies, event streams, websockets.
# It says what each request met; book.py decides which failures are allowed. Read book.py next.

import asyncio
import base64
import itertools
import json
import os
import struct
import time
from dataclasses import dataclass

PATIENCE = 45.0
QUOTE = json.dumps(
    {"product_id": "ISOPANEL_EPS_50mm", "length_m": 6, "width_m": 10, "discount_percent": 5}
).encode()


@dataclass
class Outcome:
    """One exchange. `status` is 0 where no answer had begun; `whole` whether it came to its end."""

    kind: str
    method: str
    began: float
    ended: float = 0.0
    identity: str = ""
    status: int = 0
    whole: bool = False
    right: bool = True
    error: str = ""
    after_ready: bool = False

    @property
    def fine(self):
        return self.whole and self.right and self.status in (200, 101)


class Wrong(Exception):
    """An answer that cannot be right."""


class Connection:
    """One connection to the front, opened when it is needed."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def open(self):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def send(self, method, target, headers=(), body=None, pause=None, until=None):
        await self.open()
        lines = [f"{method} {target} HTTP/1.1", "Host: soak", *headers]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if pause else body or b""))
        if pause and body:
            for at in range(0, len(body), 10):
                if until and until.done():
                    return
                self.writer.write(body[at : at + 10])
                await self.writer.drain()
                await asyncio.sleep(pause)
        if self.writer:
            await self.writer.drain()

    async def head(self, outcome):
        """Status and header fields; says in the outcome that the answer has begun."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")
        outcome.status = int(first.split(" ")[1])
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}

    async def body(self, fields):
        if fields.get("transfer-encoding") == "chunked":
            parts = []
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                parts.append((await self.reader.readexactly(size + 2))[:-2])
            while await self.reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return b"".join(parts)
        return await self.reader.readexactly(int(fields.get("content-length", 0)))

    async def receive(self, outcome):
        fields = await self.head(outcome)
        data = await self.body(fields)
        outcome.whole = True
        if fields.get("connection", "").lower() == "close":
            self.close()
        return data


class Traffic:
    """Clients that ask without end, each after a pause; `outcomes` go to the book."""

    def __init__(self, port, book):
        self.port, self.book = port, book
        self.numbers = itertools.count(1)
        self.over = asyncio.Event()
        self.opened = 0

    def clients(self):
        """One coroutine a client; about sixty requests a second altogether."""
        every = [
            *[self.loop(self.get, 0.1, keep=True) for _ in range(3)],
            *[self.loop(self.get, 0.15) for _ in range(2)],
            *[self.loop(self.post, 0.15, keep=True) for _ in range(3)],
            self.loop(self.post, 0.2),
            self.loop(self.slow_post, 0.2),
            *[self.loop(self.pipeline, 0.3, keep=True) for _ in range(2)],
            *[self.loop(self.stream, 0.1) for _ in range(2)],
            self.loop(self.websocket, 0.1),
            self.loop(self.look_then_ask, 0.1, keep=True),
        ]
        return every

    async def loop(self, ask, pause, keep=False):
        connection = Connection(self.port)
        while not self.over.is_set():
            await ask(connection)
            if not keep:
                connection.close()
            await asyncio.sleep(pause)
        connection.close()

    async def one(self, kind, method, connection, exchange, **more):
        """Runs an exchange and books what it met."""
        outcome = Outcome(kind, method, time.monotonic(), **more)
        try:
            async with asyncio.timeout(PATIENCE):
                await exchange(outcome)
        except (OSError, EOFError, ValueError, TimeoutError, Wrong, asyncio.LimitOverrunError) as error:
            outcome.error = repr(error)
            outcome.right = outcome.right and not isinstance(error, Wrong)
            connection.close()
        outcome.ended = time.monotonic()
        self.book.add(outcome)
        return outcome

    async def get(self, connection):
        number = str(next(self.numbers))

        async def exchange(outcome):
            await connection.send("GET", f"/soak/echo?{number}")
            body = await connection.receive(outcome)
            if outcome.status == 200 and body != number.encode():
                raise Wrong(f"asked {number}, got {body[:60]}")

        return await self.one("get", "GET", connection, exchange)

    async def post(self, connection, kind="post", pause=None):
        identity = f"p{next(self.numbers)}"

        async def exchange(outcome):
            # Who sends slowly listens meanwhile: an answer may come before all of it was sent.
            await connection.open()
            answer = asyncio.create_task(connection.receive(outcome))
            try:
                await connection.send("POST", "/quotes", [f"X-Soak-Id: {identity}"], QUOTE, pause, until=answer)
            except ConnectionError:
                pass
            body = await answer
            if outcome.status == 200 and json.loads(body)["total_usd"] != 2988.05:
                raise Wrong(f"a wrong quote: {body[:200]}")

        return await self.one(kind, "POST", connection, exchange, identity=identity)

    async def slow_post(self, connection):
        return await self.post(connection, "slow body", 0.05)

    async def pipeline(self, connection):
        """Five requests in one write; five answers in their order."""
        numbers = [str(next(self.numbers)) for _ in range(5)]
        text = "".join(f"GET /soak/echo?{n} HTTP/1.1\r\nHost: soak\r\n\r\n" for n in numbers)
        failed = False
        began = time.monotonic()
        for place, number in enumerate(numbers):

            async def exchange(outcome):
                outcome.began = began
                if place == 0:
                    await connection.open()
                    connection.writer.write(text.encode())
                body = await connection.receive(outcome)
                if outcome.status == 200 and body != number.encode():
                    raise Wrong(f"asked {number}, got {body[:60]}")

            # After a cut nothing more comes on this connection; what was behind it is not counted.
            if failed:
                break
            outcome = await self.one("pipelined", "GET", connection, exchange)
            failed = connection.writer is None

    async def stream(self, connection):
        """Twenty server-sent events in two seconds."""

        async def exchange(outcome):
            await connection.send("GET", "/stream?count=20&seconds=0.1")
            body = await connection.receive(outcome)
            if outcome.status == 200 and body.count(b"data: ") != 20:
                raise Wrong(f"{body.count(b'data: ')} events of 20")

        return await self.one("stream", "GET", connection, exchange)

    async def websocket(self, connection):
        """Thirty messages and their echoes, then a close; a close frame of the other side is a goodbye."""

        async def exchange(outcome):
            key = base64.b64encode(os.urandom(16)).decode()
            upgrade = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}"]
            await connection.send("GET", "/ws", [*upgrade, "Sec-WebSocket-Version: 13"])
            fields = await connection.head(outcome)
            if outcome.status != 101:
                await connection.body(fields)
                outcome.whole = True
                return
            for number in range(30):
                text = b"message %d" % number
                connection.writer.write(b"\x81" + bytes([0x80 | len(text)]) + bytes(4) + text)
                code, data = await self.frame(connection)
                if code == 8:
                    outcome.error = f"goodbye {struct.unpack('>H', data[:2])[0] if data else ''}"
                    break
                if data != text:
                    raise Wrong(f"sent {text}, got {data}")
                await asyncio.sleep(0.1)
            connection.writer.write(b"\x88\x82" + bytes(4) + struct.pack(">H", 1000))
            outcome.whole = True

        return await self.one("websocket", "GET", connection, exchange)

    @staticmethod
    async def frame(connection):
        while True:
            first, second = await connection.reader.readexactly(2)
            size = second & 127
            if size == 126:
                size = struct.unpack(">H", await connection.reader.readexactly(2))[0]
            data = await connection.reader.readexactly(size)
            if first & 15 not in (9, 10):
                return first & 15, data

    async def look_then_ask(self, connection):
        """/ready, and where that says 200 a request at once, which must be served."""
        ready = False

        async def look(outcome):
            nonlocal ready
            await connection.send("GET", "/ready")
            await connection.receive(outcome)
            ready = outcome.status == 200
            if outcome.status not in (200, 503):
                raise Wrong(f"/ready says {outcome.status}")
            outcome.status = 200

        async def ask(outcome):
            await connection.send("GET", "/products")
            await connection.receive(outcome)

        await self.one("/ready", "GET", connection, look)
        if ready:
            await self.one("get after /ready", "GET", connection, ask, after_ready=True)

    async def order(self, target):
        """A POST that makes the worker do something; whether it was heard."""
        connection = Connection(self.port)
        identity = f"o{next(self.numbers)}"

        async def exchange(outcome):
            await connection.send("POST", target, [f"X-Soak-Id: {identity}"], b"")
            await connection.receive(outcome)

        outcome = await self.one("order", "POST", connection, exchange, identity=identity)
        connection.close()
        return outcome.fine
