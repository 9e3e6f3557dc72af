"""The values that pass between the completion line and the doors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from calliope_agent.catalog import Target
from calliope_agent.errors import InvalidRequest
from calliope_agent.secret import Secret

Wire = Literal["openai", "anthropic"]
Kind = Literal["chat", "completions", "fim", "embeddings", "responses", "messages", "count_tokens"]

WIRE_OF: Mapping[Kind, Wire] = {
    "chat": "openai",
    "completions": "openai",
    "fim": "openai",
    "embeddings": "openai",
    "responses": "openai",
    "messages": "anthropic",
    "count_tokens": "anthropic",
}


def decoded(raw: msgspec.Raw, name: str) -> Any:
    """A field's value. Raises `InvalidRequest` for what JSON allows and no program can hold: 1e999, a thousand levels."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise InvalidRequest(
            f"{name} holds a number out of range, broken text or too many levels. Correct it.", param=name
        ) from exc


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it left the edge. ``body`` keeps every field's own JSON text, so that what we do not know passes intact.

    ``headers`` are the few that providers may see (``anthropic-beta`` and the like), never the caller's token.
    """

    id: str
    kind: Kind
    body: Mapping[str, msgspec.Raw]
    stream: bool
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def wire(self) -> Wire:
        return WIRE_OF[self.kind]

    def field(self, name: str) -> Any:
        """One field of the body as Python values; None where it is absent. Raises `InvalidRequest` naming it."""
        raw = self.body.get(name)
        return decoded(raw, name) if raw is not None else None

    def encoded(self, target: Target) -> bytes:
        """The body with the target's own model name, without what it refuses and with what it calls otherwise."""
        fields = {name: value for name, value in self.body.items() if name not in target.drops}
        for name, meant in target.provider.renames:
            if name in fields:
                fields.setdefault(meant, fields.pop(name))
        return msgspec.json.encode({**fields, "model": target.model.name})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one attempt, in seconds and bytes."""

    connect_s: float
    first_token_s: float
    idle_s: float
    answer_bytes: int


@dataclass(slots=True)
class Seen:
    """What the provider said about its answer; ``usage`` is its own JSON or None, never an invented 0."""

    finish: str | None = None
    model: str | None = None
    usage: Mapping[str, Any] | None = None
    has_content: bool = False
    arguments_incomplete: bool = False
    status: int | None = None
    provider_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one target."""

    call: Call
    target: Target
    key: Secret | None
    limits: Limits
    seen: Seen = field(default_factory=Seen)


class Part(NamedTuple):
    """What one upstream read gave: encoded events, ready for the client, and whether they hold content."""

    frames: list[bytes]
    content: bool


@dataclass(frozen=True, slots=True)
class Plain:
    """A whole, verified answer in the client's wire."""

    body: bytes
    content_type: str = "application/json"


class Door(Protocol):
    """The way to one wire's providers. Both methods raise `UpstreamError` and nothing else of their own."""

    def stream(self, attempt: Attempt) -> AsyncGenerator[Part]:
        """Parts as they are read; ends normally only after the provider's word that the answer is complete."""
        ...

    async def plain(self, attempt: Attempt) -> Plain:
        """The whole answer."""
        ...

    async def close(self) -> None:
        """Close pooled connections."""
        ...
