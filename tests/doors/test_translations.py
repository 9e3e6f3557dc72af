"""Requests told in another shape and answers told back, as the real SDKs read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from calliope_agent import errors
from calliope_agent.model import Model
from calliope_agent.upstream.attempt import Kind
from tests.doors.litellm_rig import HI, LIMITS, QUIET, ROUTES, events, rig
from tests.upstream import Answer, reasoning, text, tool_call

pytestmark = QUIET
EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES)
FOREIGN_TO_MESSAGES = pytest.mark.parametrize("route", ["openai", "litellm-openai", "litellm-anthropic"])
FULL = reasoning("h", "m") + text("Hel", "lo") + tool_call("read", '{"path":', '"a"}')
TOOL = {
    "name": "read",
    "description": "reads",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
}
FUNCTION = {"type": "function", "function": {"name": "read", "parameters": TOOL["input_schema"]}}
# What Claude Code sends to everybody.
CLAUDE_CODE = {
    "max_tokens": 32000,
    "system": [
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "max"},
    "metadata": {"user_id": "user_" + "0" * 120},
    "top_k": 5,
    "tools": [{**TOOL, "cache_control": {"type": "ephemeral"}, "eager_input_streaming": True}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "a_field_of_next_month": {"x": 1},
}


@EVERY_ROUTE
async def test_the_anthropic_sdk_accumulates_every_route(route: str) -> None:
    async with (
        rig() as made,
        made.served(route) as origin,
        anthropic.AsyncAnthropic(base_url=origin, api_key="k", max_retries=0) as client,
    ):
        made.scripted.script(FULL, FULL)
        asked: Any = {"model": "m", "max_tokens": 50, "messages": HI}
        async with client.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
        plain = await client.messages.create(**asked)
        for message in (streamed, plain):
            kinds = [block.to_dict() for block in message.content]
            assert [block["type"] for block in kinds] == ["thinking", "text", "tool_use"]
            assert kinds[0]["thinking"] == "hm"
            assert kinds[1]["text"] == "Hello"
            assert kinds[2]["name"] == "read"
            assert kinds[2]["input"] == {"path": "a"}
            assert message.stop_reason == "tool_use"
            assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 5)
        assert made.scripted.calls == 2


@EVERY_ROUTE
async def test_the_openai_sdk_accumulates_every_route(route: str) -> None:
    async with (
        rig() as made,
        made.served(route) as origin,
        openai.AsyncOpenAI(base_url=f"{origin}/v1", api_key="k", max_retries=0) as client,
    ):
        made.scripted.script(FULL, FULL)
        asked: Any = {"model": "m", "messages": HI, "tools": [FUNCTION]}
        said = thought = arguments = ""
        finish = usage = None
        stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                said += choice.delta.content or ""
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                arguments += "".join(call.function.arguments or "" for call in choice.delta.tool_calls or [])
                finish = choice.finish_reason or finish
        assert (said, thought, json.loads(arguments), finish) == ("Hello", "hm", {"path": "a"}, "tool_calls")
        assert usage is not None
        plain = await client.chat.completions.create(**asked)
        message = plain.choices[0].message
        assert message.content == "Hello"
        assert message.tool_calls is not None
        assert json.loads(message.tool_calls[0].function.arguments) == {"path": "a"}
        assert plain.choices[0].finish_reason == "tool_calls"
        for counted in (usage, plain.usage):
            assert counted is not None
            assert (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens) == (7, 5, 12)
        assert made.scripted.calls == 2
        assert made.scripted.requests[0].json["tools"]


@EVERY_ROUTE
async def test_the_openai_sdk_accumulates_responses(route: str) -> None:
    async with (
        rig() as made,
        made.served(route) as origin,
        openai.AsyncOpenAI(base_url=f"{origin}/v1", api_key="k", max_retries=0) as client,
    ):
        made.scripted.script(FULL, FULL)
        async with client.responses.stream(model="m", input="hi", instructions="be brief") as stream:
            numbers = [event.sequence_number async for event in stream]
            streamed = await stream.get_final_response()
        plain = await client.responses.create(model="m", input="hi")
        assert numbers == list(range(len(numbers)))
        for response in (streamed, plain):
            assert response.status == "completed"
            assert response.output_text == "Hello"
            called = next(item for item in response.output if item.type == "function_call")
            assert json.loads(called.arguments) == {"path": "a"}
            thought = next(item for item in response.output if item.type == "reasoning")
            assert thought.summary[0].text == "hm"
            assert response.usage is not None
            assert (response.usage.input_tokens, response.usage.output_tokens) == (7, 5)
            assert response.usage.output_tokens_details.reasoning_tokens == 0
        assert made.scripted.calls == 2


@EVERY_ROUTE
async def test_the_openai_sdk_reads_text_completions(route: str) -> None:
    async with (
        rig() as made,
        made.served(route) as origin,
        openai.AsyncOpenAI(base_url=f"{origin}/v1", api_key="k", max_retries=0) as client,
    ):
        stream = await client.completions.create(model="m", prompt="say hello", stream=True)
        chunks = [chunk async for chunk in stream]
        plain = await client.completions.create(model="m", prompt=["say hello"])
        assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "Hello world"
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert plain.choices[0].text == "Hello world"
        assert plain.object == "text_completion"


@FOREIGN_TO_MESSAGES
@pytest.mark.parametrize("stream", [True, False])
async def test_what_claude_code_sends_is_never_refused(route: str, stream: bool) -> None:
    async with rig() as made:
        body = {**CLAUDE_CODE, "messages": HI, "stream": stream}
        attempt = made.attempt(route, "messages", body)
        await (made.frames(attempt) if stream else made.plain(attempt))
        sent = made.scripted.requests[0].json
        assert not sent.keys() & {"context_management", "a_field_of_next_month", "metadata", "top_k"}


async def test_the_openai_wire_gets_only_what_it_knows() -> None:
    async with rig() as made:
        await made.frames(made.attempt("openai", "messages", {**CLAUDE_CODE, "messages": HI, "stream": True}))
        await made.plain(
            made.attempt("openai", "messages", {**CLAUDE_CODE, "messages": HI}, model=Model("plain-model"))
        )
        sent, to_plain_model = made.scripted.requests[0].json, made.scripted.requests[1].json
        assert sent == {
            "model": "scripted-model",
            "messages": [{"role": "system", "content": "You are Claude Code.\nBe brief."}, *HI],
            "max_tokens": 32000,
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "read", "description": "reads", "parameters": TOOL["input_schema"]},
                }
            ],
            "tool_choice": "auto",
            "reasoning_effort": "high",
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert "reasoning_effort" not in to_plain_model
        assert "stream" not in to_plain_model


async def test_a_conversation_with_tools_and_thinking_comes_over() -> None:
    history = [
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "unsigned", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "found"}]},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "signed", "signature": "s"}, {"type": "text", "text": "b"}],
        },
        {"role": "user", "content": "go on"},
    ]
    async with rig() as made:
        await made.plain(made.attempt("openai", "messages", {"messages": history, "max_tokens": 5}))
        user, called, result, told, last = made.scripted.requests[0].json["messages"]
    assert user == {"role": "user", "content": "one\ntwo"}
    assert called["tool_calls"][0]["function"] == {"name": "read", "arguments": '{"path": "a"}'}
    assert called["reasoning_content"] == "unsigned"
    assert result == {"role": "tool", "tool_call_id": "toolu_1", "content": "found"}
    assert told == {"role": "assistant", "content": "b"}
    assert last == {"role": "user", "content": "go on"}


@EVERY_ROUTE
async def test_system_messages_several_and_in_the_middle(route: str) -> None:
    talk = [
        {"role": "system", "content": "one"},
        {"role": "system", "content": "two"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "system", "content": "from now on"},
        {"role": "user", "content": "go"},
    ]
    async with rig() as made:
        await made.plain(made.attempt(route, "chat", {"messages": talk}))
        sent = json.dumps(made.scripted.requests[0].json)
    positions = [
        sent.index(f'"{said}"') if f'"{said}"' in sent else sent.index(said) for said in ("one", "two", "from now on")
    ]
    assert all(position >= 0 for position in positions)


@pytest.mark.parametrize(("route", "kind"), [("openai", "messages"), ("anthropic", "chat"), ("litellm-openai", "chat")])
async def test_broken_arguments_are_told_and_flagged(route: str, kind: Kind) -> None:
    async with rig() as made:
        made.scripted.script(tool_call("read", '{"path": "a'))
        attempt = made.attempt(route, kind, {"messages": HI, "max_tokens": 5, "stream": True})
        told = await made.frames(attempt)
        assert attempt.seen.arguments_incomplete
        assert b'{\\"path\\": \\"a' in told


async def test_broken_arguments_of_a_whole_answer_are_told_and_flagged() -> None:
    async with rig() as made:
        made.scripted.script(tool_call("read", '{"path": "a'))
        attempt = made.attempt("openai", "messages", {"messages": HI, "max_tokens": 5})
        message = await made.plain(attempt)
        assert attempt.seen.arguments_incomplete
        assert message["content"][-1]["input"] == {"arguments_incomplete": '{"path": "a'}


@pytest.mark.parametrize("route", ["openai", "anthropic", "litellm-openai", "litellm-anthropic"])
async def test_usage_is_told_only_when_asked_for_and_given(route: str) -> None:
    async with rig() as made:
        made.scripted.script(text("a"), text("a").without_usage(), text("a").without_usage())
        ask = {"messages": HI, "stream": True}
        unasked = made.attempt(route, "chat", ask)
        missing = made.attempt(route, "chat", {**ask, "stream_options": {"include_usage": True}})
        assert not any(event.get("usage") for event in events(await made.frames(unasked)))
        assert not any(event.get("usage") for event in events(await made.frames(missing)))
        plain = made.attempt(route, "chat", {"messages": HI})
        assert (await made.plain(plain)).get("usage") is None
        if route.endswith("openai"):
            assert missing.seen.usage is None
            assert plain.seen.usage is None


async def test_long_tool_names_come_back_whole() -> None:
    name = "mcp__" + "x" * 90
    async with rig() as made:
        made.scripted.respond(lambda request: tool_call(request.json["tools"][0]["function"]["name"], "{}"))
        body = {"messages": HI, "max_tokens": 5, "tools": [{**TOOL, "name": name}]}
        streamed = await made.frames(made.attempt("openai", "messages", {**body, "stream": True}))
        plain = await made.plain(made.attempt("openai", "messages", body))
        assert len(made.scripted.requests[0].json["tools"][0]["function"]["name"]) == 64
    assert name.encode() in streamed
    assert plain["content"][-1]["name"] == name


async def test_what_one_read_gave_is_told_in_one_write() -> None:
    async with rig() as made:
        made.scripted.script(text(*["word "] * 200))
        burst = await made.parts(made.attempt("openai", "messages", {"messages": HI, "max_tokens": 5, "stream": True}))
    assert sum(len(part.frames) for part in burst) > 200
    assert len(burst) < 100


@EVERY_ROUTE
async def test_an_answer_may_repeat_itself(route: str) -> None:
    async with rig() as made:
        made.scripted.script(text(*["----"] * 300))
        told = await made.frames(made.attempt(route, "chat", {"messages": HI, "stream": True}))
    assert told.count(b"----") == 300


async def test_the_embedded_models_socket_is_reached(tmp_path: Path) -> None:
    async with rig(unix_socket=tmp_path / "model.sock") as made:
        attempt = made.attempt("openai", "messages", {"messages": HI, "max_tokens": 5, "stream": True})
        assert b"message_stop" in await made.frames(attempt)
        assert made.scripted.calls == 1


@FOREIGN_TO_MESSAGES
async def test_tokens_are_counted_without_a_call(route: str) -> None:
    async with rig() as made:
        short = await made.plain(made.attempt(route, "count_tokens", {"messages": HI, "tools": [TOOL]}))
        long = await made.plain(
            made.attempt(route, "count_tokens", {"messages": [{"role": "user", "content": "hi " * 500}]})
        )
        assert 0 < short["input_tokens"] < long["input_tokens"]
        assert made.scripted.calls == 0


async def test_embeddings_of_litellms_routes() -> None:
    async with rig() as made:
        answer = await made.plain(made.attempt("litellm-openai", "embeddings", {"input": ["a", "b"]}))
        assert [len(one["embedding"]) for one in answer["data"]] == [3, 3]
        assert made.scripted.calls == 1


REFUSED: list[tuple[str, Kind, dict[str, Any]]] = [
    ("anthropic", "embeddings", {"input": "a"}),
    ("anthropic", "chat", {"messages": []}),
    ("anthropic", "chat", {"messages": HI, "n": 2}),
    ("litellm-openai", "chat", {"messages": HI, "n": 2}),
    ("litellm-openai", "fim", {"prompt": "a", "suffix": "b"}),
    ("anthropic", "fim", {"prompt": "a", "suffix": "b"}),
    ("anthropic", "completions", {"prompt": "a", "suffix": "b"}),
    ("anthropic", "completions", {"prompt": [[1, 2]]}),
    ("anthropic", "responses", {"input": "a", "previous_response_id": "resp_1"}),
    ("openai", "messages", {"max_tokens": 5}),
    ("openai", "messages", {"messages": [7], "max_tokens": 5}),
    ("openai", "messages", {"messages": HI, "tools": ["x"], "max_tokens": 5}),
    ("openai", "messages", {"messages": HI, "tool_choice": {"type": "sideways"}, "max_tokens": 5}),
]


@pytest.mark.parametrize(("route", "kind", "body"), REFUSED)
async def test_what_cannot_be_translated_is_the_callers_error(route: str, kind: Kind, body: dict[str, Any]) -> None:
    async with rig() as made:
        with pytest.raises(errors.UpstreamRefused) as caught:
            await made.plain(made.attempt(route, kind, body))
        assert caught.value.status == 400
        assert made.scripted.calls == 0


async def test_a_chat_without_a_limit_gets_the_models_own() -> None:
    async with rig() as made:
        model = Model("m", max_output_tokens=777)
        await made.plain(made.attempt("anthropic", "chat", {"messages": HI}, model=model))
        await made.plain(made.attempt("anthropic", "chat", {"messages": HI, "max_completion_tokens": 9}, model=model))
        assert [request.json["max_tokens"] for request in made.scripted.requests] == [777, 9]


async def test_an_answer_that_is_no_message_is_malformed() -> None:
    async with rig() as made:
        made.scripted.script(
            Answer().then_raw(
                b'data: {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": 7, "function": 5}]}}]}\n\n'
            )
        )
        attempt = made.attempt("openai", "messages", {"messages": HI, "max_tokens": 5, "stream": True}, limits=LIMITS)
        with pytest.raises(errors.Malformed):
            await made.frames(attempt)
