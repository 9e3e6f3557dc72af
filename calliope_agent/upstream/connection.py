"""One HTTP/1.1 connection to a provider: requests go out one after the other, each with an answer of its own.

Decisions
1. Nothing is pipelined, and a request is never sent twice here: whether it may be asked again is the completion line's to say.
2. A large body goes out in pieces, with the loop's turn between them, so that one request's images do not hold up the others'
   streams (TLS encrypts what it is given in one go).
3. An answer that begins before its request is out is taken, and the connection closed behind it: servers refuse large bodies so.
4. Closing does not wait for what is still to be sent, nor for TLS' farewell: who closes in the middle of an answer wants the provider
   to notice now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from calliope_agent.upstream.response import Response

PIECE_BYTES: Final = 256 << 10


class Connection(asyncio.Protocol):
    """``freed`` is told when an answer is over and another request may follow, ``ended`` when the connection was lost."""

    def __init__(self, freed: Callable[[Connection], None], ended: Callable[[Connection], None]) -> None:
        self.transport: asyncio.Transport
        self.idle_since = 0.0
        self._freed = freed
        self._ended = ended
        self._response: Response | None = None
        self._unsent = False
        self._full = False

    async def ask(self, head: bytes, body: bytes = b"") -> Response:
        """The answer, its head already there. Raises `UpstreamError`."""
        self._response = response = Response(self)
        try:
            if len(body) <= PIECE_BYTES:
                self.transport.write(head + body)
            else:
                await self._send(response, head, body)
            await response.head()
        except BaseException:
            self.close()
            raise
        return response

    def close(self) -> None:
        self.transport.abort()

    def forget(self) -> None:
        """What comes from here on belongs to no answer."""
        self._response = None

    @property
    def closing(self) -> bool:
        return self.transport.is_closing()

    async def _send(self, response: Response, head: bytes, body: bytes) -> None:
        self._unsent = True
        self.transport.write(head)
        for start in range(0, len(body), PIECE_BYTES):
            while self._full and not response.begun:
                await response.change()
            if response.begun:
                return
            self.transport.write(body[start : start + PIECE_BYTES])
            await asyncio.sleep(0)
        self._unsent = False

    # What an answer asks for.

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def done_with(self, response: Response) -> None:
        """See `Response.release`."""
        if response is not self._response:
            return
        self._response = None
        if response.complete and response.keeps and not self._unsent and not self.closing:
            self._freed(self)
        else:
            self.close()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            self.close()  # nobody asked: a farewell in words (408), or an answer that would be taken for the next one's
        else:
            self._response.feed(data)

    def eof_received(self) -> None:
        """The provider says no more. The transport would first send what is left of the request, perhaps to nobody who reads."""
        if self._response is not None:
            self._response.lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._response is not None:
            self._response.lost(exc)
        self._ended(self)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._response is not None:
            self._response.wake()
