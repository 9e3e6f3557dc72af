"""An entry: one verified answer as the cache keeps it, event by event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

# Raised whenever the fields change meaning: an entry of another schema is a miss, never a guess.
SCHEMA = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """``frames`` are the encoded events of a stream, ready for a client of ``wire``; ``body`` is a plain answer.

    ``target`` is ``provider/model`` as routed, ``model`` the provider's own word. ``stored_at`` is seconds since 1970.
    """

    wire: Literal["openai", "anthropic"]
    kind: Literal["stream", "plain"]
    target: str
    stored_at: float
    frames: tuple[bytes, ...] = ()
    body: bytes | None = None
    content_type: str = "application/json"
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    model: str | None = None
    schema: int = SCHEMA


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    return _ENCODER.encode(entry)


def decode(data: bytes) -> Entry | None:
    """None for bytes that are no entry of this schema, whoever wrote them."""
    try:
        entry = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    whole = entry.body is not None if entry.kind == "plain" else bool(entry.frames)
    return entry if entry.schema == SCHEMA and whole else None
