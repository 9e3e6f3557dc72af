"""Where answers leave: the head of an answer goes out in one write with the first bytes of its body.

Decisions
1. uvicorn writes the head and then the body. On a kept connection each write wakes the caller, which then has half an answer to
   look at: measured with a quick provider, the second wake was a tenth of a plain request's time.
2. Nothing waits for longer than the turn of the event loop in which it was written: a head whose body is not there yet goes alone.
3. Informational answers (1xx) are never held: the caller waits for them before it sends on.
"""

from __future__ import annotations

import asyncio
from typing import Any

_HEAD = b"HTTP/1.1 "
_INFORMATIONAL = b"1"


class Outlet:
    """A transport as uvicorn's protocol uses it; everything but writing and closing is the real one's."""

    __slots__ = ("_held", "_loop", "_transport", "_write")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._write = transport.write
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(_HEAD) and data[len(_HEAD) : len(_HEAD) + 1] != _INFORMATIONAL:
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._write(held)
