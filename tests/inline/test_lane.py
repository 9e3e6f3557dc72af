"""The lane through its door: who is answered from where, what is asked, and what is cancelled."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest

from calliope_agent.errors import Overloaded, ServerStopping, Superseded
from calliope_agent.inline.lane import Lane, LaneSettings
from calliope_agent.inline.request import InlineCall, InlineRequest, Suggestion
from tests.bench.virtual_loop import run

SUFFIX = "\nend()\n"
START = "def f(x):\n    "


@dataclass
class Asked:
    """One upstream call and how it ended: "open", "done", "failed" or "cancelled" with its time."""

    call: InlineCall
    at: float
    ended: str = "open"
    ended_at: float = 0.0


@dataclass
class Model:
    """Answers each call with the next script: pieces, each after ``gap_s``, or an error."""

    scripts: list[list[str | Exception]]
    gap_s: float = 0.1
    asked: list[Asked] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def __call__(self, call: InlineCall) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        asked = Asked(call, loop.time())
        self.asked.append(asked)
        script = self.scripts[len(self.asked) - 1]
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for piece in script:
                await asyncio.sleep(self.gap_s)
                if isinstance(piece, Exception):
                    asked.ended = "failed"
                    raise piece
                yield piece
            asked.ended = "done"
        finally:
            self.running -= 1
            asked.ended = "cancelled" if asked.ended == "open" else asked.ended
            asked.ended_at = loop.time()


def on_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def wrapped() -> None:
        async def body() -> None:
            await test()

        run(body())

    return wrapped


def lane(model: Model, settings: LaneSettings | None = None) -> Lane:
    return Lane(model, clock=asyncio.get_running_loop().time, sleep=asyncio.sleep, settings=settings)


def asking(prefix: str, suffix: str = SUFFIX, editor: str = "editor-1") -> InlineRequest:
    return InlineRequest(prefix, suffix, "test/qwen-coder", fim="suffix", path="a.py", editor=editor)


def soon(lane: Lane, request: InlineRequest) -> asyncio.Task[Suggestion]:
    return asyncio.create_task(lane.suggest(request))


async def after(seconds: float) -> None:
    """Simulated time, so not a wait."""
    await asyncio.sleep(seconds)


@on_virtual_time
async def test_a_first_keystroke_asks_and_the_same_place_is_remembered() -> None:
    model = Model([["return ", "x + 1"]])
    inline = lane(model)
    assert await inline.suggest(asking(START)) == Suggestion("return x + 1", "upstream", "stop")
    assert await inline.suggest(asking(START)) == Suggestion("return x + 1", "cache", "stop")
    assert len(model.asked) == 1
    assert (model.asked[0].call.prompt, model.asked[0].call.suffix) == (START, SUFFIX)


@on_virtual_time
async def test_typing_through_asks_nothing() -> None:
    model = Model([["y = x + 1\n    z = y\n    return z"]])
    inline = lane(model)
    await inline.suggest(asking(START))
    for count in range(1, 20):
        found = await inline.suggest(asking(START + "y = x + 1\n    z = y"[:count]))
        assert found.source == "typed-through"
        assert found.text == "y = x + 1\n    z = y\n    return z"[count:]
    assert len(model.asked) == 1


@on_virtual_time
async def test_lines_beyond_the_shown_ones_are_remembered() -> None:
    model = Model([["a = 1\n    b = 2\n    c = 3\n    d = 4"]])
    inline = lane(model)
    asked = replace(asking(START), max_lines=1)
    assert await inline.suggest(asked) == Suggestion("a = 1", "upstream", "length")
    await after(1)
    found = await inline.suggest(replace(asked, prefix=START + "a = 1\n    b = 2\n    "))
    assert found == Suggestion("c = 3", "typed-through", "length")
    assert len(model.asked) == 1


@on_virtual_time
async def test_a_changed_suffix_or_another_place_asks_again() -> None:
    model = Model([["return x"], ["pass"], ["pass"]])
    inline = lane(model)
    await inline.suggest(asking(START))
    assert (await inline.suggest(asking(START, "\nother()\n"))).text == "pass"
    assert (await inline.suggest(asking("import os\n" + START))).text == "pass"


@on_virtual_time
async def test_a_running_call_is_joined_by_the_keystroke_that_types_through_it() -> None:
    model = Model([["ret", "urn x", " + 1"]])
    inline = lane(model)
    first = soon(inline, asking(START))
    await after(0.05)
    second = soon(inline, asking(START + "r"))
    await after(0.2)
    third = soon(inline, asking(START + "re"))
    assert await third == Suggestion("turn x + 1", "joined", "stop")
    for older in (first, second):
        with pytest.raises(Superseded):
            await older
    assert [asked.ended for asked in model.asked] == ["done"]


@on_virtual_time
async def test_a_keystroke_that_contradicts_the_running_text_cancels_it_at_once() -> None:
    model = Model([["return x", "never"], ["pass"]])
    inline = lane(model)
    first = soon(inline, asking(START))
    await after(0.15)
    second = soon(inline, asking(START + "p"))
    await after(0)
    with pytest.raises(Superseded):
        await first
    await second
    assert [asked.ended for asked in model.asked] == ["cancelled", "done"]
    assert model.asked[0].ended_at == pytest.approx(0.15)
    assert model.asked[1].at == pytest.approx(0.15)


@on_virtual_time
async def test_a_joined_call_that_turns_out_wrong_is_replaced_at_once() -> None:
    model = Model([["x", "never"], ["ass"]])
    inline = lane(model)
    first = soon(inline, asking(START))
    await after(0.05)
    second = soon(inline, asking(START + "p"))
    assert await second == Suggestion("ass", "upstream", "stop")
    with pytest.raises(Superseded):
        await first
    assert [asked.ended for asked in model.asked] == ["cancelled", "done"]
    assert model.asked[0].ended_at == pytest.approx(0.1)


@on_virtual_time
async def test_a_jump_cancels_and_another_editor_or_document_does_not() -> None:
    model = Model([["one"], ["two"], ["three"], ["four"]])
    inline = lane(model)
    first = soon(inline, asking(START))
    other_editor = soon(inline, asking("other " + START, editor="editor-2"))
    other_document = soon(inline, replace(asking(START), path="b.py"))
    await after(0.05)
    jumped = soon(inline, asking("jump " + START))
    with pytest.raises(Superseded):
        await first
    assert [(await task).text for task in (other_editor, other_document, jumped)] == ["two", "three", "four"]
    assert [asked.ended for asked in model.asked] == ["cancelled", "done", "done", "done"]


@on_virtual_time
async def test_a_shared_call_outlives_one_editors_change_of_mind() -> None:
    model = Model([["return x"], ["pass"]], gap_s=0.2)
    inline = lane(model)
    first = soon(inline, asking(START))
    shared = soon(inline, asking(START, editor="editor-2"))
    await after(0.1)
    soon(inline, asking("jump " + START))
    assert await shared == Suggestion("return x", "joined", "stop")
    with pytest.raises(Superseded):
        await first


@on_virtual_time
async def test_backspace_finds_the_older_suggestion_and_only_where_it_fits() -> None:
    model = Model([["return x"], ["= 1"], ["pass"]])
    inline = lane(model)
    await inline.suggest(asking(START))
    await inline.suggest(asking(START + "y"))
    assert await inline.suggest(asking(START)) == Suggestion("return x", "cache", "stop")
    assert (await inline.suggest(asking(START[:-1]))).source == "upstream"


@on_virtual_time
async def test_a_row_of_deletions_asks_once() -> None:
    model = Model([["rn x"], ["pass"]])
    inline = lane(model)
    await inline.suggest(asking(START + "retu"))
    tasks = []
    for count in (3, 2, 1, 0):
        tasks.append(soon(inline, asking(START + "retu"[:count])))
        await after(0.1)
    assert (await tasks[-1]).text == "pass"
    assert [isinstance(error, Superseded) for error in await asyncio.gather(*tasks[:-1], return_exceptions=True)] == [
        True
    ] * 3
    assert len(model.asked) == 2
    assert model.asked[1].call.prompt == START


@on_virtual_time
async def test_calls_in_vain_wait_for_a_pause_until_the_line_ends_or_something_is_typed_through() -> None:
    model = Model([["wrong"], ["wrong"], ["wrong"], ["right"], ["new"]])
    inline = lane(model, LaneSettings(vain_pauses_s=(0, 0, 0, 0.15)))
    loop = asyncio.get_running_loop()
    waits = []
    for typed in ("", "a", "ab", "abc", "abcri", "abcrix", "abcrix\n    "):
        at = loop.time()
        await inline.suggest(asking(START + typed))
        waits.append(round(loop.time() - at, 3))
        await after(0.2)
        model.scripts.append(["new"])
    assert waits == [0.1, 0.1, 0.1, 0.25, 0, 0.1, 0.1]


@on_virtual_time
async def test_the_budget_answers_empty_and_the_call_fills_the_memory() -> None:
    model = Model([["return x"]], gap_s=0.5)
    inline = lane(model)
    assert await inline.suggest(replace(asking(START), budget_s=0.2)) == Suggestion("", "budget", "length")
    assert asyncio.get_running_loop().time() == pytest.approx(0.2)
    await after(0.5)
    assert await inline.suggest(asking(START + "ret")) == Suggestion("urn x", "typed-through", "stop")
    assert model.asked[0].ended == "done"


@on_virtual_time
async def test_a_budget_in_the_middle_of_the_text_shows_none_of_it() -> None:
    model = Model([["return", " x", " + y"]], gap_s=0.1)
    inline = lane(model)
    assert await inline.suggest(replace(asking(START), budget_s=0.25)) == Suggestion("", "budget", "length")


@on_virtual_time
async def test_a_stream_gives_pieces_as_they_become_certain() -> None:
    model = Model([["return", " x", " + 1\nother"]])
    inline = lane(model)
    loop = asyncio.get_running_loop()
    async with aclosing(inline.stream(replace(asking(START), mode="single", budget_s=0.15))) as stream:
        pieces = [(round(loop.time(), 3), piece) async for piece in stream]
    assert pieces == [(0.1, "return"), (0.2, " x"), (0.3, " + 1")]
    assert stream.suggestion() == Suggestion("return x + 1", "upstream", "length")


@on_virtual_time
async def test_a_leaving_caller_ends_the_call_unless_the_next_keystroke_joins() -> None:
    model = Model([["return x"], ["pass"]], gap_s=0.3)
    inline = lane(model)
    left = soon(inline, asking(START, editor=""))
    await after(0.1)
    left.cancel()
    await after(0.05)
    joined = soon(inline, asking(START + "r", editor=""))
    assert (await joined).text == "eturn x"
    gone = soon(inline, asking("other", editor=""))
    await after(0.1)
    gone.cancel()
    await after(0.1)
    assert [asked.ended for asked in model.asked] == ["done", "cancelled"]
    assert model.asked[1].ended_at - model.asked[1].at <= 0.2 - 0.01


@on_virtual_time
async def test_an_error_reaches_every_reader_and_nothing_is_remembered() -> None:
    model = Model([["ret", Overloaded("busy")], ["return x"]])
    inline = lane(model)
    first = soon(inline, asking(START, editor=""))
    second = soon(inline, asking(START, editor=""))
    for task in (first, second):
        with pytest.raises(Overloaded):
            await task
    assert (await inline.suggest(asking(START))).source == "upstream"


@on_virtual_time
async def test_at_most_so_many_calls_run_at_once() -> None:
    model = Model([["one"]] * 6)
    inline = lane(model, LaneSettings(concurrency=2))
    await asyncio.gather(*(inline.suggest(asking(f"place {number} ", editor="")) for number in range(6)))
    assert model.most_running == 2


@on_virtual_time
async def test_the_end_of_a_suggestion_is_asked_ahead_and_dropped_when_typing_leads_elsewhere() -> None:
    model = Model([["value = x"], ["\n    return value"], ["value = x"], ["never", "seen"], ["pass"]])
    inline = lane(model, LaneSettings(prefetch_chars=8))
    await inline.suggest(asking(START))
    await inline.suggest(asking(START + "value ="))
    await after(0.5)
    assert model.asked[1].call.prompt == START + "value = x"
    assert await inline.suggest(asking(START + "value = x")) == Suggestion("\n    return value", "cache", "stop")
    other = asking("other:\n    ")
    await inline.suggest(other)
    await inline.suggest(replace(other, prefix=other.prefix + "value ="))
    await after(0.05)
    await inline.suggest(replace(other, prefix=other.prefix + "value =="))
    assert [asked.ended for asked in model.asked] == ["done", "done", "done", "cancelled", "done"]


@on_virtual_time
async def test_a_settled_empty_rest_asks_nothing() -> None:
    model = Model([["foo()\n    return x"]])
    inline = lane(model)
    await inline.suggest(asking(START))
    assert await inline.suggest(asking(START + "foo(", ")" + SUFFIX)) == Suggestion("", "typed-through", "stop")
    assert await inline.suggest(asking(START + "foo()")) == Suggestion("\n    return x", "typed-through", "stop")


@on_virtual_time
async def test_no_cache_asks_and_no_store_remembers_nothing() -> None:
    model = Model([["one"], ["two"], ["three"], ["four"]])
    inline = lane(model)
    await inline.suggest(asking(START))
    assert (await inline.suggest(replace(asking(START), reuse=False))).text == "two"
    assert (await inline.suggest(replace(asking("z"), store=False))).text == "three"
    assert (await inline.suggest(asking("z"))).text == "four"


@on_virtual_time
async def test_an_empty_answer_is_an_answer_and_is_not_remembered() -> None:
    model = Model([[], []])
    inline = lane(model)
    assert await inline.suggest(asking(START)) == Suggestion("", "upstream", "stop")
    assert await inline.suggest(asking(START)) == Suggestion("", "upstream", "stop")
    assert len(model.asked) == 2


@on_virtual_time
async def test_a_chat_model_is_asked_by_prompt_and_its_tags_go() -> None:
    model = Model([["Sure: <ins", "ert>return x</ins", "ert> bye"]])
    inline = lane(model)
    asked = replace(asking(START), target="test/gpt", fim="chat")
    assert (await inline.suggest(asked)).text == "return x"
    assert model.asked[0].call.kind == "chat"


@on_virtual_time
async def test_special_tokens_end_the_call() -> None:
    model = Model([["return x<|fim", "_middle|>junk", "more"]])
    inline = lane(model)
    assert (await inline.suggest(asking(START))).text == "return x"
    await after(0)
    assert model.asked[0].ended == "cancelled"
    assert model.asked[0].ended_at == pytest.approx(0.2)


@on_virtual_time
async def test_closing_ends_calls_and_callers() -> None:
    model = Model([["one"], ["two"]])
    inline = lane(model, LaneSettings(concurrency=1))
    tasks = [soon(inline, asking(place, editor="")) for place in ("a", "b")]
    await after(0.05)
    await inline.aclose()
    for task in tasks:
        with pytest.raises(ServerStopping):
            await task
    assert [asked.ended for asked in model.asked] == ["cancelled"]


@on_virtual_time
async def test_forgetting_asks_again() -> None:
    model = Model([["one"], ["two"]])
    inline = lane(model)
    await inline.suggest(asking(START))
    inline.forget()
    assert (await inline.suggest(asking(START))).text == "two"
    assert inline.counts["upstream"] == inline.counts["call"] == 2
