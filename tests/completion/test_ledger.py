"""Tokens and money: the providers' own numbers, and null where they are not known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from calliope_agent.completion.ledger import MAX_DAYS, MAX_TARGETS, OTHER, Ledger, Tokens, tokens_of
from calliope_agent.completion.metrics import Metrics
from calliope_agent.completion.record import Record
from calliope_agent.model import Prices

PRICES = Prices(input=2.0, output=10.0, cache_read=0.5, cache_write=2.5)


def record(target: str | None, usage: Any = None, **more: Any) -> Record:
    made = Record("id", "chat", "chat", False, 0.0, lambda: 0.0)
    made.target, made.usage = target, usage
    for name, value in more.items():
        setattr(made, name, value)
    return made


def ledger(day: list[int] | None = None) -> Ledger:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return Ledger(
        lambda: start + timedelta(days=(day or [0])[0]), lambda target: PRICES if target == "a/priced" else None
    )


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, None),
        ({}, None),
        ({"total_tokens": 7}, None),
        ({"prompt_tokens": -1, "completion_tokens": "7"}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": 10, "completion_tokens": 4}, Tokens(10, 4)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 8}}, Tokens(2, 0, 8)),
        ({"prompt_tokens": 10, "prompt_tokens_details": None}, Tokens(10)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 80}}, Tokens(0, 0, 80)),
        ({"input_tokens": 10, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}}, Tokens(7, 4, 3)),
        (
            {"input_tokens": 10, "output_tokens": 4, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5},
            Tokens(10, 4, 90, 5),
        ),
    ],
)
def test_tokens_of_every_wire(usage: Any, tokens: Tokens | None) -> None:
    assert tokens_of(usage) == tokens


@pytest.mark.parametrize(
    ("tokens", "prices", "cost"),
    [
        (Tokens(1_000_000, 100_000), PRICES, 3.0),
        (Tokens(0, 0, 1_000_000, 1_000_000), PRICES, 3.0),
        (Tokens(0, 0, 1_000_000), Prices(input=2.0), 2.0),
        (Tokens(5, 5), Prices(), None),
        (Tokens(5, 5), Prices(input=1.0), None),
        (Tokens(5, 0), Prices(input=1.0), 5e-6),
        (Tokens(), Prices(), 0.0),
    ],
)
def test_a_cost_is_known_or_null(tokens: Tokens, prices: Prices, cost: float | None) -> None:
    assert tokens.cost_usd(prices) == (pytest.approx(cost) if cost is not None else None)


def test_one_unknown_cost_makes_the_row_unknown() -> None:
    book = ledger()
    book.ended(record("a/priced", {"prompt_tokens": 1_000_000, "completion_tokens": 0}, outcome="complete"))
    row = book.days["2026-01-01"]["a/priced"]
    assert row.as_dict()["cost_usd"] == 2.0
    book.ended(record("a/priced", None, outcome="complete"))
    assert row.as_dict()["cost_usd"] is None
    assert row.without_usage == 1


def test_failures_and_kept_answers_cost_nothing() -> None:
    book = ledger()
    usage = {"prompt_tokens": 10, "completion_tokens": 10}
    for cache in ("hit", "join", "replay", "typed-through"):
        book.ended(record("a/priced", usage, outcome="complete", cache=cache))
    book.ended(record("a/priced", usage, outcome="error"))
    book.ended(record(None, None, outcome="error"))
    row = book.days["2026-01-01"]["a/priced"]
    assert (row.requests, row.from_cache, row.failed, row.input_tokens, row.cost_usd) == (5, 4, 1, 0, 0.0)


def test_names_and_days_are_bounded() -> None:
    day = [0]
    book = ledger(day)
    for number in range(MAX_TARGETS + 50):
        book.ended(record(f"a/{number}", outcome="error"))
    assert len(book.days["2026-01-01"]) == MAX_TARGETS + 1
    assert book.days["2026-01-01"][OTHER].requests == 50
    for day[0] in range(1, MAX_DAYS + 10):
        book.ended(record("a/priced", outcome="error"))
    assert len(book.days) == MAX_DAYS
    assert "2026-01-01" not in book.days


def test_metrics_escape_labels_and_bound_targets() -> None:
    counted = Metrics()
    for number in range(250):
        one = record(None, outcome="complete", ttft_ms=30.0)
        one.begin(f'a/"{number}\\\n', None)
        counted.ended(one)
    told = counted.text({})
    assert 'target="a/\\"0\\\\\\n"' in told
    assert 'calliope_attempts_total{target="(others)",code="ok"} 50' in told
    assert 'calliope_ttft_seconds_bucket{le="0.025"} 0' in told
    assert 'calliope_ttft_seconds_bucket{le="0.05"} 250' in told
    assert "calliope_ttft_seconds_sum 7.5" in told
