"""A translation: one request asked in another shape, and its answer told back in the first one.

Transport, verification, counting of calls and cancellation stay with the door that asks; a translation only turns data into data.

Decisions
1. Parts become parts: what one upstream read gave is told back in one write, as `Reading.empty` allows.
2. A translated event costs some 200 µs, and one read can hold hundreds: after every `TURN` events other streams have their turn.
3. What is told back passes the look of the client's own wire: a translation that lost its end is an error, never an answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Protocol, Self

import msgspec

from calliope_agent.errors import UpstreamRefused
from calliope_agent.upstream.attempt import Call, Kind, Part
from calliope_agent.upstream.look import Look, See, decode
from calliope_agent.upstream.sse import Event, SseParser, frame

encode = msgspec.json.encode
TURN = 16


class Translation(Protocol):
    """One request's. ``call`` is what is asked instead."""

    call: Call

    def stream(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
        """The answer's parts, told back."""
        ...

    def plain(self, body: bytes) -> bytes:
        """The whole answer, told back."""
        ...


def call_of(call: Call, kind: Kind, fields: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Call:
    """The same request in another shape. Headers of one wire mean nothing on the other, so they are not taken along."""
    body = {name: msgspec.Raw(encode(value)) for name, value in fields.items()}
    return Call(call.id, kind, body, call.stream, headers or {})


def fields_of(call: Call, names: frozenset[str]) -> dict[str, Any]:
    """The named fields of a body as Python values; absent and null ones are left out."""
    return {name: value for name in call.body if name in names and (value := call.field(name)) is not None}


def refused(what: str) -> UpstreamRefused:
    return UpstreamRefused(f"The request cannot be put into this provider's form: {what}.")


class Reading:
    """The events of parts as an async iterator of ``read``'s results; ``empty`` tells that the next one has to be waited for."""

    def __init__(self, parts: AsyncGenerator[Part], read: Callable[[Any], Any]) -> None:
        self._parts = parts
        self._read = read
        self._parser = SseParser()
        self._ready: deque[Any] = deque()
        self._since_turn = 0

    @property
    def empty(self) -> bool:
        return not self._ready

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._ready:
            part = await anext(self._parts)
            self._ready.extend(decode(event.data) for event in self._parser.feed(b"".join(part.frames)))
        self._since_turn += 1
        if self._since_turn == TURN:
            self._since_turn = 0
            await asyncio.sleep(0)
        return self._read(self._ready.popleft())


class Telling:
    """Gathers the events of one write and looks at each."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._frames: list[bytes] = []
        self._content = False

    def say(self, event: Mapping[str, Any], name: str = "") -> None:
        told = Event(name.encode(), encode(event))
        seen = self._look.see(told)
        if seen is See.DROP:
            return
        self._content = self._content or seen is See.CONTENT
        self._frames.append(frame(told.data, told.name))

    def part(self) -> Part:
        """What was said since the last part."""
        part = Part(self._frames, self._content)
        self._frames, self._content = [], False
        return part

    def end(self) -> None:
        """Raises `Truncated` when the translation lost the end."""
        self._look.end()
