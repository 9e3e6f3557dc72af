"""Where answers leave: the head of an answer goes out in one write with the first bytes of its body.

Decisions
1. uvicorn writes the head and then the body. On a kept connection each write wakes the caller, which then has half an answer to
   look at: measured with a quick provider, the second wake was a tenth of a plain request's time.
2. Nothing waits for longer than the turn of the event loop in which it was written: a head whose body is not there yet goes alone.
3. Informational answers (1xx) are never held: the caller waits for them before it sends on.
4. Where a request's body is still to come, closing the socket would be a reset, and take the answer from a caller that reads it only
   when all is sent (RFC 9112 §9.6). So the answer's end is told, and what comes is thrown away for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

LINGER_S = 2.0
_HEAD = b"HTTP/1.1 "
_INFORMATIONAL = b"1"


class Outlet:
    """A transport as uvicorn's protocol uses it; everything but writing and closing is the real one's.

    ``unread``: more is to come of a body that the caller has begun to send.
    """

    __slots__ = ("_held", "_lingering", "_loop", "_transport", "_write", "unread")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.unread = False
        self._lingering = False
        self._transport = transport
        self._write = transport.write
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Nothing is answered any more; what still comes is to be thrown away."""
        return self._lingering or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(_HEAD) and data[len(_HEAD) : len(_HEAD) + 1] != _INFORMATIONAL:
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._write(data)

    def close(self) -> None:
        self._flush()
        if not self.unread or self.is_closing():
            self._transport.close()
            return
        self._lingering = True
        with contextlib.suppress(OSError):  # the caller's reset has come, and is read next
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(LINGER_S, self._transport.close)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._write(held)
