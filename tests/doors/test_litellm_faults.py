"""Every fault through the litellm door: the exact error, exactly one call, nothing invented, no canary anywhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from calliope_agent import errors
from calliope_agent.upstream.attempt import Kind, Part
from tests.doors.litellm_rig import HI, KEY, LIMITS, QUIET, rig
from tests.upstream import (
    Answer,
    done_only,
    error_event,
    hang_up,
    html,
    malformed,
    nothing,
    raw,
    reset,
    status,
    text,
)

pytestmark = QUIET
CANARY = "canary-of-the-provider"
HELLO = text("Hel", "lo")
ROUTES: list[tuple[str, Kind]] = [
    ("openai", "messages"),
    ("anthropic", "chat"),
    ("litellm-openai", "chat"),
    ("litellm-anthropic", "chat"),
    ("litellm-openai", "messages"),
]
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
EVERYWHERE = pytest.mark.parametrize(("route", "kind"), ROUTES, ids=[f"{kind}-over-{route}" for route, kind in ROUTES])

# Faults of the answer's status: the same everywhere, streamed or not.
REFUSALS: dict[str, tuple[Answer, type[errors.UpstreamError], int | None]] = {
    "429": (status(429, message=CANARY, headers={"Retry-After": "2"}), errors.RateLimited, 429),
    "quota": (status(429, message=f"check your billing {CANARY}"), errors.QuotaExhausted, 429),
    "500": (status(500, message=CANARY), errors.Overloaded, 500),
    "529": (status(529, message=CANARY), errors.Overloaded, 529),
    "401 echoing the key": (status(401, message=CANARY).echoing_key(), errors.KeyRejected, 401),
    "403": (status(403, message=CANARY), errors.KeyRejected, 403),
    "404": (status(404), errors.ModelGone, 404),
    "404 page": (raw(b"<html>", "text/html", 404), errors.NotAModel, 404),
    "400 with the key in it": (status(400, message=f"bad field {KEY}"), errors.UpstreamRefused, 400),
    "400 echoing the key": (status(400, message=CANARY).echoing_key(), errors.KeyRejected, 400),
    "context": (status(400, message="the maximum context length is 5"), errors.ContextTooLong, 400),
    "policy": (status(400, message="content_policy violation"), errors.ContentRefused, 400),
    "413": (status(413), errors.UpstreamRefused, 413),
    "422": (status(422), errors.UpstreamRefused, 422),
    "302": (raw(b"", "text/html", 302), errors.NotAModel, 302),
    "hang up": (hang_up(), errors.Unreachable, None),
    "reset": (reset(), errors.Unreachable, None),
    "html": (html(), errors.NotAModel, None),
}
# Faults inside a stream.
BREAKS: dict[str, tuple[Answer, type[errors.UpstreamError]]] = {
    "cut": (HELLO.cut_after(1), errors.Truncated),
    "drop": (HELLO.drop_after(1), errors.Truncated),
    "reset": (HELLO.reset_after(1), errors.Truncated),
    "no finish": (HELLO.without_finish(), errors.Truncated),
    "done only": (done_only(), errors.Truncated),
    "nothing": (nothing(), errors.Truncated),
    "not a stream's words": (raw(b"nonsense", "text/event-stream"), errors.Truncated),
    "garbled": (HELLO.garble_after(1), errors.Malformed),
    "error after content": (HELLO.then_error(503, CANARY), errors.Overloaded),
    "error at once": (error_event(529, CANARY), errors.Overloaded),
}


Said = Callable[[], str]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Said:
    """Whatever was logged and printed."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text + "".join(capfd.readouterr())


async def _gather(stream: AsyncIterator[Part], parts: list[Part]) -> None:
    async for part in stream:
        parts.append(part)  # noqa: PERF401  what came before the error must be kept


@EVERYWHERE
@BOTH
@pytest.mark.parametrize("row", REFUSALS)
async def test_a_refusal(row: str, route: str, kind: Kind, stream: bool, said: Said) -> None:
    answer, expected, provider_status = REFUSALS[row]
    async with rig() as made:
        made.scripted.script(answer)
        attempt = made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": stream})
        with pytest.raises(errors.UpstreamError) as caught:
            await (made.frames(attempt) if stream else made.plain(attempt))
        assert type(caught.value) is expected
        assert caught.value.provider_status == provider_status
        assert caught.value.retry_after_s == (2 if row == "429" else None)
        assert made.scripted.calls == 1
    told = caught.value.message + said()
    assert KEY not in told
    assert CANARY not in told


@EVERYWHERE
@pytest.mark.parametrize("row", BREAKS)
async def test_a_stream_that_breaks(row: str, route: str, kind: Kind, said: Said) -> None:
    answer, expected = BREAKS[row]
    if row == "garbled" and not route.startswith("litellm"):
        expected = errors.Truncated  # our own client reads as far as the framing holds
    parts: list[Part] = []
    async with rig() as made:
        made.scripted.script(answer)
        attempt = made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": True})
        with pytest.raises(errors.UpstreamError) as caught:
            await _gather(made.door.stream(attempt), parts)
        assert type(caught.value) is expected
        assert made.scripted.calls == 1
    told = b"".join(b"".join(part.frames) for part in parts)
    assert b'"finish_reason":"' not in told
    assert b"message_stop" not in told
    assert b'"stop_reason":"' not in told
    assert CANARY not in caught.value.message + said()


@pytest.mark.parametrize("row", ["cut", "no finish", "done only", "nothing", "garbled", "error after content"])
async def test_a_plain_call_of_litellms_own_is_verified_as_a_stream_is(row: str) -> None:
    answer, expected = BREAKS[row]
    async with rig() as made:
        made.scripted.script(answer)
        with pytest.raises(errors.UpstreamError) as caught:
            await made.plain(made.attempt("litellm-openai", "chat", {"messages": HI}))
        assert type(caught.value) is expected
        assert made.scripted.calls == 1


@EVERYWHERE
async def test_silence_is_a_stall_and_the_provider_is_left(route: str, kind: Kind) -> None:
    async with rig() as made:
        await made.frames(made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": True}))
        made.scripted.script(HELLO.stall_after(1))
        short = replace(LIMITS, idle_s=0.3)
        attempt = made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": True}, limits=short)
        with pytest.raises(errors.Stalled):
            await made.frames(attempt)
        await made.scripted.client_gone(1)
        assert made.scripted.calls == 2


@EVERYWHERE
async def test_a_malformed_event(route: str, kind: Kind) -> None:
    async with rig() as made:
        made.scripted.script(malformed())
        with pytest.raises(errors.UpstreamError) as caught:
            await made.frames(made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": True}))
        # litellm's reader of Anthropic's wire drops what it cannot parse and so never sees the finish behind it.
        assert type(caught.value) is (errors.Truncated if route == "litellm-anthropic" else errors.Malformed)


@EVERYWHERE
@BOTH
async def test_an_answer_over_the_bound(route: str, kind: Kind, stream: bool) -> None:
    async with rig() as made:
        made.scripted.script(text(*["x" * 1000] * 20))
        small = replace(LIMITS, answer_bytes=5000)
        body = {"messages": HI, "max_tokens": 5, "stream": stream}
        attempt = made.attempt(route, kind, body, limits=small)
        with pytest.raises(errors.AnswerTooLarge):
            await (made.frames(attempt) if stream else made.plain(attempt))


@EVERYWHERE
@BOTH
async def test_an_empty_answer_with_a_finish_is_an_answer(route: str, kind: Kind, stream: bool) -> None:
    async with rig() as made:
        made.scripted.script(Answer())
        attempt = made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": stream})
        await (made.frames(attempt) if stream else made.plain(attempt))
        assert attempt.seen.finish in ("stop", "end_turn")
        assert not attempt.seen.has_content


@EVERYWHERE
@pytest.mark.parametrize("pieces", [0, 1], ids=["before content", "after content"])
async def test_leaving_leaves_the_provider(route: str, kind: Kind, pieces: int) -> None:
    gate = asyncio.Event()
    async with rig() as made:
        made.scripted.script(text("Hel", "lo").hold(gate, before=pieces))
        attempt = made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": True})
        reading = asyncio.create_task(made.frames(attempt))
        await made.scripted.arrived(0, timeout=30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await made.scripted.client_gone(0)


async def test_a_refused_connection_is_unreachable_at_once() -> None:
    async with rig() as made:
        for route in ("openai", "litellm-openai", "litellm-anthropic"):
            attempt = made.attempt(
                route, "messages", {"messages": HI, "max_tokens": 5}, base_url="http://127.0.0.1:9/v1"
            )
            with pytest.raises(errors.Unreachable):
                await made.plain(attempt)


async def test_a_route_that_tells_no_finish_is_believed_only_with_content() -> None:
    """litellm says nothing of a genuine finish on Google's routes."""
    async with rig() as made:
        made.scripted.script(HELLO.cut_after(1), nothing())
        body = {"messages": HI, "stream": True}
        told = await made.frames(made.attempt("litellm-openai", "chat", body, verifies_finish=False))
        assert b"Hel" in told
        with pytest.raises(errors.Truncated):
            await made.frames(made.attempt("litellm-openai", "chat", body, verifies_finish=False))
