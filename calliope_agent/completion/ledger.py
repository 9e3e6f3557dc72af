"""What was asked and spent, by day and target.

Decisions
1. Tokens are the provider's own numbers. An answer without them is counted as such and never as zero, and a cost is only given
   where every token of the row has a known price.
2. Answers of the cache, joined ones and replays cost nothing: they have columns of their own.
3. Bounded: `MAX_DAYS` days of at most `MAX_TARGETS` targets; further names (a caller may invent them) share one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from calliope_agent.completion.record import Record
from calliope_agent.model import Prices

MAX_DAYS = 62
MAX_TARGETS = 200
OTHER = "(others)"
NOBODY = "(no target)"
UNPAID = frozenset({"hit", "join", "replay", "typed-through"})


@dataclass(frozen=True, slots=True)
class Tokens:
    """``input`` is what was read anew; both cache columns are the provider's own prompt cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def cost_usd(self, prices: Prices) -> float | None:
        """None where a price that is needed is not known. Cached input without a price of its own costs the full one."""
        read = prices.cache_read if prices.cache_read is not None else prices.input
        write = prices.cache_write if prices.cache_write is not None else prices.input
        parts = [(self.input, prices.input), (self.output, prices.output), (self.cache_read, read),
                 (self.cache_write, write)]  # fmt: skip
        if any(count and price is None for count, price in parts):
            return None
        return sum(count * (price or 0.0) for count, price in parts) / 1e6


@dataclass(slots=True)
class Row:
    """One target's day."""

    requests: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    from_cache: int = 0
    without_usage: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = 0.0

    def add(self, other: Row) -> None:
        """Sum up; one unknown cost makes the sum unknown."""
        for name in self.__slots__:
            if name != "cost_usd" and (more := getattr(other, name)):  # most are zero: a row may be one request's
                setattr(self, name, getattr(self, name) + more)
        known = self.cost_usd is not None and other.cost_usd is not None
        self.cost_usd = (self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None

    def as_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        told["cost_usd"] = None if self.cost_usd is None or self.without_usage else round(self.cost_usd, 6)
        return told


Days = dict[str, dict[str, Row]]


@dataclass(slots=True)
class Ledger:
    """``now`` gives the time in UTC, ``prices`` those of a target by its name, None where it is not in the catalog.

    ``days`` is all that is known, ``fresh`` what of it was counted here and is not in the ledger's file.
    """

    now: Callable[[], datetime]
    prices: Callable[[str], Prices | None]
    days: Days = field(default_factory=dict)
    fresh: Days = field(default_factory=dict)
    since: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.now()

    def take_up(self, since: datetime, days: Days) -> None:
        """These ``days``, counted from ``since`` on, and what is fresh are all that is known."""
        self.since = min(self.since, since)
        self.days = days
        _add(self.days, self.fresh)
        self._forget_old_days()

    def hand_out(self) -> Days:
        """What is fresh, for the file."""
        given, self.fresh = self.fresh, {}
        return given

    def hand_back(self, days: Days) -> None:
        """What was handed out is still fresh: it could not be written."""
        _add(self.fresh, days)

    def ended(self, record: Record) -> None:
        """Count one request that has come to its end."""
        counted = {self.now().date().isoformat(): {record.target or NOBODY: self._counted(record)}}
        _add(self.days, counted)
        _add(self.fresh, counted)
        self._forget_old_days()

    def _counted(self, record: Record) -> Row:
        row = Row(requests=1)
        row.answered += record.outcome == "complete"
        row.failed += record.outcome == "error"
        row.cancelled += record.outcome == "cancelled"
        if record.outcome != "complete":
            return row
        if record.cache in UNPAID:
            row.from_cache = 1
            return row
        tokens = tokens_of(record.usage)
        if tokens is None:
            row.without_usage = 1
        else:
            self._spend(row, tokens, record.target or "")
        return row

    def _spend(self, row: Row, tokens: Tokens, target: str) -> None:
        row.input_tokens = tokens.input
        row.output_tokens = tokens.output
        row.cache_read_tokens = tokens.cache_read
        row.cache_write_tokens = tokens.cache_write
        row.cost_usd = tokens.cost_usd(self.prices(target) or Prices())

    def _forget_old_days(self) -> None:
        while len(self.days) > MAX_DAYS:
            del self.days[min(self.days)]
            self.since = datetime.fromisoformat(min(self.days)).replace(tzinfo=UTC)


def _add(days: Days, more: Mapping[str, Mapping[str, Row]]) -> None:
    for day, rows in more.items():
        known = days.setdefault(day, {})
        for target, row in rows.items():
            known.setdefault(target if target in known or len(known) < MAX_TARGETS else OTHER, Row()).add(row)


def tokens_of(usage: Mapping[str, Any] | None) -> Tokens | None:
    """The tokens of a usage object of any wire; None where there is none.

    OpenAI's prompt tokens contain the cached ones (``prompt_tokens_details``, ``input_tokens_details``), Anthropic's do not.
    """
    if not usage:
        return None
    asked, given = _count(usage, "prompt_tokens", "input_tokens"), _count(usage, "completion_tokens", "output_tokens")
    if asked is None and given is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    inside = _count(details, "cached_tokens") if isinstance(details, Mapping) else None
    read = _count(usage, "cache_read_input_tokens") or 0
    write = _count(usage, "cache_creation_input_tokens") or 0
    if inside is not None:
        return Tokens(max(0, (asked or 0) - inside), given or 0, inside, 0)
    return Tokens(asked or 0, given or 0, read, write)


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    """A provider may write anything there: only whole numbers that are not negative count."""
    found = (usage.get(name) for name in names)
    return next((value for value in found if type(value) is int and value >= 0), None)
