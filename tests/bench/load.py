"""The bench's client: raw bytes on kept connections, so that what is timed is the server and not an SDK."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Self, cast
from urllib.parse import urlsplit

END_OF_CHUNKS = b"0\r\n\r\n"
PATIENCE_S = 30


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds since the request was written: to the first data, and to the answer's end."""

    first: float
    whole: float


class Client(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._done: asyncio.Future[Timing]
        self._started = 0.0
        self._first = 0.0
        self._head = b""
        self._wanted: int | None = None
        self._tail = b""

    @classmethod
    async def open(cls, url: str) -> Self:
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(cls, parts.hostname or "127.0.0.1", parts.port or 80)
        return client

    def close(self) -> None:
        self._transport.close()

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    async def ask(self, request: bytes) -> Timing:
        """Raises `RuntimeError` for any status but 200, and when the end does not come within `PATIENCE_S`."""
        if self._transport.is_closing():
            raise RuntimeError("the connection was closed between two requests")
        self._done = asyncio.get_running_loop().create_future()
        self._head, self._tail, self._wanted, self._first = b"", b"", None, 0.0
        self._started = time.perf_counter()
        self._transport.write(request)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._done
        except TimeoutError as exc:
            raise RuntimeError(f"no end after {PATIENCE_S} s; the last bytes: {self._tail!r}") from exc

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_done") and not self._done.done():
            self._done.set_exception(RuntimeError("the connection was closed before the answer's end"))

    def data_received(self, data: bytes) -> None:
        if not hasattr(self, "_done") or self._done.done():
            self._transport.close()  # a server that ends an idle connection with a word
            return
        if self._wanted is None:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._done.set_exception(RuntimeError((head + data)[:500].decode("latin-1")))
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._wanted = int(length) if length else 0
        if not self._first and data:
            self._first = time.perf_counter()
        self._tail = (self._tail + data)[-max(self._wanted, 8) :]
        if len(self._tail) == self._wanted if self._wanted else self._tail.endswith(END_OF_CHUNKS):
            self._done.set_result(Timing(self._first - self._started, time.perf_counter() - self._started))


class Requests:
    """Writes requests to one server, every one with words of its own, so that no cache and no join can serve it."""

    def __init__(self, url: str, token: str | None) -> None:
        self._host = urlsplit(url).netloc
        self._token = token
        self._number = 0

    def chat(self, model: str, *, stream: bool) -> bytes:
        self._number += 1
        messages = [{"role": "user", "content": f"question {self._number}"}]
        body = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: {self._host}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *([f"Authorization: Bearer {self._token}"] if self._token else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body
