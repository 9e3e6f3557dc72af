"""sse-starlette's response for a body of bytes that are encoded already, and that somebody else may write.

Decisions
1. The way of the bytes to the socket is ours: sse-starlette pulls them from an iterator, wraps every single send in a cancel scope
   and passes it through its encoder, which costs more than the rest of a chunk's way. Its headers, its pings, its lock between
   pings and the end, and its answer to HEAD stay as they are.
2. The body is poured, not pulled, so that the task that reads the provider can write to the caller without waking another one.
3. Two tasks instead of four: the caller's leaving is watched from before the answer's beginning, and at a stop the agent ends its
   streams itself, with a word (design: `Agent.stop`), where sse-starlette would cut them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

PING_S = 10
Write = Callable[[bytes], Awaitable[None]]


class EventStream(EventSourceResponse):
    """``pour`` writes whole events, ready for the wire, with what it is given; ``left`` is done when the caller has gone."""

    def __init__(
        self, pour: Callable[[Write], Awaitable[None]], headers: Mapping[str, str], left: asyncio.Task[None]
    ) -> None:
        super().__init__(
            iter(()),
            headers=headers,
            ping=PING_S,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            sep="\n",
        )
        self._pour = pour
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        streaming = asyncio.create_task(self._stream_response(send))
        pinging = asyncio.create_task(self._ping(send))
        try:
            await asyncio.wait((streaming, pinging, self._left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.active = False
            pinging.cancel()
            if not streaming.done():
                streaming.cancel()
                await asyncio.wait((streaming,))
        if not streaming.cancelled():
            streaming.result()

    async def _stream_response(self, send: Send) -> None:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._pour(write)
        async with self._send_lock:
            self.active = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})
