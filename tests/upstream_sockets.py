"""One client's socket, seen from the provider: requests in, scripted bytes out, and every way of breaking off.

**Decisions**

1. A raw asyncio socket, no HTTP library: it must be able to break every rule of HTTP.
2. One task pumps the socket into an inbox for the connection's whole life, so the moment a client leaves is seen
   while an answer is being written.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.upstream_answers import Ending
from tests.upstream_bodies import Call, error_body, plain_body, wire_of
from tests.upstream_wires import Frame, frames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.upstream_answers import Answer

STREAMED = {"chat", "text", "messages", "responses"}


@dataclass
class Request:
    """One request as it arrived. Header names are in lower case; times are ``time.monotonic()`` seconds."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    connection: int
    sent_pieces: int = 0
    answered_at: float | None = None
    gone_at: float | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def wire(self) -> str:
        return wire_of(self.path)

    @property
    def key(self) -> str:
        """The caller's key, by whichever header brought it."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer or self.headers.get("x-api-key", "") or self.headers.get("api-key", "")


class Stopped(Exception):
    """The script ends this connection."""


class Connection:
    """One client's socket: a pump that fills ``inbox``, and the writing side with its ways of breaking off."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.number = number
        self.writer = writer
        self.inbox = asyncio.StreamReader()
        self.left = asyncio.Event()
        self.pump = asyncio.create_task(self._pump(reader))

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65536):
                self.inbox.feed_data(data)
        except OSError:
            pass
        self.left.set()
        self.inbox.feed_eof()

    async def receive(self) -> Request | None:
        """The next request, or None when the client has left."""
        try:
            head = (await self.inbox.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.strip().split("\r\n")
            headers = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
            body = await self._body(headers)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        method, path, _ = line.split(" ", 2)
        return Request(method, path, headers, body, time.monotonic(), self.number)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "expect" in headers:
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await self.inbox.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while size := int(await self.inbox.readline(), 16):
            body += (await self.inbox.readexactly(size + 2))[:-2]
        await self.inbox.readline()
        return body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def end(self, kind: str) -> None:
        """Breaks off by ``kind`` (see ``EndingKind``)."""
        if kind == "stall":
            await self.left.wait()
        elif kind == "garble":
            await self.send(b"ZZ\r\ndata: garbled\n\n")
        elif kind == "reset":
            raw_socket = self.writer.get_extra_info("socket")
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        raise Stopped

    async def close(self) -> None:
        self.pump.cancel()
        self.writer.close()
        await asyncio.gather(self.pump, self.writer.wait_closed(), return_exceptions=True)


async def reply(connection: Connection, request: Request, answer: Answer, models: tuple[str, ...]) -> None:
    for gate in (gate for before, gate in answer.gates if before < 0):
        await gate.wait()
    if answer.silent:
        await connection.end({"hang": "stall", "close": "close", "reset": "reset"}[answer.silent])
    call = _call(request, models)
    streamed = answer.status == 200 and answer.body is None and call.stream and call.wire in STREAMED
    await (_stream if streamed else _plain)(connection, request, answer, call)
    request.answered_at = time.monotonic()


def _call(request: Request, models: tuple[str, ...]) -> Call:
    body = request.json if request.body.startswith(b"{") else {}
    inputs = body.get("input")
    return Call(
        wire=request.wire,
        model=str(body.get("model", "")),
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        inputs=len(inputs) if isinstance(inputs, list) else 1,
        key=request.key,
        models=models,
    )


def _head(answer: Answer, headers: dict[str, str]) -> bytes:
    lines = [f"{name}: {value}" for name, value in {**headers, **answer.headers}.items()]
    return "\r\n".join([f"HTTP/1.1 {answer.status} Scripted", *lines, "", ""]).encode()


async def _plain(connection: Connection, request: Request, answer: Answer, call: Call) -> None:
    body = answer.body
    if body is None:
        body = plain_body(answer, call) if answer.status == 200 else error_body(answer, call)
    ending, promised = answer.ending, len(body) + answer.filler
    if ending:
        body = body[: ending.at_byte if ending.at_byte is not None else len(body) // 2]
        promised = len(body) if ending.kind == "cut" else promised
    head = _head(answer, {"Content-Type": "application/json", "Content-Length": str(promised)})
    await connection.send(head + (b"" if request.method == "HEAD" else body))
    for start in range(0, answer.filler, 65536):
        await connection.send(b" " * min(65536, answer.filler - start))
    if ending and ending.kind != "cut":
        await connection.end(ending.kind)


async def _stream(connection: Connection, request: Request, answer: Answer, call: Call) -> None:
    headers = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
    await connection.send(_head(answer, headers))
    ending = answer.ending or Ending("cut")
    left = ending.at_byte
    for frame in _upto(frames(answer, call), ending.after):
        await _wait(answer, request.sent_pieces, frame)
        data = frame.data if left is None else frame.data[:left]
        left = None if left is None else left - len(data)
        for piece in _split(data, answer.split):
            await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        request.sent_pieces += frame.content
        if left == 0:
            break
    if ending.kind != "cut":
        await _held(answer, request.sent_pieces)
        await connection.end(ending.kind)
    await connection.send(b"0\r\n\r\n")


def _upto(found: Iterable[Frame], pieces: int | None) -> Iterable[Frame]:
    """The frames before content piece ``pieces``; all of them for None."""
    for frame in found:
        if pieces is not None and frame.content and pieces == 0:
            return
        yield frame
        if pieces is not None and frame.content:
            pieces -= 1


async def _wait(answer: Answer, piece: int, frame: Frame) -> None:
    if frame.content and piece and answer.interval:
        await asyncio.sleep(answer.interval)
    if frame.content or piece:
        await _held(answer, piece)


async def _held(answer: Answer, piece: int) -> None:
    for gate in (gate for before, gate in answer.gates if before == piece):
        await gate.wait()


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data] * bool(data)
