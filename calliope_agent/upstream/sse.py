"""Server-sent events, both ways: a parser for whatever a provider's socket delivers, and the encoding we own.

The parser follows the WHATWG HTML standard §9.2.6 (CR, LF and CRLF end lines, a BOM at the start is dropped, comments are
ignored, several ``data`` lines are joined by LF), fed with chunks cut anywhere, inside a UTF-8 character or a CRLF included.

Decisions
1. Bytes in, bytes out: payloads are JSON and are looked at by msgspec, so nothing is decoded to text on the way.
2. A block with a single ``data`` line is by far the usual case and takes a path without a loop over its fields.
3. At the end of the stream an unfinished block is given out by `flush`, though the standard drops it: several providers end
   with ``data: [DONE]`` and no blank line. The caller decides whether it is whole.
4. An event that comes in many pieces is gathered in a bytearray and only the new piece is searched: joining and splitting anew
   per piece cost 7 s of CPU for one event of 15 MB, which all other streams had to wait for.
"""

from __future__ import annotations

import msgspec

from calliope_agent.errors import AnswerTooLarge

MAX_EVENT_BYTES = 16 << 20
PING = b": ping\n\n"
DONE = b"[DONE]"
DONE_FRAME = b"data: [DONE]\n\n"
_BOM = b"\xef\xbb\xbf"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event; ``name`` is empty where the provider gave no ``event`` field."""

    name: bytes
    data: bytes


class SseParser:
    """Feed it chunks, get events. Raises `AnswerTooLarge` for an event over ``max_event_bytes``."""

    __slots__ = ("_buffer", "_held_cr", "_max", "_started")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._max = max_event_bytes
        self._started = False
        self._held_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        if not self._started:
            chunk = self._skip_bom(chunk)
            if not self._started:
                return []
        if self._held_cr or b"\r" in chunk:
            chunk = self._plain_ends(chunk)
        if self._buffer:
            seam = len(self._buffer) - 1
            self._buffer += chunk
            if self._buffer.find(b"\n\n", seam) < 0:
                return self._bounded([])
            chunk = self._taken()
        blocks = chunk.split(b"\n\n")
        if rest := blocks.pop():
            self._buffer += rest
        return self._bounded(blocks)

    def _bounded(self, blocks: list[bytes]) -> list[Event]:
        if len(self._buffer) > self._max:
            raise AnswerTooLarge(
                f"The provider sent one event of more than {self._max} bytes. Ask for a shorter answer."
            )
        events: list[Event] = []
        for block in blocks:
            if block.startswith(b"data: {") and b"\n" not in block:
                events.append(Event(b"", block[6:]))
            elif block and (event := _event(block)) is not None:
                events.append(event)
        return events

    def flush(self) -> list[Event]:
        """The block that the end of the stream left unfinished, if it holds data."""
        block = self._taken()
        event = _event(block) if block else None
        return [event] if event is not None else []

    def _taken(self) -> bytes:
        taken = bytes(self._buffer)
        self._buffer = bytearray()
        return taken

    def _skip_bom(self, chunk: bytes) -> bytes:
        """Wait until three bytes are there or the first bytes cannot be a BOM."""
        self._buffer += chunk
        if len(self._buffer) < len(_BOM) and _BOM.startswith(bytes(self._buffer)):
            return b""
        self._started = True
        return self._taken().removeprefix(_BOM)

    def _plain_ends(self, chunk: bytes) -> bytes:
        """CRLF and CR become LF. A CR at the very end has already become one, so an LF that follows it is dropped."""
        if self._held_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._held_cr = False
        if chunk:
            self._held_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(block: bytes) -> Event | None:
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data)) if data else None


def frame(data: bytes, name: bytes = b"") -> bytes:
    """One event's bytes. ``data`` is one line of JSON, or several lines that become several ``data`` fields."""
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    if name:
        return b"event: " + name + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A comment line; clients ignore it, people reading the wire do not."""
    return b": " + text.replace("\r", " ").replace("\n", " ").encode() + b"\n\n"


def with_id(encoded: bytes, number: int) -> bytes:
    """The same frame with an ``id`` field, for streams that can be resumed."""
    return b"id: " + str(number).encode() + b"\n" + encoded
