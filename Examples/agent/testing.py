# testing.py
# Endpoints that only tests of a front want: slow answers, streams, a websocket.
# Mounted by api.py under AGENT_TESTING=1, never in production.
"""Slow, streaming and upgraded answers for tests."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

router = APIRouter()


@router.get("/slow")
async def slow(seconds: Annotated[float, Query(ge=0, le=600)] = 1) -> dict[str, object]:
    """Answers after so many seconds."""
    await asyncio.sleep(seconds)
    return {"slept": seconds, "pid": os.getpid()}


@router.get("/stream")
async def stream(
    count: Annotated[int, Query(ge=1)] = 10, seconds: Annotated[float, Query(ge=0, le=600)] = 0.1
) -> StreamingResponse:
    """Server-sent events, `count` of them, `seconds` apart."""

    async def events() -> AsyncIterator[str]:
        for number in range(1, count + 1):
            yield f"id: {number}\ndata: {number}\n\n"
            if number < count:
                await asyncio.sleep(seconds)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/headers")
async def headers(request: Request) -> list[tuple[str, str]]:
    """The request's header fields as they arrived, in order."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]


@router.websocket("/ws")
async def echo(socket: WebSocket) -> None:
    """Sends every message back, text as text and bytes as bytes."""
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return
