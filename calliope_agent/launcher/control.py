"""The wire between launcher and Jupyter extension: JSON lines over a socket pair that only Jupyter inherits.

The extension asks (``{"do": "hello" | "port" | "restart" | "stop" | "tail", …}``), the launcher answers each with
one line that carries the question's ``id``; between answers it sends ``{"event": "state", …}`` when a child's state
changes.

Decisions
1. A socket pair, no path: nothing to guess, to leave behind or to protect by a mode, and a new one with each Jupyter.
2. ``hello`` and ``port`` are asked blocking, while Jupyter starts and has no running loop yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

FD_VARIABLE = "WAIIDE_CONTROL_FD"
LINE_LIMIT = 1 << 20
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Server:
    """The launcher's end: one at a time, for the Jupyter that runs now."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    def open(self) -> int:
        """A new pair; returns the descriptor for the child. The one before is closed."""
        if self._task is not None:
            self._task.cancel()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._task = asyncio.create_task(self._serve(ours), name="control")
        return theirs.detach()

    def tell(self, message: Mapping[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(_line(message))

    async def _serve(self, ours: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        self._writer = writer
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                writer.write(_line({"answer": await self._answer(asked), "id": asked.get("id")}))
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class Client:
    """The extension's end."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        self._buffer = b""
        self._early: list[dict[str, Any]] = []
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int | None, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0

    def ask_now(self, message: Mapping[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
        """Blocking; only before `listen`. Raises OSError."""
        self._socket.settimeout(timeout_s)
        self._socket.sendall(_line(message))
        while True:
            while b"\n" not in self._buffer:
                part = self._socket.recv(65536)
                if not part:
                    raise ConnectionResetError("the launcher has gone")
                self._buffer += part
            line, _, self._buffer = self._buffer.partition(b"\n")
            told = json.loads(line)
            if "answer" in told:
                return dict(told["answer"])
            self._early.append(told)  # an event: `listen` has somebody to tell it to

    async def listen(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Until the launcher closes its end."""
        self._socket.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=LINE_LIMIT)
        for event in self._early:
            on_event(event)
        self._early.clear()
        while True:
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                self._take(json.loads(line), on_event)
            part = await reader.read(65536)
            if not part:
                return
            self._buffer += part

    async def ask(self, message: Mapping[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
        """Raises TimeoutError, and ConnectionError before `listen` runs."""
        if self._writer is None:
            raise ConnectionError("the launcher is not connected yet")
        self._last += 1
        answer = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(_line({**message, "id": self._last}))
            return await asyncio.wait_for(answer, timeout_s)
        finally:
            self._waiting = {key: future for key, future in self._waiting.items() if future is not answer}

    def _take(self, told: dict[str, Any], on_event: Callable[[dict[str, Any]], None]) -> None:
        if "answer" not in told:
            on_event(told)
            return
        future = self._waiting.get(told.get("id"))
        if future is not None and not future.done():
            future.set_result(told["answer"])


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
