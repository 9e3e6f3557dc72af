"""The bare prototype that the agent is measured against: the same libraries, a look at every event, and no rules at all.

``python -m tests.bench.prototype PORT UPSTREAM`` serves on 127.0.0.1:PORT. No token, no retry, no verification, no limits.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


class Choice(msgspec.Struct):
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    choices: list[Choice] = []
    error: Any = None


look = msgspec.json.Decoder(Chunk).decode
sessions: list[aiohttp.ClientSession] = []


async def health(_: Request) -> Response:
    return Response(b"{}", media_type="application/json")


async def complete(request: Request) -> Response:
    body = await request.body()
    if not sessions:
        sessions.append(aiohttp.ClientSession())
    upstream = await sessions[0].post(
        sys.argv[2] + request.url.path, data=body, headers={"content-type": "application/json"}
    )
    if upstream.content_type == "application/json":
        return Response(await upstream.read(), media_type="application/json")

    async def events() -> AsyncIterator[bytes]:
        async for data in upstream.content.iter_any():
            for block in data.split(b"\n\n"):
                if block.startswith(b"data: {"):
                    look(block[6:])
            yield data

    return StreamingResponse(events(), media_type="text/event-stream")


app = Starlette(routes=[Route("/health", health), Route("/v1/chat/completions", complete, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
    )
