"""Entries: what was stored comes back whole, and nothing else is an entry."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent.completion import entry
from calliope_agent.completion.entry import Entry


def an_entry(**more: object) -> Entry:
    facts: dict[str, object] = {
        "wire": "openai",
        "kind": "stream",
        "target": "openai/gpt",
        "stored_at": 1.5,
        "frames": (b"data: 1\n\n", b"data: [DONE]\n\n"),
        "finish": "stop",
        "usage": {"total_tokens": 3, "details": {"cached": None}},
        "model": "gpt-1",
    }
    return Entry(**{**facts, **more})  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8), st.text(max_size=20), st.floats(0, 1e10))
def test_frames_come_back_byte_for_byte(frames: list[bytes], model: str, stored_at: float) -> None:
    kept = an_entry(frames=tuple(frames), model=model, stored_at=stored_at)
    assert entry.decode(entry.encode(kept)) == kept


def test_a_plain_answer_comes_back() -> None:
    kept = an_entry(kind="plain", frames=(), body=b'{"choices": []}', usage=None)
    assert entry.decode(entry.encode(kept)) == kept


@pytest.mark.parametrize(
    "more",
    [{"schema": 2}, {"schema": 0}, {"frames": ()}, {"kind": "plain", "body": None}, {"kind": "other"}, {"wire": "x"}],
)
def test_another_schema_or_half_an_answer_is_a_miss(more: dict[str, object]) -> None:
    assert entry.decode(entry.encode(an_entry(**more))) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_an_entry_or_none(data: bytes) -> None:
    found = entry.decode(data)
    assert found is None or isinstance(found, Entry)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_entry_never_raises(place: int, value: int) -> None:
    data = bytearray(entry.encode(an_entry()))
    data[place % len(data)] = value
    found = entry.decode(bytes(data))
    assert found is None or isinstance(found, Entry)
    assert entry.decode(bytes(data[: place % len(data)])) is None


def test_a_missing_field_is_no_entry() -> None:
    assert entry.decode(msgspec.msgpack.encode({"wire": "openai"})) is None
