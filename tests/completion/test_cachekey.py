"""The key: everything that could change the answer changes it, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent.completion.cachekey import Place, key_of

PLACE = Place("chat", "openai", "openai", "https://api.openai.com/v1", "gpt", "environment OPENAI_API_KEY #1")
BODY = {
    "model": "chat",
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
    "temperature": 0,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def raw(body: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}


def key(body: dict[str, Any], place: Place = PLACE, headers: dict[str, str] | None = None) -> bytes | None:
    return key_of(place, raw(body), headers)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "messages"),
        ("wire", "anthropic"),
        ("provider", "azure"),
        ("base_url", "https://gw.example/v1"),
        ("base_url", None),
        ("model", "gpt-2"),
        ("identity", "environment OPENAI_API_KEY #2"),
    ],
)
def test_who_is_asked_changes_the_key(field: str, value: str | None) -> None:
    assert key(BODY, replace(PLACE, **{field: value})) != key(BODY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.1},
        {"temperature": None},
        {"seed": 1},
        {"suffix": "x"},
        {"messages": list(reversed(BODY["messages"]))},  # type: ignore[call-overload]
        {"tools": []},
        {"unknown_parameter": {"deep": [1, 2]}},
        {"n": 2},
    ],
)
def test_every_parameter_changes_the_key(more: dict[str, Any]) -> None:
    assert key({**BODY, **more}) != key(BODY)


def test_a_left_out_parameter_changes_the_key() -> None:
    assert key({name: value for name, value in BODY.items() if name != "temperature"}) != key(BODY)


def test_headers_that_reach_the_provider_change_the_key() -> None:
    assert key(BODY, headers={"anthropic-beta": "a"}) != key(BODY)
    assert key(BODY, headers={"Anthropic-Beta": "a"}) == key(BODY, headers={"anthropic-beta": "a"})


def test_a_stream_and_a_plain_request_share_a_key() -> None:
    assert key({**BODY, "stream": True, "stream_options": {"include_usage": True}}) == key(BODY)
    assert key({**BODY, "stream": False, "model": "another alias of the same target"}) == key(BODY)


def test_zero_is_zero_however_it_is_written() -> None:
    assert key({**BODY, "temperature": 0.0}) == key(BODY)
    assert key({**BODY, "temperature": -0.0}) == key(BODY)
    assert key({**BODY, "temperature": False}) != key(BODY)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_order_of_keys_and_white_space_do_not_matter(body: dict[str, Any]) -> None:
    other = {name: msgspec.Raw(json.dumps(shuffled(body[name]), indent=3).encode()) for name in reversed(body)}
    assert key_of(PLACE, other) == key(body)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_different_bodies_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    def asked(body: dict[str, Any]) -> str:
        free = {"model", "stream", "stream_options"}
        return json.dumps({name: value for name, value in body.items() if name not in free}, sort_keys=True)

    assert (key(one) == key(other)) == (asked(one) == asked(other))


@pytest.mark.parametrize("text", [b'"\\ud800"', b"1e400", b"{", b"[" * 5000 + b"]" * 5000])
def test_what_has_no_canonical_form_has_no_key(text: bytes) -> None:
    assert key_of(PLACE, {"messages": msgspec.Raw(text)}) is None


def test_the_key_is_stable_across_processes() -> None:
    found = key({"b": 1, "a": [True, None, "ä"]})
    assert found is not None
    assert found.hex() == KNOWN


KNOWN = "136d3b9832b86eeb2e56ba48274f94669d7bcfabbc054337f52da3236ed147d4"
