"""A stream's way to the caller: sse-starlette's headers, our bytes, which are encoded already and which somebody else may write.

Decisions
1. The way of the bytes to the socket is ours: sse-starlette pulls them from an iterator, wraps every single send in a cancel scope
   and passes it through its encoder, which costs more than the rest of a chunk's way. Its headers and its answer to HEAD stay as
   they are; the headers are made once, since making its response costs as much as a dozen chunks.
2. The body is poured, not pulled, so that the task that reads the provider can write to the caller without waking another one.
3. No task of its own instead of four: the caller's leaving is watched from before the answer's beginning, most answers are over
   before the first ping is due, and at a stop the agent ends its streams itself, with a word (design: `Agent.stop`), where
   sse-starlette would cut them.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from calliope_agent.api.leaving import Left, until_left
from calliope_agent.upstream.sse import PING

PING_S = 10
CACHE_CONTROL = {"cache-control": "no-cache, no-transform"}
Write = Callable[[bytes], Awaitable[None]]


class EventStream:
    """An ASGI response. ``pour`` writes whole events, ready for the wire, with what it is given, and returns the last ones; ``left`` is
    done when the caller has gone.
    """

    def __init__(self, pour: Callable[[Write], Awaitable[bytes]], headers: Mapping[str, str], left: Left) -> None:
        own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._headers = _standard() + own
        self._pour = pour
        self._left = left
        self._active = True
        self._sending = asyncio.Lock()
        self._pinging: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            empty = _empty()
            empty.raw_headers = self._headers
            await empty(scope, receive, send)
            return
        first_ping = asyncio.get_running_loop().call_later(PING_S, self._begin_pings, send)
        try:
            await until_left(self._stream_response(send), self._left)
        finally:
            self._active = False
            first_ping.cancel()
            if self._pinging is not None:
                self._pinging.cancel()

    async def _stream_response(self, send: Send) -> None:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        last = await self._pour(write)
        self._active = False
        if self._pinging is not None:
            async with self._sending:
                pass  # a ping that is on its way goes first; without pings the lock would only cost a turn of the loop
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _begin_pings(self, send: Send) -> None:
        self._pinging = asyncio.create_task(self._ping(send))

    async def _ping(self, send: Send) -> None:
        """Begun when the first ping is due; sse-starlette's own sleeps before each."""
        while self._active:
            async with self._sending:
                if self._active:
                    await send({"type": "http.response.body", "body": PING, "more_body": True})
            await asyncio.sleep(PING_S)


def _empty() -> EventSourceResponse:
    return EventSourceResponse(iter(()), headers=CACHE_CONTROL, sep="\n")


@functools.cache
def _standard() -> list[tuple[bytes, bytes]]:
    return _empty().raw_headers
