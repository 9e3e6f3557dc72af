"""The autocomplete endpoints: ``/v1/fim/completions`` in Mistral's chat shape, ``/v1/completions`` with a suffix in the text shape.

Decisions
1. Beyond ``prompt`` and ``suffix`` a body may say ``path``, ``language``, ``repository``, ``context`` ([{path, text}]), ``mode``
   (auto, single, multi) and ``max_lines``: the more the lane knows, the better it cuts.
2. ``x-calliope-inline`` says where the text came from. A budget that ran out is 200 with empty text: an editor has nothing to show
   then and nothing to say, and the answer still serves the next keystroke.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from calliope_agent import errors
from calliope_agent.api.completions import ask, guard_loop
from calliope_agent.api.eventstream import EventStream, Write
from calliope_agent.api.exchange import Exchange, Handler
from calliope_agent.api.fault import event
from calliope_agent.api.intake import call_of
from calliope_agent.api.leaving import Leaving, Left, until_left
from calliope_agent.completion.record import CacheDecision, Record
from calliope_agent.completion.wishes import Wishes, wishes_of
from calliope_agent.inline.request import InlineRequest, Snippet, Source
from calliope_agent.inline.stream import SuggestionStream
from calliope_agent.upstream.attempt import Call
from calliope_agent.upstream.sse import DONE_FRAME, frame

Shape = Literal["text", "chat"]
_DECISIONS: dict[Source, CacheDecision] = {"typed-through": "typed-through", "joined": "join", "cache": "hit"}


class _Body(msgspec.Struct):
    prompt: str
    suffix: str = ""
    path: str = ""
    language: str = ""
    repository: str = ""
    context: tuple[Snippet, ...] = ()
    mode: Literal["auto", "single", "multi"] = "auto"
    max_lines: int = 3
    max_tokens: int | None = None
    temperature: float | None = None
    stop: str | list[str] | None = None


def suggesting(shape: Shape) -> Handler:
    """The handler of one of the two endpoints."""

    async def handle(exchange: Exchange) -> None:
        guard_loop(exchange)
        wishes = wishes_of(exchange.headers)
        kind: Literal["completions", "fim"] = "completions" if shape == "text" else "fim"
        call, asked = call_of(await exchange.body(), kind, exchange.headers, exchange.id)
        if shape == "text" and not call.field("suffix"):
            await ask(exchange, call, asked, wishes)
            return
        await _suggest(exchange, call, asked, (wishes, shape))

    return handle


async def _suggest(exchange: Exchange, call: Call, asked: str | None, how: tuple[Wishes, Shape]) -> None:
    wishes, shape = how
    agent = exchange.agent
    router = await agent.refresh()
    target = router.plan(asked, "fim").targets[0]
    request = _request(call, target.name, target.fim, wishes, exchange)
    record = agent.note("inline", call, asked or "inline")
    record.target = target.name
    try:
        async with aclosing(agent.lane.stream(request)) as stream:
            with Leaving(exchange.receive) as left:
                first = await until_left(_first(stream, whole=not call.stream), left)
                if first is None:
                    record.end("cancelled")
                    return
                record.settle()
                record.cache = _DECISIONS.get(stream.source, "miss")
                if call.stream:
                    await _send_stream(exchange, stream, first, (record, shape), left)
                else:
                    await exchange.json(_whole(first, stream, record, shape), 200, _headers(stream, record))
                    _complete(record, stream)
    except errors.AgentError as exc:
        record.end("error", exc.status, exc.code, exc.message)
        raise


async def _first(stream: SuggestionStream, *, whole: bool) -> str:
    """The first piece (all of them when ``whole``), "" where there is none."""
    text = ""
    async for piece in stream:
        text += piece
        if not whole:
            break
    return text


async def _send_stream(
    exchange: Exchange, stream: SuggestionStream, first: str, about: tuple[Record, Shape], left: Left
) -> None:
    record, shape = about

    def said(text: str, finish: str | None = None) -> bytes:
        return frame(msgspec.json.encode(_chunk(text, finish, record, shape)))

    async def pour(write: Write) -> bytes:
        try:
            if first:
                await write(said(first))
            async for piece in stream:
                await write(said(piece))
        except errors.AgentError as exc:
            record.end("error", exc.status, exc.code, exc.message)
            return event(exc, "openai", exchange.id)
        _complete(record, stream)
        return said("", stream.finish) + DONE_FRAME

    await exchange.answer(EventStream(pour, _headers(stream, record), left))
    record.end("cancelled")  # which changes nothing where the body came to its end


def _complete(record: Record, stream: SuggestionStream) -> None:
    record.finish = stream.finish
    record.end("complete", 200)


def _request(call: Call, target: str, fim: str, wishes: Wishes, exchange: Exchange) -> InlineRequest:
    try:
        body = msgspec.convert({name: call.field(name) for name in _Body.__struct_fields__ if name in call.body}, _Body)
    except msgspec.ValidationError as exc:
        raise errors.InvalidRequest(f"The body does not fit: {exc}.") from exc
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return InlineRequest(
        prefix=body.prompt,
        suffix=body.suffix,
        target=target,
        fim=fim,
        path=body.path,
        language=body.language,
        repository=body.repository,
        context=body.context,
        editor=exchange.headers.get("x-calliope-editor", "")[:512],
        mode=body.mode,
        max_lines=max(1, min(body.max_lines, 100)),
        max_tokens=body.max_tokens,
        temperature=body.temperature or 0.0,
        stop=stop,
        budget_s=_budget_s(exchange),
        reuse=not wishes.no_cache and not wishes.no_store,
        store=not wishes.no_store,
    )


def _budget_s(exchange: Exchange) -> float:
    """The setting's, or less where the editor has less time."""
    most = exchange.agent.settings.inline_budget_s
    given = exchange.headers.get("x-calliope-budget-ms", "")
    return min(most, int(given) / 1000) if given.isascii() and given.isdigit() and len(given) < 10 else most


def _headers(stream: SuggestionStream, record: Record) -> dict[str, str]:
    return {
        "x-request-id": record.id,
        "x-calliope-inline": stream.source,
        "x-calliope-target": (record.target or "").encode("ascii", "backslashreplace").decode(),
        "cache-status": record.cache_status(),
        "server-timing": record.server_timing(),
    }


def _whole(text: str, stream: SuggestionStream, record: Record, shape: Shape) -> dict[str, Any]:
    head = {"id": record.id, "created": int(time.time()), "model": record.target, "usage": None}
    if shape == "text":
        choice = {"index": 0, "text": text, "finish_reason": stream.finish, "logprobs": None}
        return {**head, "object": "text_completion", "choices": [choice]}
    message = {"role": "assistant", "content": text}
    return {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": stream.finish}],
    }


def _chunk(text: str, finish: str | None, record: Record, shape: Shape) -> dict[str, Any]:
    head = {"id": record.id, "created": int(time.time()), "model": record.target}
    if shape == "text":
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
        return {**head, "object": "text_completion", "choices": [choice]}
    delta = {"role": "assistant", "content": text} if finish is None else {}
    return {
        **head,
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
