"""The scripted provider itself: SDKs must take its wires for real ones, and its faults must arrive as scripted."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import openai
import pytest

from tests.passage import until
from tests.upstream import (
    Framing,
    ScriptedProvider,
    done_only,
    error_event,
    hang,
    hang_up,
    html,
    huge,
    malformed,
    nothing,
    reasoning,
    reset,
    status,
    text,
    tool_call,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.upstream import Answer

CHAT = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def body_of(http: aiohttp.ClientSession, provider: ScriptedProvider, path: str = "/chat/completions") -> bytes:
    async with http.post(provider.base_url + path, json=CHAT) as response:
        return await response.read()


async def test_openai_sdk_reads_text_reasoning_tools_and_usage(provider: ScriptedProvider) -> None:
    provider.script(reasoning("hm") + text("Hel", "lo") + tool_call("read", '{"path":', '"a"}'))
    said, thought, arguments, finish, usage = "", "", "", None, None
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                said += choice.delta.content or ""
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                for call in choice.delta.tool_calls or []:
                    assert call.function
                    arguments += call.function.arguments or ""
                finish = choice.finish_reason or finish
    assert (said, thought, arguments, finish) == ("Hello", "hm", '{"path":"a"}', "tool_calls")
    assert usage
    assert usage.total_tokens == 12
    assert provider.calls == 1
    assert provider.requests[0].key == "sk-test"
    assert provider.requests[0].json["stream_options"] == {"include_usage": True}


async def test_openai_sdk_reads_the_plain_wires(provider: ScriptedProvider) -> None:
    provider.script(text("chat"), text("text"), text(), text("said") + tool_call("read", "{}"))
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as client:
        chat = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        completion = await client.completions.create(model="m", prompt="def f(", suffix=")")
        vectors = await client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
        answer = await client.responses.create(model="m", input="hi")
        models = await client.models.list()
    assert chat.choices[0].message.content == "chat"
    assert completion.choices[0].text == "text"
    assert [len(vector.embedding) for vector in vectors.data] == [3, 3]
    assert answer.output_text == "said"
    assert [model.id for model in models.data] == ["scripted-model"]
    assert provider.calls == 4


async def test_openai_sdk_accumulates_a_responses_stream(provider: ScriptedProvider) -> None:
    provider.script(text("Hel", "lo") + tool_call("read", '{"path":', '"a"}'))
    async with (
        openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as client,
        client.responses.stream(model="m", input="hi") as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds.count("response.output_text.delta") == 2
    assert final.output_text == "Hello"
    assert final.status == "completed"


async def test_anthropic_sdk_accumulates_a_stream_and_counts(provider: ScriptedProvider) -> None:
    provider.script(reasoning("hm") + text("Hel", "lo") + tool_call("read", '{"path":', '"a"}'), text("plain"), text())
    message: Any = {"role": "user", "content": "hi"}
    async with anthropic.AsyncAnthropic(base_url=provider.origin, api_key="k", max_retries=0) as client:
        async with client.messages.stream(model="m", max_tokens=9, messages=[message]) as stream:
            final = await stream.get_final_message()
        plain = await client.messages.create(model="m", max_tokens=9, messages=[message])
        count = await client.messages.count_tokens(model="m", messages=[message])
    assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
    assert final.content[2].to_dict()["input"] == {"path": "a"}
    assert final.stop_reason == "tool_use"
    assert plain.content[0].to_dict()["text"] == "plain"
    assert count.input_tokens == 7


async def test_errors_take_the_wires_shape_and_may_quote_the_key(
    provider: ScriptedProvider, http: aiohttp.ClientSession
) -> None:
    provider.script(status(429, headers={"Retry-After": "2"}).echoing_key(), status(529))
    async with http.post(
        provider.base_url + "/chat/completions", json=CHAT, headers={"Authorization": "Bearer sk-canary"}
    ) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "2"
        assert "sk-canary" in (await response.json())["error"]["message"]
    async with http.post(provider.base_url + "/messages", json=CHAT) as response:
        assert (await response.json())["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize("path", ["/chat/completions", "/messages", "/responses", "/completions"])
async def test_early_ends_leave_out_finish_and_what_follows(
    provider: ScriptedProvider, http: aiohttp.ClientSession, path: str
) -> None:
    provider.script(text("a", "b", "c").cut_after(2), text("whole"))
    cut = await body_of(http, provider, path)
    whole = await body_of(http, provider, path)
    assert b'"b"' in cut
    assert b'"c"' not in cut
    finish = {"/messages": b"message_stop", "/responses": b"response.completed"}.get(path, b'"stop"')
    assert finish not in cut
    assert finish in whole


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (done_only(), b"data: [DONE]\n\n"),
        (nothing(), b""),
        (html(), b"<!DOCTYPE html><html><body>Please log in</body></html>"),
    ],
)
async def test_bodies_without_an_answer(
    provider: ScriptedProvider, http: aiohttp.ClientSession, answer: Answer, found: bytes
) -> None:
    provider.script(answer)
    assert await body_of(http, provider) == found


async def test_error_objects_inside_a_200(provider: ScriptedProvider, http: aiohttp.ClientSession) -> None:
    provider.script(error_event(503, "busy"), text("a").then_error(429), malformed())
    first, second, third = [await body_of(http, provider) for _ in range(3)]
    assert first.startswith(b'data: {"error": {"message": "busy"')
    assert second.index(b'"a"') < second.index(b'"error"')
    assert b"[DONE]" not in first + second
    broken = next(line for line in third.split(b"\n") if b'"x"' in line)
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken.removeprefix(b"data: "))


@pytest.mark.parametrize(
    "answer",
    [
        text("a", "b").drop_after(1),
        text("a", "b").reset_after(1),
        text("a", "b").garble_after(1),
        text("a").cut_at(40),
        reset(),
        hang_up(),
    ],
)
async def test_broken_connections_are_broken(
    provider: ScriptedProvider, http: aiohttp.ClientSession, answer: Answer
) -> None:
    provider.script(answer)
    with pytest.raises(aiohttp.ClientError):
        await body_of(http, provider)


async def test_every_byte_can_be_the_last(provider: ScriptedProvider, http: aiohttp.ClientSession) -> None:
    whole = await body_of(http, provider)
    for byte in range(0, len(whole), 37):
        provider.script(text("Hello", " world").cut_at(byte, "cut"))
        assert await body_of(http, provider) == whole[:byte]


async def test_framings_spell_the_same_events(provider: ScriptedProvider, http: aiohttp.ClientSession) -> None:
    spelt = Framing(newline=b"\r\n", bom=True, comments=True, multiline=True, space=False)
    provider.script(text("é").framed(spelt).splitting(1))
    body = await body_of(http, provider)
    assert body.startswith(b"\xef\xbb\xbf: scripted comment\r\n")
    data = [line.removeprefix("data:") for line in body.decode("utf-8-sig").split("\r\n") if line.startswith("data:")]
    assert len(data) > 20
    assert '    "content": "é"' in data


async def test_gates_hold_headers_and_pieces(provider: ScriptedProvider, http: aiohttp.ClientSession) -> None:
    headers, piece = asyncio.Event(), asyncio.Event()
    provider.script(text("a", "b").hold_headers(headers).hold(piece, before=1))
    asking = asyncio.create_task(http.post(provider.base_url + "/chat/completions", json=CHAT))
    await provider.arrived(0)
    assert not asking.done()
    headers.set()
    async with await asking as response:
        await until(response, b'"a"')
        assert provider.requests[0].sent_pieces == 1
        piece.set()
        assert b'"b"' in await response.read()


@pytest.mark.parametrize("answer", [hang(), text("a").stall_after(0), text("a", "b").stall_after(1), huge(1 << 30)])
async def test_a_client_that_leaves_is_noticed(
    provider: ScriptedProvider, http: aiohttp.ClientSession, answer: Answer
) -> None:
    provider.script(answer)
    reading = asyncio.create_task(body_of(http, provider))
    request = await provider.arrived(0)
    assert not request.gone.is_set()
    reading.cancel()
    assert await provider.client_gone(0) >= request.at
    assert request.answered_at is None


async def test_a_connection_is_kept_for_the_next_request(
    provider: ScriptedProvider, http: aiohttp.ClientSession
) -> None:
    provider.script(text("one"), status(500))
    provider.respond(lambda request: text(request.json["model"]))
    bodies = [await body_of(http, provider) for _ in range(3)]
    assert b'"one"' in bodies[0]
    assert b'"m"' in bodies[2]
    assert {request.connection for request in provider.requests} == {0}
    assert not any(request.gone.is_set() for request in provider.requests)
