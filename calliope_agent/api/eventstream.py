"""sse-starlette's response for a body of bytes that are encoded already.

Decisions
1. Only the way from the iterator to the socket is ours: sse-starlette wraps every single send in a cancel scope and passes it
   through its encoder, which costs more than the rest of a chunk's way. Its tasks for pings, for the caller's leaving and for the
   server's stop, its lock between pings and the end, and its cleanup after a failed send stay as they are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Send

PING_S = 10


class EventStream(EventSourceResponse):
    """``body`` yields whole events, ready for the wire. ``grace_s`` is how long it may go on after the server was told to stop."""

    def __init__(self, body: AsyncGenerator[bytes], headers: Mapping[str, str], grace_s: float) -> None:
        super().__init__(
            body,
            headers=headers,
            ping=PING_S,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            sep="\n",
            shutdown_grace_period=grace_s,
        )
        self._body = body

    async def _stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for data in self._body:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except BaseException:
            with anyio.move_on_after(self._cleanup_timeout, shield=True):
                await self._body.aclose()
            raise
        async with self._send_lock:
            self.active = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})
