"""The cache's key: two requests share one exactly when one answer serves both.

Decisions
1. ``stream`` and ``stream_options`` are left out: a recorded stream can answer a plain request and the other way
   round. Every other parameter counts, those that we do not know included.
2. Objects are compared without regard to the order of their keys, arrays with it. At the top level ``0.0`` is ``0``:
   SDKs differ there over one and the same temperature.
3. A body that JSON allows and Python's text does not (a lone surrogate) has no key. It is answered uncached: a key
   over bytes we do not understand would be a guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

SCHEMA = 1
NOT_ASKED = frozenset({"model", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class Place:
    """Who is asked: ``identity`` names the key that pays (never the key itself), so no key gets another's answers."""

    kind: str
    wire: str
    provider: str
    base_url: str | None
    model: str
    identity: str


def key_of(place: Place, body: Mapping[str, msgspec.Raw], headers: Mapping[str, str] | None = None) -> bytes | None:
    """32 bytes of SHA-256, or None for a request that has no canonical form.

    ``body`` holds each top-level field's JSON text, ``headers`` those that reach the provider and change its answer.
    """
    try:
        asked = {name: _decoded(raw) for name, raw in body.items() if name not in NOT_ASKED}
        canonical = msgspec.json.encode(
            [
                SCHEMA,
                [place.kind, place.wire, place.provider, place.base_url, place.model, place.identity],
                {name.lower(): value for name, value in (headers or {}).items()},
                asked,
            ],
            order="sorted",
        )
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return hashlib.sha256(canonical).digest()


def _decoded(raw: msgspec.Raw) -> Any:
    value = msgspec.json.decode(raw)
    return int(value) if isinstance(value, float) and value.is_integer() else value
