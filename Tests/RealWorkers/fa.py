# fa.py
# The ASGI application that real servers serve in tests; no framework, so that only the server is on trial.
# Read README.md before it.
"""ASGI: / and /health answer 200, /ready by the file named in READY_FILE, /slow?seconds=N, /pid, /headers.

/echo streams the request's body back, /events sends an event every 100 ms, a WebSocket on any path echoes.
"""

import asyncio
import json
import os
from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    elif scope["path"] == "/echo":
        await echo(receive, send)
    elif scope["path"] == "/events":
        await events(receive, send)
    else:
        await answer(scope, receive, send)


async def websocket(receive, send):
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.disconnect":
            return
        elif message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def echo(receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/octet-stream")]})
    while True:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})
        if not more:
            return


async def events(receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    gone = asyncio.ensure_future(receive())
    number = 0
    while not gone.done():
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        number += 1
        await asyncio.wait([gone], timeout=0.1)


async def lifespan(receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            # uvicorn leaves with 3 after this; others differ, see README.md.
            if os.environ.get("FAIL_LIFESPAN") == "1":
                await send({"type": "lifespan.startup.failed", "message": "asked to fail by FAIL_LIFESPAN"})
                return
            await asyncio.sleep(float(os.environ.get("SLOW_START", "0")))
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


async def answer(scope, receive, send):
    path, query = scope["path"], parse_qs(scope["query_string"].decode("latin-1"))
    status, body = 200, {"pid": os.getpid()}
    if path == "/slow":
        await asyncio.sleep(float(query.get("seconds", ["1"])[0]))
        body["slept"] = True
    elif path == "/ready":
        file = os.environ.get("READY_FILE")
        status = 503 if file and not os.path.exists(file) else 200
    elif path == "/headers":
        body["headers"] = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        body["client"], body["scheme"] = scope.get("client"), scope["scheme"]
    elif path not in ("/", "/health", "/pid"):
        status = 404
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
