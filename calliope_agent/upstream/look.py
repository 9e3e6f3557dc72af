"""A minimal look at each event of a stream: is it content, is it the end, is it an error?

A look knows one wire's events. It forwards what it does not understand, drops what would lie (a second finish), raises what the
provider calls an error, and at the end of the stream says whether the provider ever called the answer complete.

Decisions
1. msgspec structs with every field optional: about 1 µs an event, and a wrong type is a `Malformed` event, not a crash.
2. A second finish for the same choice is dropped when it carries nothing; content after a finish is `Malformed`, since a client
   that stopped reading at the first finish would have lost it silently.
3. Fragments of tool arguments are joined only to learn whether they parse: they are forwarded untouched either way.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Protocol

import msgspec

from calliope_agent.errors import Malformed
from calliope_agent.upstream.attempt import Seen
from calliope_agent.upstream.sse import Event

_decode = msgspec.json.Decoder().decode
NOTHING = msgspec.Raw()  # a union of Raw and None would be read as None alone


def decode(data: bytes | str | msgspec.Raw) -> Any:
    """A provider's JSON. Raises `msgspec.DecodeError`, also for what is nested more deeply than Python can follow."""
    try:
        return _decode(data)
    except RecursionError as exc:
        raise msgspec.DecodeError("nested too deeply") from exc


class See(IntEnum):
    """What to do with an event."""

    DROP = 0
    FORWARD = 1
    CONTENT = 2


class Look(Protocol):
    """The state of one stream's look."""

    seen: Seen

    @property
    def complete(self) -> bool: ...

    def see(self, event: Event) -> See:
        """Raises `UpstreamError` for an error event and `Malformed` for what the wire does not allow."""
        ...

    def end(self) -> None:
        """Raises `Truncated` when the stream ended without the provider's word."""
        ...


def given(raw: msgspec.Raw) -> Any | None:
    """The value of a field kept raw; None where it is absent or null."""
    text = bytes(raw)
    return None if text in (b"", b"null") else decode(text)


def parses(text: str) -> bool:
    """Empty arguments are legal: several providers send none for a function without parameters."""
    if not text.strip():
        return True
    try:
        decode(text)
    except msgspec.DecodeError:
        return False
    return True


def malformed(data: bytes) -> Malformed:
    return Malformed(f"The provider sent an event of {len(data)} bytes that is not what its API promises. Ask again.")
