"""The autocomplete endpoints over real sockets: shapes, superseding, typing through, and who is asked how."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from calliope_agent.api import eventstream
from tests.agents import ServedAgent
from tests.passage import until
from tests.transcripts import facts
from tests.upstream import Answer, ScriptedProvider, status, text

FIM = "/v1/fim/completions"
EDITOR = {"x-calliope-editor": "vscode:1 file:///a.py"}


def fim(prefix: str = "def area(r):\n    return ", suffix: str = "\n\nprint(area(2))\n", **more: Any) -> dict[str, Any]:
    return {"model": "openai/gpt-4o", "prompt": prefix, "suffix": suffix, "path": "a.py", "language": "python", **more}


def inserted(body: str) -> str:
    return str(facts(body)["text"])


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_models_fill_in_the_middle(agent: ServedAgent, provider: ScriptedProvider, stream: bool) -> None:
    provider.script(text("<insert>math.pi", " * r ** 2</insert>"))
    code, body, headers = await agent.post(FIM, fim(stream=stream))
    assert code == 200
    assert inserted(body) == "math.pi * r ** 2"
    assert headers["x-calliope-inline"] == "upstream"
    asked = provider.requests[0].json
    assert asked["stream"] is True
    assert "area(2)" in asked["messages"][-1]["content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_text_shape_with_suffix(agent: ServedAgent, provider: ScriptedProvider, stream: bool) -> None:
    provider.script(text("<insert>x + 1</insert>"))
    code, body, _ = await agent.post("/v1/completions", fim(stream=stream))
    assert code == 200
    assert inserted(body) == "x + 1"
    assert '"text_completion"' in body


async def test_typed_through_needs_no_call(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.script(text("<insert>math.pi * r ** 2</insert>"))
    await agent.post(FIM, fim(), **EDITOR)
    code, body, headers = await agent.post(FIM, fim(fim()["prompt"] + "math."), **EDITOR)
    assert (code, inserted(body)) == (200, "pi * r ** 2")
    assert headers["x-calliope-inline"] == "typed-through"
    assert provider.calls == 1


async def test_another_suffix_is_another_question(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.script(text("<insert>one</insert>"), text("<insert>two</insert>"))
    _, first, _ = await agent.post(FIM, fim(), **EDITOR)
    _, second, _ = await agent.post(FIM, fim(suffix="\n# other\n"), **EDITOR)
    assert (inserted(first), inserted(second)) == ("one", "two")
    assert provider.calls == 2


async def test_newer_keystroke_supersedes_the_older_one(agent: ServedAgent, provider: ScriptedProvider) -> None:
    never = asyncio.Event()
    provider.script(text("<insert>a", "b</insert>").hold(never, 1), text("<insert>new</insert>"))
    older = asyncio.create_task(agent.post(FIM, fim("alpha = "), **EDITOR))
    await provider.arrived(0)
    code, body, _ = await agent.post(FIM, fim("def other():\n    return "), **EDITOR)
    assert (code, inserted(body)) == (200, "new")
    code, body, headers = await older
    assert code == 409
    assert '"superseded"' in body
    assert headers["x-should-retry"] == "false"
    await provider.client_gone(0)


async def test_leaving_ends_the_upstream_call(agent: ServedAgent, provider: ScriptedProvider) -> None:
    never = asyncio.Event()
    provider.script(text("<insert>a", "b</insert>").hold(never, 1))
    asking = asyncio.create_task(agent.post(FIM, fim()))
    await provider.arrived(0)
    asking.cancel()
    await provider.client_gone(0)


async def outcome(agent: ServedAgent) -> tuple[str, str | None]:
    """The last suggestion's own record's, once it is there."""
    async with asyncio.timeout(10):
        while True:
            _, listed = await agent.get("/v1/requests")
            record = next(one for one in listed["data"] if one["kind"] == "inline")
            if record["outcome"] != "running":
                return record["outcome"], record["code"]


async def test_leaving_after_the_first_word_ends_the_upstream_call(
    agent: ServedAgent, provider: ScriptedProvider
) -> None:
    provider.script(text("<insert>first", " never</insert>").hold(asyncio.Event(), 1))
    async with agent.http.post(FIM, json=fim(stream=True)) as answer:
        await until(answer, b"first")
    await provider.client_gone(0)
    assert await outcome(agent) == ("cancelled", None)


async def test_silence_within_a_suggestion_is_filled_with_pings(
    agent: ServedAgent, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstream, "PING_S", 0.01)
    gate = asyncio.Event()
    provider.script(text("<insert>first", " last</insert>").hold(gate, 1))
    async with agent.http.post(FIM, json=fim(stream=True)) as answer:
        told = await until(answer, b": ping\n\n: ping\n\n")
        gate.set()
        told += await answer.content.read()
        headers = answer.headers
    assert told.endswith(b"data: [DONE]\n\n")
    assert inserted(told.decode()) == "first last"
    assert b"first" in told.partition(b": ping")[0]
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache, no-transform", "no")


@pytest.mark.parametrize(
    ("broken", "code"),
    [(text("<insert>first", "").drop_after(1), "truncated"), (text("<insert>first").then_error(500), "overloaded")],
)
async def test_failure_after_the_first_word_is_an_event_and_no_success(
    agent: ServedAgent, provider: ScriptedProvider, broken: Answer, code: str
) -> None:
    gate = asyncio.Event()
    provider.script(broken.hold(gate, 1))
    async with agent.http.post(FIM, json=fim(stream=True)) as answer:
        told = await until(answer, b"first")
        gate.set()
        told += await answer.content.read()
    assert inserted(told.decode()) == "first"
    assert json.loads(told.rpartition(b"data: ")[2])["error"]["code"] == code
    assert b"[DONE]" not in told
    assert await outcome(agent) == ("error", code)


async def test_a_stop_is_told_within_a_suggestion(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.script(text("<insert>first", " never</insert>").hold(asyncio.Event(), 1))
    async with agent.http.post(FIM, json=fim(stream=True)) as answer:
        told = await until(answer, b"first")
        await agent.agent.stop(0.05)
        told += await answer.content.read()
    assert b"server_stopping" in told
    assert b"[DONE]" not in told


async def test_no_store_and_no_cache_ask_again(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.always = text("<insert>x</insert>")
    for directive in ("no-store", "no-cache", "no-store"):
        await agent.post(FIM, fim(), **{"cache-control": directive})
    assert provider.calls == 3
    await agent.post(FIM, fim())
    assert provider.calls == 3


async def test_budget_gives_an_empty_answer(agent: ServedAgent, provider: ScriptedProvider) -> None:
    gate = asyncio.Event()
    provider.script(text("<insert>late</insert>").hold(gate, 0))
    code, body, headers = await agent.post(FIM, fim(), **EDITOR, **{"x-calliope-budget-ms": "50"})
    gate.set()
    assert (code, inserted(body)) == (200, "")
    assert headers["x-calliope-inline"] == "budget"


async def test_failure_is_told_in_its_status(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.always = status(400, body=b'{"error": {"message": "bad field"}}')
    code, body, _ = await agent.post(FIM, fim())
    assert code == 400
    assert "bad field" in body


@pytest.mark.parametrize(
    ("change", "says"),
    [({"prompt": 3}, "prompt"), ({"mode": "sideways"}, "mode"), ({"context": [{"path": 1}]}, "context")],
)
async def test_wrong_types_name_the_field(
    agent: ServedAgent, provider: ScriptedProvider, change: dict[str, Any], says: str
) -> None:
    code, body, _ = await agent.post(FIM, fim() | change)
    assert code == 400
    assert says in body
    assert provider.calls == 0


async def test_records_tell_the_lane_from_its_calls(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.script(text("<insert>abc</insert>"))
    await agent.post(FIM, fim(), **EDITOR)
    await agent.post(FIM, fim(fim()["prompt"] + "a"), **EDITOR)
    _, body = await agent.get("/v1/requests")
    kinds = [(record["kind"], record["cache"]) for record in body["data"]]
    assert ("inline", "typed-through") in kinds
    assert ("inline", "miss") in kinds
    assert len(kinds) == 3
