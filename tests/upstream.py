"""A provider that does what a test tells it to, on real sockets.

::

    async with ScriptedProvider() as provider:
        provider.script(status(429, headers={"Retry-After": "1"}), text("Hel", "lo"))
        … point something at provider.base_url …
        assert provider.calls == 2
        await provider.client_gone(1, timeout=2)

Answers are taken from the script in order; when it is empty, ``always`` answers (at first "Hello world").
``GET …/models`` takes nothing from the script unless ``script(…, on="models")`` says so.
Wires are chosen by the path's end, so any base URL works.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from tests.upstream_answers import (
    Answer,
    Framing,
    done_only,
    error_event,
    hang,
    hang_up,
    html,
    huge,
    malformed,
    nothing,
    raw,
    reasoning,
    reset,
    status,
    text,
    tool_call,
)
from tests.upstream_sockets import Connection, Request, Stopped, reply

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "Answer",
    "Framing",
    "Request",
    "ScriptedProvider",
    "done_only",
    "error_event",
    "hang",
    "hang_up",
    "html",
    "huge",
    "malformed",
    "nothing",
    "raw",
    "reasoning",
    "reset",
    "status",
    "text",
    "tool_call",
]


class ScriptedProvider:
    """An async context manager; leaving it raises what went wrong inside. ``unix_socket`` replaces the TCP port."""

    def __init__(
        self,
        *answers: Answer,
        models: tuple[str, ...] = ("scripted-model",),
        tls: ssl.SSLContext | None = None,
        unix_socket: Path | None = None,
    ) -> None:
        self.models = models
        self.requests: list[Request] = []
        self.connections = 0
        self.always = text("Hello", " world")
        self._tls = tls
        self._unix_socket = unix_socket
        self._queues: dict[str, deque[Answer]] = {"": deque(answers), "models": deque()}
        self._responder: Callable[[Request], Answer] | None = None
        self._arrived = asyncio.Condition()
        self._serving: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        if self._unix_socket is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._unix_socket)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
            self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        ended = await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def calls(self) -> int:
        """How often a model was asked: POST requests only."""
        return sum(request.method == "POST" for request in self.requests)

    def script(self, *answers: Answer, on: str = "") -> None:
        """Puts ``answers`` behind those already waiting; ``on="models"`` scripts ``GET …/models``."""
        self._queues[on].extend(answers)

    def unscript(self) -> None:
        """Forgets the answers that nobody has asked for yet."""
        for queue in self._queues.values():
            queue.clear()

    def respond(self, responder: Callable[[Request], Answer]) -> None:
        """Lets a function choose, for requests that the script leaves over."""
        self._responder = responder

    async def arrived(self, number: int, timeout: float = 5) -> Request:  # noqa: ASYNC109  # a test's bound reads best here
        """Waits until request ``number`` (from 0) is there."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def client_gone(self, number: int, timeout: float = 5) -> float:  # noqa: ASYNC109
        """Waits until request ``number`` loses its client before the answer ends; the moment, monotonic."""
        request = await self.arrived(number, timeout)
        async with asyncio.timeout(timeout):
            await request.gone.wait()
        assert request.gone_at is not None
        return request.gone_at

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, self.connections)
        self.connections += 1
        try:
            while request := await connection.receive():
                await self._take(connection, request)
        except (Stopped, ConnectionError):
            pass
        finally:
            await connection.close()

    async def _take(self, connection: Connection, request: Request) -> None:
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        answering = asyncio.create_task(reply(connection, request, self._choose(request), self.models))
        leaving = asyncio.create_task(connection.left.wait())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if connection.left.is_set() and request.answered_at is None:
                request.gone_at = time.monotonic()
                request.gone.set()
                raise Stopped
            await answering
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    def _choose(self, request: Request) -> Answer:
        queue = self._queues["models" if request.wire == "models" else ""]
        if queue:
            return queue.popleft()
        if request.wire == "models":
            return text()
        return self._responder(request) if self._responder else self.always
