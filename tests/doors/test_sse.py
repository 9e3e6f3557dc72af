"""The event parser against arbitrary cuts and spellings, the encoders against arbitrary payloads, the looks against arbitrary events."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent import errors
from calliope_agent.api.fault import Shape, event
from calliope_agent.upstream.attempt import Seen
from calliope_agent.upstream.look_anthropic import AnthropicLook
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.look_responses import ResponsesLook
from calliope_agent.upstream.refusal import retry_after
from calliope_agent.upstream.sse import Event, SseParser, frame, with_id

LINE = st.text(st.characters(exclude_characters="\r\n\ufeff", exclude_categories=["Cs"]), max_size=12)
NAME = st.sampled_from(["", "error", "message_start", "content_block_delta"])
EVENTS = st.lists(st.tuples(NAME, st.lists(LINE, min_size=1, max_size=3)), max_size=6)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def reference(body: bytes) -> list[Event]:
    """The standard's algorithm, line by line over the whole body, for what both sides must agree on."""
    text = body.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found: list[Event] = []
    name, data = "", None
    for line in text.split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data is not None:
            found.append(Event(name.encode(), "\n".join(data).encode()))
        if not line:
            name, data = "", None
        elif field == "data":
            data = [*(data or []), value]
        elif field == "event":
            name = value
    return found


def spelt(events: list[tuple[str, list[str]]], end: str, *, comments: bool, space: bool) -> bytes:
    lines: list[str] = []
    gap = " " if space else ""
    for name, data in events:
        lines += [": a comment"] * comments + ([f"event:{gap}{name}"] if name else [])
        lines += [f"data:{gap}{line}" if space or not line.startswith(" ") else f"data: {line}" for line in data]
        lines += ["id: 7"] * comments + [""]
    return "".join(line + end for line in lines).encode()


@given(
    events=EVENTS,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    comments=st.booleans(),
    space=st.booleans(),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_any_spelling_cut_anywhere_reads_as_the_standard_says(
    events: list[tuple[str, list[str]]], end: str, comments: bool, space: bool, bom: bool, cuts: list[int]
) -> None:
    body = b"\xef\xbb\xbf" * bom + spelt(events, end, comments=comments, space=space)
    parser = SseParser()
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    found = [one for start, stop in pairwise(places) for one in parser.feed(body[start:stop])]
    assert found == reference(body)
    assert found == [Event(name.encode(), "\n".join(data).encode()) for name, data in events]


@given(events=EVENTS, end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_byte_by_byte_is_the_same(events: list[tuple[str, list[str]]], end: str) -> None:
    body = spelt(events, end, comments=True, space=True)
    parser = SseParser()
    assert [one for byte in body for one in parser.feed(bytes([byte]))] == SseParser().feed(body)


@given(payloads=st.lists(st.tuples(NAME, LINE.map(str.encode)), min_size=1, max_size=5), numbered=st.booleans())
def test_what_is_encoded_is_what_is_read(payloads: list[tuple[str, bytes]], numbered: bool) -> None:
    frames = [frame(data, name.encode()) for name, data in payloads]
    if numbered:
        frames = [with_id(one, number) for number, one in enumerate(frames)]
    assert SseParser().feed(b"".join(frames)) == [Event(name.encode(), data) for name, data in payloads]


@given(data=st.lists(LINE, min_size=1, max_size=4).map("\n".join))
def test_several_lines_stay_several_lines(data: str) -> None:
    assert SseParser().feed(frame(data.encode())) == [Event(b"", data.encode())]


@pytest.mark.parametrize("shape", ["openai", "anthropic", "responses"])
@given(message=st.text(max_size=40), param=st.none() | st.text(max_size=10))
def test_an_error_event_is_one_event_of_its_wire(shape: Shape, message: str, param: str | None) -> None:
    try:
        message.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate never leaves a decoder
    found = SseParser().feed(event(errors.Truncated(message, param=None), shape, "req_1"))
    assert len(found) == 1
    told = json.loads(found[0].data)
    inner = told if shape == "responses" else told["error"]
    assert (inner["message"], inner["code"]) == (message, "truncated")
    assert found[0].name == (b"" if shape == "openai" else b"error")


@pytest.mark.parametrize("kind", [OpenAILook, AnthropicLook, ResponsesLook])
@given(events=st.lists(st.tuples(NAME, JSON | st.binary(max_size=20)), max_size=6))
def test_a_look_at_anything_fails_only_as_a_provider(
    kind: type[OpenAILook | AnthropicLook | ResponsesLook], events: list[tuple[str, Any]]
) -> None:
    look = kind(Seen())
    try:
        for name, payload in events:
            data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            look.see(Event(name.encode(), data))
        look.end()
    except errors.UpstreamError:
        return
    assert look.complete


CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 2)},
                optional={
                    "delta": JSON,
                    "finish_reason": st.none() | st.sampled_from(["stop", "length", ""]),
                    "text": JSON,
                },
            ),
            max_size=3,
        ),
        "usage": JSON,
        "error": st.none() | JSON,
        "object": JSON,
        "model": JSON,
    },
)


@given(chunks=st.lists(CHUNK, max_size=8))
def test_no_end_is_found_that_was_not_said(chunks: list[dict[str, Any]]) -> None:
    look = OpenAILook(Seen())
    try:
        for chunk in chunks:
            look.see(Event(b"", json.dumps(chunk).encode()))
        look.end()
    except errors.UpstreamError:
        return
    said = [choice.get("finish_reason") for chunk in chunks for choice in chunk.get("choices") or []]
    assert look.seen.finish in [finish for finish in said if finish]


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@given(seconds=st.integers(0, 10**6))
def test_retry_after_in_its_three_forms(seconds: int) -> None:
    when = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after({"retry-after": str(seconds)}, NOW) == seconds
    assert retry_after({"retry-after": when}, NOW) == seconds
    assert retry_after({"retry-after-ms": str(seconds * 1000), "retry-after": "9"}, NOW) == seconds


@given(text=st.text(max_size=30))
def test_retry_after_of_anything_is_no_crash(text: str) -> None:
    found = retry_after({"retry-after": text}, NOW)
    assert found is None or found >= 0
