"""A provider that costs almost nothing: ``python -m tests.bench.lean_upstream`` prints its port and serves until it is ended.

The model's name says what is answered: ``gpt-plain`` a whole answer, ``gpt-burst`` `CHUNKS` chunks in one write,
``gpt-spaced`` the same chunks, one every `GAP_S` seconds. Nothing is parsed beyond the request's length.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

CHUNKS = 200
GAP_S = 0.005

_ID = {"id": "chatcmpl-bench", "created": 1735689600, "model": "bench"}


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = json.dumps({**_ID, "object": "chat.completion.chunk", "choices": choices})
    return b"data: " + body.encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _plain() -> bytes:
    message = {"role": "assistant", "content": "Hello world"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    body = json.dumps({**_ID, "object": "chat.completion", "choices": choices, "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


PLAIN = _plain()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = [_chunk(_event({"content": f"word{number} "})) for number in range(CHUNKS)]
TAIL = _chunk(_event({}, "stop")) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
BURST = HEAD + b"".join(EVENTS) + TAIL


class Provider(asyncio.Protocol):
    """One connection, one request after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
        if not found or len(rest) < length:
            return
        self._buffer = rest[length:]
        self.answer(rest)

    def answer(self, rest: bytes) -> None:
        """``rest`` begins with the body of a whole request."""
        if b"gpt-burst" in rest:
            self._transport.write(BURST)
        elif b"gpt-spaced" in rest:
            self._transport.write(HEAD + EVENTS[0])
            self._after(1)
        else:
            self._transport.write(PLAIN)

    def _after(self, number: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(GAP_S, self._next, number)

    def _next(self, number: int) -> None:
        if number < CHUNKS:
            self._transport.write(EVENTS[number])
            self._after(number + 1)
        else:
            self._transport.write(TAIL)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # the bench keeps the pipe open as long as it lives


if __name__ == "__main__":
    uvloop.run(serve())
