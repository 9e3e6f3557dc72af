"""What the litellm door knows of litellm that litellm never promised. A red test here means: read the new version before using it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openai
import pytest

from calliope_agent.upstream import litellm_door
from calliope_agent.upstream.litellm_library import Library
from tests.doors.litellm_rig import HI, QUIET
from tests.upstream import Answer, ScriptedProvider, status, text

pytestmark = QUIET
ASKED: dict[str, Any] = {"messages": HI, "api_key": "k", "max_retries": 0, "num_retries": 0}
PREFIXES = pytest.mark.parametrize("prefix", ["openai", "anthropic"])


@pytest.fixture
def library() -> Library:
    return litellm_door._import()


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as running:
        yield running


def at(provider: ScriptedProvider, prefix: str) -> dict[str, Any]:
    base = provider.origin if prefix == "anthropic" else provider.base_url
    return {**ASKED, "model": f"{prefix}/scripted-model", "api_base": base}


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("litellm").startswith("1.106.")


@PREFIXES
@pytest.mark.parametrize(("answer", "received"), [(text("Hel", "lo"), "stop"), (text("Hel", "lo").cut_after(1), None)])
async def test_the_wrapper_tells_a_genuine_finish_from_an_invented_one(
    library: Library, provider: ScriptedProvider, prefix: str, answer: Answer, received: str | None
) -> None:
    provider.script(answer)
    wrapper = await library.acompletion(**at(provider, prefix), stream=True)
    finishes = [chunk.choices[0].finish_reason async for chunk in wrapper]
    assert finishes[-1] == "stop"
    assert wrapper.received_finish_reason == received


@PREFIXES
async def test_the_wrapper_keeps_the_chunks_with_the_providers_own_usage(
    library: Library, provider: ScriptedProvider, prefix: str
) -> None:
    wrapper = await library.acompletion(**at(provider, prefix), stream=True, stream_options={"include_usage": True})
    assert [chunk async for chunk in wrapper]
    given = [chunk.usage for chunk in wrapper.chunks if getattr(chunk, "usage", None)]
    assert (given[-1].prompt_tokens, given[-1].completion_tokens) == (7, 5)
    assert any(name.lower().endswith("content-type") for name in wrapper._response_headers)
    assert callable(wrapper.aclose)


@PREFIXES
@pytest.mark.parametrize("code", [429, 500, 503, 422])
async def test_one_call_and_the_headers_of_a_refusal(
    library: Library, provider: ScriptedProvider, prefix: str, code: int
) -> None:
    provider.script(status(code, headers={"Retry-After": "7"}))
    with pytest.raises(openai.APIStatusError) as caught:
        await library.acompletion(**at(provider, prefix), stream=True, drop_params=True)
    headers = vars(caught.value).get("litellm_response_headers") or {}
    assert headers["retry-after"] == "7"
    assert provider.calls == 1


async def test_tools_stay_out_of_the_mcp_gateway(library: Library, provider: ScriptedProvider) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    await library.acompletion(**at(provider, "openai"), tools=tools, _skip_mcp_handler=True)
    assert provider.calls == 1
    assert "litellm.responses.mcp.chat_completions_handler" not in sys.modules


def test_what_is_replaced_is_still_what_asks_twice(library: Library) -> None:
    handler = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
    calls = importlib.import_module("litellm.llms.openai.openai")
    assert "self.single_connection_post_request(" in inspect.getsource(handler.post)
    assert "drop_params_from_unprocessable_entity_error(e, " in inspect.getsource(
        calls.OpenAIChatCompletion.acompletion
    )
    assert handler.single_connection_post_request is litellm_door._no_second_request
    assert calls.drop_params_from_unprocessable_entity_error is litellm_door._no_second_try
    del library


def test_the_translators_still_take_what_they_are_given(library: Library) -> None:
    def takes(function: Any, *values: object, **named: object) -> None:
        inspect.signature(function).bind(*values, **named)

    adapter, config = library.MessagesAdapter(), library.MessagesConfig()
    takes(adapter.translate_completion_input_params_with_tool_mapping, {}, custom_llm_provider=None)
    takes(adapter.translate_completion_output_params, object(), tool_name_mapping={})
    takes(library.MessagesStream, object(), "m", tool_name_mapping={})
    takes(config.transform_request, "m", [], {}, {}, {})
    takes(
        config.transform_parsed_response,
        completion_response={},
        raw_response=None,
        model_response=None,
        json_mode=False,
        tool_name_reverse_map=None,
    )
    takes(
        library.MessagesReader, streaming_response=None, sync_stream=False, json_mode=False, tool_name_reverse_map=None
    )
    takes(
        library.ResponsesConfig.transform_responses_api_request_to_chat_completion_request,
        model="m",
        input="",
        responses_api_request={},
    )
    takes(
        library.ResponsesStream,
        model="m",
        litellm_custom_stream_wrapper=object(),
        request_input="",
        responses_api_request={},
    )
    takes(library.stream_chunk_builder, [])
    takes(library.token_counter, model="m", messages=[], tools=None, use_default_image_token_count=True)


def test_the_router_and_the_proxy_are_not_used() -> None:
    sources = list(Path(litellm_door.__file__).parents[1].rglob("*.py"))
    importers = [
        path.name for path in sources if "import litellm\n" in path.read_text() or "from litellm." in path.read_text()
    ]
    assert importers == ["litellm_door.py"]
    assert not any("litellm.proxy" in path.read_text() or "litellm.Router" in path.read_text() for path in sources)
