"""Long reads: given out in slices, with everybody else's turn in between, and nothing of them lost or doubled."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent import errors
from calliope_agent.upstream.attempt import Part, Seen
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.reading import FIRST_BYTES, LATER_BYTES, Reading
from calliope_agent.upstream.response import Response
from calliope_agent.upstream.sse import SseParser, frame
from tests.turns import counting_turns

ENOUGH = 1 << 30


class Line:
    """A connection that is not asked for anything."""

    def pause_reading(self) -> None:
        """The answer is longer than what is read at once."""

    def resume_reading(self) -> None:
        """It was read."""

    def done_with(self, response: Response) -> None:
        """Nobody reuses it."""


def word(number: int, size: int = 0) -> bytes:
    delta = {"content": f"word{number} " + "x" * size}
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def reading(body: bytes, bound: int = ENOUGH) -> Reading:
    """Of an answer that came in one read."""
    response = Response(Line())
    response.feed(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    return Reading(OpenAILook(Seen()), response, bound)


async def taken(one: Reading) -> list[Part]:
    parts: list[Part] = []
    while one.broken is None and await one.more():
        parts.append(one.take())
    parts.append(one.rest())
    return [part for part in parts if part.frames]


async def test_the_beginning_of_a_long_read_is_given_out_first() -> None:
    words = [word(number) for number in range(400)]
    parts = await taken(reading(b"\n\n".join([*words, b""])))
    sizes = [sum(map(len, part.frames)) for part in parts]
    assert sizes[0] <= FIRST_BYTES
    assert max(sizes) <= LATER_BYTES
    assert len(sizes) == 1 + -(-(sum(sizes) - sizes[0]) // LATER_BYTES)
    assert all(part.content for part in parts)
    assert [one for part in parts for one in part.frames] == [each + b"\n\n" for each in words]


async def test_others_have_their_turn_between_slices() -> None:
    one = reading(b"\n\n".join([*(word(number) for number in range(400)), b""]))
    seen: list[int] = []
    async with counting_turns() as turns:
        while await one.more():
            one.take()
            seen.append(turns.count)
    assert len(seen) > 2
    assert all(later > earlier for earlier, later in pairwise(seen[1:]))


async def test_an_error_beside_the_first_words_can_still_become_a_retry() -> None:
    one = reading(b"\n\n".join([word(1), b'data: {"error": {"code": 503}}', b""]))
    assert [part.content for part in await taken(one)] == [False]
    assert isinstance(one.broken, errors.Overloaded)


async def test_an_error_far_behind_the_first_words_breaks_the_stream() -> None:
    one = reading(b"\n\n".join([*(word(number) for number in range(400)), b'data: {"error": {"code": 503}}', b""]))
    parts = await taken(one)
    assert parts[0].content
    assert b"".join(parts[-1].frames).endswith(word(399) + b"\n\n")
    assert isinstance(one.broken, errors.Overloaded)


async def test_an_answer_over_the_bound_gives_out_nothing_of_the_read_that_passed_it() -> None:
    one = reading(word(1, 5000) + b"\n\n", bound=4096)
    assert await one.more()
    with pytest.raises(errors.AnswerTooLarge):
        one.take()


@given(
    sizes=st.lists(st.integers(0, 9000), max_size=30),
    end=st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]),
    whole=st.booleans(),
)
def test_slices_lose_and_double_nothing(sizes: list[int], end: bytes, *, whole: bool) -> None:
    words = [word(number, size) for number, size in enumerate(sizes)]
    body = end.join(words) + (end if whole else b"")
    parser = SseParser()
    expected = [frame(event.data) for event in (*parser.feed(body), *parser.flush())]
    parts = asyncio.run(taken(reading(body)))
    assert [one for part in parts for one in part.frames] == expected
