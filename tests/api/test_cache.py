"""Kept answers, shared flights and repeated requests, seen from outside; upstream calls are counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.agents import ServedAgent, chat, message, pointed_at
from tests.transcripts import facts
from tests.upstream import Answer, ScriptedProvider, html, reasoning, status, text, tool_call

CHAT = "/v1/chat/completions"
SAME: dict[str, Any] = {"temperature": 0}


async def kept(agent: ServedAgent) -> None:
    """Wait until what is being written has been written."""
    await asyncio.gather(*agent.agent.keeper.writing)


def events(body: str) -> list[str]:
    return [block for block in body.split("\n\n") if block and not block.startswith(":")]


@pytest.mark.parametrize("stream", [False, True])
async def test_same_question_is_answered_once(agent: ServedAgent, provider: ScriptedProvider, stream: bool) -> None:
    _, first, before = await agent.post(CHAT, chat(stream, **SAME))
    await kept(agent)
    _, second, after = await agent.post(CHAT, chat(stream, **SAME))
    assert provider.calls == 1
    assert second == first
    assert before["cache-status"] == "calliope-agent; fwd=uri-miss"
    assert after["cache-status"] == "calliope-agent; hit"
    assert int(after["age"]) >= 0


@pytest.mark.parametrize("recorded_as_stream", [False, True])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize(
    "answer",
    [text("Hel", "lo"), reasoning("hm") + text("so"), tool_call("read", '{"path":', '"a"}')],
    ids=["text", "reasoning", "tool"],
)
async def test_other_form_holds_the_samefacts(
    agent: ServedAgent, provider: ScriptedProvider, wire: str, answer: Answer, recorded_as_stream: bool
) -> None:
    path, body = (CHAT, chat) if wire == "openai" else ("/v1/messages", message)
    provider.script(answer)
    _, recorded, _ = await agent.post(path, body(recorded_as_stream, **SAME))
    await kept(agent)
    code, replayed, headers = await agent.post(path, body(not recorded_as_stream, **SAME))
    assert (code, provider.calls) == (200, 1)
    assert headers["cache-status"] == "calliope-agent; hit"
    fresh = await _asked_afresh(agent, provider, answer, (path, body(not recorded_as_stream, **SAME)))
    assert facts(replayed) == facts(fresh)
    assert recorded


async def _asked_afresh(agent: ServedAgent, provider: ScriptedProvider, answer: Answer, ask: tuple[str, Any]) -> str:
    provider.script(answer)
    _, fresh, _ = await agent.post(*ask, **{"cache-control": "no-store"})
    return fresh


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0, "top_p": 0.5},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"messages": [{"role": "user", "content": "other"}]},
        {"model": "openai/gpt-4o-mini"},
        {"max_tokens": 5},
        {"something_new": 1},
    ],
)
async def test_every_parameter_counts(agent: ServedAgent, provider: ScriptedProvider, change: dict[str, Any]) -> None:
    await agent.post(CHAT, chat(**SAME))
    await kept(agent)
    await agent.post(CHAT, chat(**SAME) | change)
    assert provider.calls == 2


async def test_a_changed_key_or_address_never_gets_the_others_answer(
    provider: ScriptedProvider, tmp_path: Path
) -> None:
    for environ in (
        pointed_at(provider),
        pointed_at(provider, OPENAI_API_KEY="sk-another-key-1234567890"),
        pointed_at(provider, OPENAI_BASE_URL=f"{provider.origin}/other/v1"),
    ):
        async with ServedAgent(tmp_path, environ) as agent:
            await agent.post(CHAT, chat(**SAME))
            await kept(agent)
    assert provider.calls == 3
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        await agent.post(CHAT, chat(**SAME))
    assert provider.calls == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        text("a", "b").cut_after(1),
        text("a", "b").drop_after(1),
        text("a").then_error(503),
        html(),
        status(500),
        status(429, headers={"Retry-After": "0"}),
        text("no").finish_with("content_filter"),
        tool_call("f", '{"a":'),
        text(),
    ],
)
async def test_what_is_not_whole_is_never_kept(
    provider: ScriptedProvider, tmp_path: Path, answer: Answer, stream: bool
) -> None:
    provider.always = answer
    environ = pointed_at(provider, CALLIOPE_MAX_ATTEMPTS="1", CALLIOPE_CACHE="all")
    async with ServedAgent(tmp_path, environ) as agent:
        for _ in range(2):
            await agent.post(CHAT, chat(stream, **SAME))
            await kept(agent)
    assert provider.calls == 2


@pytest.mark.parametrize("body", [chat(), chat(temperature=0.7), chat(temperature=None)])
async def test_sampled_answers_are_not_kept(
    agent: ServedAgent, provider: ScriptedProvider, body: dict[str, Any]
) -> None:
    for _ in range(2):
        _, _, headers = await agent.post(CHAT, body)
        await kept(agent)
    assert provider.calls == 2
    assert headers["cache-status"] == "calliope-agent; fwd=bypass"


async def test_directives(agent: ServedAgent, provider: ScriptedProvider) -> None:
    async def ask(directive: str) -> str:
        _, _, headers = await agent.post(CHAT, chat(**SAME), **({"cache-control": directive} if directive else {}))
        await kept(agent)
        return str(headers["cache-status"])

    assert await ask("no-store") == "calliope-agent; fwd=bypass"
    assert await ask("") == "calliope-agent; fwd=uri-miss"
    assert await ask("no-cache") == "calliope-agent; fwd=uri-miss"
    assert await ask("max-age=600") == "calliope-agent; hit"
    assert provider.calls == 3


async def test_usage_is_given_only_when_asked(agent: ServedAgent, provider: ScriptedProvider) -> None:
    asked: dict[str, Any] = {"stream_options": {"include_usage": True}}
    _, with_usage, _ = await agent.post(CHAT, chat(True, **SAME, **asked))
    await kept(agent)
    _, without, _ = await agent.post(CHAT, chat(True, **SAME))
    _, again, _ = await agent.post(CHAT, chat(True, **SAME, **asked))
    assert provider.calls == 1
    assert again == with_usage
    assert '"choices":[]' not in without
    assert len(events(without)) == len(events(with_usage)) - 1


@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_identical_requests_are_one_call(
    agent: ServedAgent, provider: ScriptedProvider, stream: bool
) -> None:
    gate = asyncio.Event()
    provider.script(text("Hel", "lo").hold(gate, 1 if stream else -1))
    asking = [asyncio.create_task(agent.post(CHAT, chat(stream, **SAME))) for _ in range(50)]
    await provider.arrived(0)
    await _readers(agent, 50)
    gate.set()
    answers = await asyncio.gather(*asking)
    assert provider.calls == 1
    assert {body for _, body, _ in answers} == {answers[0][1]}
    assert "lo" in answers[0][1]


async def test_fifty_sampled_requests_are_fifty_calls(agent: ServedAgent, provider: ScriptedProvider) -> None:
    await asyncio.gather(*(agent.post(CHAT, chat()) for _ in range(50)))
    assert provider.calls == 50


async def test_the_first_readers_leaving_does_not_hurt_the_others(
    agent: ServedAgent, provider: ScriptedProvider
) -> None:
    gate = asyncio.Event()
    provider.script(text("Hel", "lo").hold(gate, 1))
    first = asyncio.create_task(agent.post(CHAT, chat(True, **SAME)))
    await provider.arrived(0)
    second = asyncio.create_task(agent.post(CHAT, chat(True, **SAME)))
    await _readers(agent, 2)
    first.cancel()
    await _readers(agent, 1)
    gate.set()
    _, body, _ = await second
    assert provider.calls == 1
    assert body.rstrip().endswith("data: [DONE]")


async def test_idempotency_key_attaches_to_the_running_and_the_finished_answer(
    agent: ServedAgent, provider: ScriptedProvider
) -> None:
    gate = asyncio.Event()
    provider.script(text("Hel", "lo").hold(gate, 1))
    key = {"idempotency-key": "editor-1"}
    first = asyncio.create_task(agent.post(CHAT, chat(True), **key))
    await provider.arrived(0)
    second = asyncio.create_task(agent.post(CHAT, chat(True), **key))
    await _readers(agent, 2)
    gate.set()
    bodies = {(await first)[1], (await second)[1], (await agent.post(CHAT, chat(True), **key))[1]}
    assert provider.calls == 1
    assert len(bodies) == 1
    code, told, _ = await agent.post(CHAT, chat(True, max_tokens=3), **key)
    assert (code, provider.calls) == (400, 1)
    assert "Idempotency-Key" in told


async def test_a_failed_answer_is_asked_again_under_its_idempotency_key(
    provider: ScriptedProvider, tmp_path: Path
) -> None:
    provider.script(status(400, body=b'{"error":{"message":"no"}}'), text("yes"))
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        key = {"idempotency-key": "editor-2"}
        assert (await agent.post(CHAT, chat(), **key))[0] == 400
        assert (await agent.post(CHAT, chat(), **key))[0] == 200
    assert provider.calls == 2


async def _readers(agent: ServedAgent, count: int) -> None:
    """Wait until the one flight has that many readers."""
    async with asyncio.timeout(10):
        while [flight.readers for flight in agent.agent.flights.running] != [count]:  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0.005)
