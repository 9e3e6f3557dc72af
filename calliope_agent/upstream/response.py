"""One answer to one request, as it is read from a connection: its head, then its body in whatever pieces the socket delivers.

Decisions
1. Ours and not an HTTP library's, since this is where a stream's time goes: with aiohttp's client a plain request cost 250 µs more and
   a burst of 200 chunks 550 µs more than with llhttp's parser (httptools, which the server side uses anyway) and a list.
2. The parser appends to the list of pieces itself, without a turn through Python per chunk of the chunked coding.
3. What was read before a break is given out before the break is told.
4. A parser per answer: bytes that come behind an answer's end are not the beginning of the next one, they end the connection.
5. The provider's framing is read as leniently as browsers do (line feeds alone, spaces behind a chunk's size, folded headers): nobody
   sits between us and it whom that could deceive.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import httptools

from calliope_agent import errors
from calliope_agent.upstream.coding import PIECE_BYTES, Inflater, inflater

HEAD_BYTES: Final = 64 << 10
HELD_BYTES: Final = 256 << 10
_INFORMATIONAL = 200
_SWITCHING = 101


class Line(Protocol):
    """What an answer needs of its connection."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def done_with(self, response: Response) -> None: ...


class Response:
    """``status`` is 0 until the head is there; ``headers`` has names in small letters, the first value of each."""

    __slots__ = (
        "_bare",
        "_broken",
        "_held",
        "_inflater",
        "_line",
        "_parser",
        "_paused",
        "_pieces",
        "_until_close",
        "_waiter",
        "complete",
        "headers",
        "keeps",
        "on_body",
        "status",
    )

    def __init__(self, line: Line) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.keeps = False
        self._line = line
        self._pieces: list[bytes] = []
        self._held = 0
        self._bare = 0
        self._paused = False
        self._until_close = False
        self._inflater: Inflater | None = None
        self._broken: errors.UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    @property
    def content_type(self) -> str:
        """The media type alone, in small letters; empty where none was given."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def begun(self) -> bool:
        """Whether something came, or never will."""
        return self.status != 0 or self._broken is not None

    async def head(self) -> None:
        """Wait for the head. Raises `UpstreamError`."""
        while not self.status:
            if self._broken is not None:
                raise self._broken
            await self.change()
        if "content-encoding" in self.headers:
            self._inflater = inflater(self.headers["content-encoding"])

    async def read(self) -> bytes:
        """What has come of the body since the last call; empty at its end. Raises `UpstreamError`."""
        if self._inflater is None:
            return await self._read()
        while not (data := self._inflater.piece()):
            packed = await self._read()
            if not packed:
                self._inflater.end()
                return b""
            self._inflater.feed(packed)
        if len(data) == PIECE_BYTES:
            await asyncio.sleep(0)  # a bomb's next megabyte is here already: others have their turn in between
        return data

    async def _read(self) -> bytes:
        while not self._pieces:
            if self.complete:
                return b""
            if self._broken is not None:
                raise self._broken
            await self.change()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            self._line.resume_reading()
        return data

    def release(self) -> None:
        """The caller needs no more of it: a connection in the middle of an answer is closed, which tells the provider."""
        self._line.done_with(self)
        # It knows this object too: without the ring both are gone at once, not at the next collection.
        self._parser = None

    def fail(self, error: errors.UpstreamError) -> None:
        """The rest will not come; whoever reads gets what is here, then ``error``."""
        if not self.complete and self._broken is None:
            self._broken = error
            self._parser = None  # what still comes while nobody reads is thrown away
        self.keeps = False
        self.wake()

    async def change(self) -> None:
        """Wait for bytes, for the end, or for `wake`."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """End a wait, whatever was waited for."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def feed(self, data: bytes) -> None:
        """Bytes from the socket."""
        parser, had = self._parser, len(self._pieces)
        if parser is None:
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(_cut() if self.status else _no_http())
            return
        if len(self._pieces) == had and not self.complete:
            self._count_bare(len(data))
            return
        self._bare = 0
        self._held += len(data)
        if self._held > HELD_BYTES and not self._paused and not self.complete:
            self._paused = True
            self._line.pause_reading()
        self.wake()

    def lost(self, error: Exception | None) -> None:
        """The connection ended."""
        if self._until_close and error is None:
            self.complete = True
        self.fail(_cut() if self.status else _dropped())

    def _count_bare(self, size: int) -> None:
        """Heads, chunk extensions and trailers without end would fill the memory, and cost their square in CPU."""
        self._bare += size
        if self._bare > HEAD_BYTES:
            self.fail(_cut() if self.status else _no_http())
        elif self.status:
            self.wake()

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        if self.complete:  # the parser would take another answer's body for the rest of this one's
            raise httptools.HttpParserError("another answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it is a trailer
            self.headers.setdefault(name.lower().decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None:
            return
        status = parser.get_status_code()
        if status == _SWITCHING:
            self.fail(_no_http())
        elif status < _INFORMATIONAL:
            self.headers = {}
        else:
            self.status = status
            self.keeps = parser.should_keep_alive()
            coding = self.headers.get("transfer-encoding", "")  # RFC 9112 §6.3
            self._until_close = "content-length" not in self.headers and "chunked" not in coding.lower()

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True


def _cut() -> errors.Truncated:
    return errors.Truncated("The provider's answer was cut in the middle. Ask again.")


def _no_http() -> errors.Malformed:
    return errors.Malformed("The provider's answer is not valid HTTP. Check its base URL.")


def _dropped() -> errors.Unreachable:
    return errors.Unreachable("The provider refuses or drops the connection. Is it running, and is its base URL right?")
