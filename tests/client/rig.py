"""Our HTTP client against servers that are nothing but sockets, and a look at what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import pytest

from calliope_agent.upstream.client import Client, Request
from calliope_agent.upstream.response import Response

Serve = Callable[["Peer"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"
BOUND_S = 5.0


@dataclass
class Peer:
    """The server's end of one connection. ``heard`` is set by `left` when the client has said something."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    heard: bool = False

    async def head(self) -> bytes:
        """A request's first line and headers; empty when the client has left."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            return b""

    async def request(self) -> tuple[bytes, bytes]:
        """A request's head and body."""
        head = await self.head()
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        return head, await self.reader.readexactly(int(length.partition(b":")[2]))

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            if self.writer.is_closing():
                raise ConnectionResetError("the client has gone")  # uvloop's own error is no OSError
            self.writer.write(piece)
            await self.writer.drain()

    async def left(self) -> None:
        """Wait until the client has gone; what it still says is thrown away."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                self.heard = True


@dataclass
class Server:
    """``serve`` is called for every connection, which is closed behind it."""

    serve: Serve
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    peers: list[Peer] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self.tasks:
            task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._server.wait_closed()
        for failure in ended:
            if isinstance(failure, Exception) and not isinstance(failure, OSError):
                raise failure

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(self.peers))
        self.peers.append(peer)
        self.tasks.append(asyncio.create_task(self._run(peer)))

    async def _run(self, peer: Peer) -> None:
        try:
            await self.serve(peer)
        finally:
            peer.writer.close()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()


def saying(*pieces: bytes, times: int = 1) -> Serve:
    """Answers so many requests of one connection with these bytes, then closes it."""

    async def serve(peer: Peer) -> None:
        for _ in range(times):
            if not (await peer.request())[0]:
                return
            await peer.say(*pieces)

    return serve


def keeping(*pieces: bytes) -> Serve:
    """Answers every request with these bytes and keeps the connection until the client leaves."""

    async def serve(peer: Peer) -> None:
        while (await peer.request())[0]:
            await peer.say(*pieces)

    return serve


async def hanging(peer: Peer) -> None:
    """Takes what comes and says nothing."""
    await peer.left()


@contextlib.asynccontextmanager
async def opened(environ: Mapping[str, str] | None = None, **more: float) -> AsyncIterator[Client]:
    """A client; behind it no task, no descriptor, no connection and no untold failure may be left."""
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    tasks = asyncio.all_tasks()
    client = Client(environ or {}, **more)
    try:
        yield client
    finally:
        async with asyncio.timeout(BOUND_S):
            await client.close()
    assert not client._open
    tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # a fixture is torn down in a task of its own
    await until(lambda: asyncio.all_tasks() <= tasks)
    gc.collect()
    await asyncio.sleep(0)
    assert failures == []


async def until(condition: Callable[[], bool], bound_s: float = BOUND_S) -> None:
    async with asyncio.timeout(bound_s):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.002)


async def abandoned(task: asyncio.Task[Any]) -> None:
    """Cancel the task, which must end by that."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  only their number counts


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def request(url: str, *, body: bytes | None = None, connect_s: float = BOUND_S, **more: Any) -> Request:
    plain = Request("GET" if body is None else "POST", url, {"accept": "*/*"}, connect_s, body or b"")
    return replace(plain, **more)


async def ask(client: Client, url: str, **more: Any) -> Answer:
    """The whole answer, released. Raises as `Client.ask` and `Response.read` do."""
    async with asyncio.timeout(2 * BOUND_S):
        response = await client.ask(request(url, **more))
        try:
            return Answer(response.status, response.headers, await whole(response))
        finally:
            response.release()


async def whole(response: Response) -> bytes:
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)
