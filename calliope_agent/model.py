"""A model: what a provider's file knows of one of its models.

Decisions
1. The records of the catalog are msgspec's: making a dataclass of thirty fields costs 5 ms of every start, this 0.3.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from calliope_agent.table import Table, line, word_of

Role = Literal["chat", "inline", "embed", "fast"]

ROLES: tuple[Role, ...] = ("chat", "inline", "embed", "fast")
CAPABILITIES = frozenset({"chat", "completion", "embeddings", "fim", "json_schema", "reasoning", "tools", "vision"})

_FIM = re.compile(r"endpoint|suffix|chat|template(:[a-z0-9][a-z0-9-]*)?")


class Prices(msgspec.Struct, frozen=True):
    """USD per million tokens; None where the provider has no such price or we do not know it."""

    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None


class Model(msgspec.Struct, frozen=True):
    """One entry. ``name`` is what the provider is asked for; ``listed`` is False for a name only the caller knows."""

    name: str
    title: str | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[str] = frozenset()
    roles: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    fim: str | None = None
    dimensions: int | None = None
    drops: frozenset[str] = frozenset()
    prices: Prices = Prices()
    listed: bool = True


def parse(row: Table) -> Model:
    """One table of ``[[models]]``. Raises `ConfigError` with file and line."""
    name = row.text("name", model_name)
    if name is None:
        raise row.error("name", "is missing; every model needs it")
    entry = Model(
        name=name,
        title=row.text("title", line),
        context_tokens=row.count("context_tokens"),
        max_output_tokens=row.count("max_output_tokens"),
        capabilities=frozenset(row.texts("capabilities", word_of(CAPABILITIES))),
        roles=row.texts("roles", word_of(ROLES)),
        aliases=row.texts("aliases", model_name),
        fim=row.text("fim", fim_mode),
        dimensions=row.count("dimensions"),
        drops=frozenset(row.texts("drops", line)),
        prices=_prices(row),
    )
    row.finish()
    return entry


def _prices(row: Table) -> Prices:
    table = row.table("prices")
    if table is None:
        return Prices()
    prices = Prices(*(table.amount(key) for key in ("input", "output", "cache_read", "cache_write")))
    table.finish()
    return prices


def model_name(text: str) -> str:
    """A model's name as providers spell them (slashes, dots, colons and at-signs included). Raises ValueError."""
    if not text or len(text) > 200 or not text.isprintable() or text != text.strip():
        raise ValueError("must be a model's name on one line of at most 200 characters")
    return text


def fim_mode(text: str) -> str:
    """How a model fills in the middle: a mode, or a template by family. Raises ValueError."""
    if not _FIM.fullmatch(text):
        raise ValueError(f"must be endpoint, suffix, chat, template or template:FAMILY, not {text[:60]!r}")
    return text
