"""The front door before Jupyter is there: answers /health from the first moment, a waiting page otherwise.

Jupyter takes seconds to import, and under a hub that is away it does not listen at all. The extension asks the launcher
to leave the port right before Jupyter serves it (`handover`; `control`, ``port``).

Decisions
1. Connections are accepted here and not by ``asyncio.start_server``: closed between its accept and the task that serves
   it, that server drops the connection without closing it (seen with Python 3.11 to 3.13: ``Server._attach`` refuses,
   and the exception keeps the socket in a reference cycle). The visitor then waits until the launcher's next garbage
   collection: minutes, in an idle process.
2. Who stands in line when the port is left is still answered: a listening socket that is closed resets its queue, unless
   Jupyter holds a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from calliope_agent.launcher import pages
from calliope_agent.launcher.headers import SECURITY

HEAD_LIMIT, ANSWER_S = 16384, 5.0
QUEUE = 100
FULL_S = 0.5  # until the next look when no descriptor was free


class Front:
    """Listens on the main port until it is closed; may be opened again when Jupyter has died."""

    def __init__(self, host: str, port: int, prefix: str, waiting_for: Callable[[], str]) -> None:
        self._address, self._prefix, self._waiting_for = (host or None, port), prefix, waiting_for
        self._listening: tuple[socket.socket, ...] = ()
        self._answering: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises OSError when the port is taken."""
        if self._listening:
            return
        loop = asyncio.get_running_loop()
        bound = await loop.create_server(asyncio.Protocol, *self._address, reuse_address=True, start_serving=False)
        listening = tuple(each.dup() for each in bound.sockets)
        bound.close()
        try:
            for listener in listening:
                listener.listen(QUEUE)
        except OSError:
            for listener in listening:
                listener.close()
            raise
        self._listening = listening
        for listener in listening:
            loop.add_reader(listener, self._accept, listener)

    def lend(self) -> tuple[int, ...]:
        """Copies of the listening sockets, for Jupyter; whoever takes them closes them."""
        return tuple(os.dup(listener.fileno()) for listener in self._listening)

    async def close(self) -> None:
        """Leave the port. Whoever has come until now is still answered."""
        listening, self._listening = self._listening, ()
        for listener in listening:
            asyncio.get_running_loop().remove_reader(listener)
            self._accept(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            for _ in range(QUEUE):
                connection, _ = listener.accept()
                task = asyncio.create_task(self._answer(connection))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is free: asked again at once, the loop would do nothing else
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(FULL_S, self._accept_again, listener)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listening:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(ANSWER_S):
                connection.setblocking(False)
                reader, writer = await asyncio.open_connection(sock=connection, limit=HEAD_LIMIT)
                with contextlib.closing(writer):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._response(head))
                    await writer.drain()

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        healthy = _path(rest.partition(" ")[0]) in ("/health", f"{self._prefix}health", f"{self._prefix}api/health")
        if healthy:
            kind, body = "application/json", json.dumps(health()).encode()
        else:
            kind, body = "text/html; charset=utf-8", pages.waiting(self._waiting_for()).encode()
        lines = [
            f"HTTP/1.1 {'200 OK' if healthy else '503 Service Unavailable'}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *([] if healthy else ["Retry-After: 2"]),
            f"Content-Security-Policy: {pages.POLICY}",
            *(f"{name}: {value}" for name, value in SECURITY.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body)


def _path(target: str) -> str:
    """Empty for what is no address at all."""
    try:
        return urlsplit(target).path
    except ValueError:
        return ""


def health() -> dict[str, str]:
    """The reference's shape: ``{"status": "healthy", "timestamp": "2025-01-26T10:00:00Z"}``."""
    return {"status": "healthy", "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
