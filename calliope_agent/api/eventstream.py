"""sse-starlette's response for a body of bytes that are encoded already, and that somebody else may write.

Decisions
1. Only the way of the bytes to the socket is ours: sse-starlette pulls them from an iterator, wraps every single send in a cancel
   scope and passes it through its encoder, which costs more than the rest of a chunk's way. Its headers, its tasks for pings, for
   the caller's leaving and for the server's stop, and its lock between pings and the end stay as they are.
2. The body is poured, not pulled, so that the task that reads the provider can write to the caller without waking another one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Send

PING_S = 10
Write = Callable[[bytes], Awaitable[None]]


class EventStream(EventSourceResponse):
    """``pour`` writes whole events, ready for the wire, with what it is given. ``grace_s`` is how long it may go on after the server
    was told to stop."""

    def __init__(self, pour: Callable[[Write], Awaitable[None]], headers: Mapping[str, str], grace_s: float) -> None:
        super().__init__(
            iter(()),
            headers=headers,
            ping=PING_S,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            sep="\n",
            shutdown_grace_period=grace_s,
        )
        self._pour = pour

    async def _stream_response(self, send: Send) -> None:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await self._pour(write)
        async with self._send_lock:
            self.active = False
            await send({"type": "http.response.body", "body": b"", "more_body": False})
