"""Who may come in, and what a refusal looks like in each caller's wire."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.agents import ServedAgent, chat, message, pointed_at
from tests.upstream import ScriptedProvider, text

SHAPES = [("/v1/chat/completions", chat()), ("/v1/messages", message())]


def told(body: Any, path: str) -> tuple[str, str]:
    """Code and message, after checking that the error has its wire's shape."""
    if path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert isinstance(body["error"]["type"], str)
        assert body["request_id"].startswith("req_")
    else:
        assert set(body) == {"error"}
        assert isinstance(body["error"]["type"], str)
    return body["error"]["code"], body["error"]["message"]


@pytest.mark.parametrize(("path", "body"), SHAPES)
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": ""}, 401, "unauthenticated"),
        ({"authorization": "Bearer cal-wrong-wrong-wrong"}, 401, "unauthenticated"),
        ({"authorization": "Basic dXNlcjpwYXNz"}, 401, "unauthenticated"),
        ({"host": "evil.example"}, 421, "misdirected_host"),
        ({"host": "127.0.0.1.evil.example:8072"}, 421, "misdirected_host"),
        ({"host": "localhost@evil.example"}, 421, "misdirected_host"),
        ({"origin": "https://evil.example"}, 403, "forbidden"),
        ({"origin": "http://localhost:3000"}, 403, "forbidden"),
        ({"origin": "null"}, 403, "forbidden"),
        ({"sec-fetch-site": "cross-site"}, 403, "forbidden"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"upgrade": "websocket", "connection": "upgrade"}, 426, "upgrade_refused"),
    ],
)
async def test_stranger_is_refused_before_anything_happens(
    agent: ServedAgent,
    provider: ScriptedProvider,
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    async with agent.http.post(path, json=body, headers=headers) as answer:
        assert answer.status == status
        assert told(await answer.json(), path)[0] == code
        assert answer.headers["x-request-id"]
    assert provider.calls == 0


@pytest.mark.parametrize(("path", "_body"), SHAPES)
@pytest.mark.parametrize(
    ("raw", "status", "code", "says"),
    [
        (b'{"model": "gpt-4o",\n "messages": [1,}', 400, "invalid_request", "line 2 column"),
        (b"[1, 2]", 400, "invalid_request", "object"),
        (b"", 400, "invalid_request", "not valid JSON"),
        (b'{"model": "gpt-4o", "messages": "hi"}', 400, "invalid_request", "messages must be an array"),
        (b'{"model": 7, "messages": []}', 400, "invalid_request", "model must be a string"),
        (
            b'{"model": "gpt-4o", "messages": [], "stream": "yes"}',
            400,
            "invalid_request",
            "stream must be true or false",
        ),
        (b'{"model": "gpt-4o", "messages": [], "x": "\xff"}', 400, "invalid_request", "not valid JSON"),
        (b'{"model": "gpt4o", "messages": []}', 404, "model_not_found", "gpt-4o"),
        (b'{"model": "openai/gpt-4o", "messages": [], "api_base": "http://evil"}', 400, "invalid_request", "api_base"),
        (
            b'{"model": "gpt-4o", "messages": [], "extra_body": {"api_key": "x"}}',
            400,
            "invalid_request",
            "extra_body.api_key",
        ),
        (
            b'{"model": "gpt-4o", "messages": [], "litellm_params": {"base_url": "x"}}',
            400,
            "invalid_request",
            "litellm_params.base_url",
        ),
    ],
)
async def test_bad_body_names_what_is_wrong(
    agent: ServedAgent,
    provider: ScriptedProvider,
    path: str,
    _body: Any,
    raw: bytes,
    status: int,
    code: str,
    says: str,
) -> None:
    async with agent.http.post(path, data=raw, headers={"content-type": "application/json"}) as answer:
        assert answer.status == status
        found, sentence = told(await answer.json(), path)
    assert found == code
    assert says in sentence
    assert provider.calls == 0


async def test_body_over_the_bound_is_413(provider: ScriptedProvider, tmp_path: Path) -> None:
    async with ServedAgent(tmp_path, pointed_at(provider, CALLIOPE_MAX_BODY_MB="1")) as agent:
        huge = io.BytesIO(json.dumps(chat() | {"user": "x" * (1 << 20)}).encode())
        headers = {"content-type": "application/json"}
        async with agent.http.post("/v1/chat/completions", data=huge, headers=headers) as answer:
            assert answer.status == 413
            assert "CALLIOPE_MAX_BODY_MB" in await answer.text()
    assert provider.calls == 0


async def test_missing_key_names_the_command(provider: ScriptedProvider, tmp_path: Path) -> None:
    async with ServedAgent(tmp_path, {"OPENAI_BASE_URL": provider.base_url}) as agent:
        status, body, _ = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
    assert status == 424
    assert "calliope-agent keys set openai" in body
    assert provider.calls == 0


async def test_tool_schema_may_speak_of_keys(agent: ServedAgent, provider: ScriptedProvider) -> None:
    schema = {"type": "object", "properties": {"api_key": {"type": "string"}, "base_url": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "login", "parameters": schema}}]
    status, _, _ = await agent.post("/v1/chat/completions", chat(tools=tools))
    assert status == 200
    assert provider.requests[0].json["tools"] == tools


async def test_every_form_of_the_token_is_taken(agent: ServedAgent) -> None:
    for headers in ({"x-api-key": agent.token}, {"x-goog-api-key": agent.token}):
        status, _ = await agent.get("/v1/models", authorization="", **headers)
        assert status == 200


async def test_health_and_head_need_no_token(agent: ServedAgent) -> None:
    status, body = await agent.get("/health", authorization="")
    assert (status, body["status"]) == (200, "healthy")
    async with agent.http.head("/", headers={"authorization": ""}) as answer:
        assert answer.status == 200
    async with agent.http.head("/health", headers={"authorization": ""}) as answer:
        assert answer.status == 200


async def test_unknown_path_and_method(agent: ServedAgent) -> None:
    status, body = await agent.get("/v1/nothing")
    assert (status, body["error"]["code"]) == (404, "not_found")
    async with agent.http.delete("/v1/models") as answer:
        assert answer.status == 405
        assert answer.headers["allow"] == "GET"


async def test_request_ids_are_kept_only_when_harmless(agent: ServedAgent) -> None:
    async with agent.http.get("/health", headers={"x-request-id": "editor.42"}) as answer:
        assert answer.headers["x-request-id"] == "editor.42"
    async with agent.http.get("/health", headers={"x-request-id": "a b;c" * 30}) as answer:
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_request_that_comes_back_to_itself_is_508(provider: ScriptedProvider, tmp_path: Path) -> None:
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        status, body, _ = await agent.post("/v1/chat/completions", chat(), **{"x-calliope-hop": agent.agent.hop})
    assert status == 508
    assert "doctor" in body


async def test_models_in_both_shapes(agent: ServedAgent) -> None:
    _, body = await agent.get("/v1/models")
    listed = {entry["id"]: entry for entry in body["data"]}
    assert {"chat", "fast", "openai/gpt-4o"} <= set(listed)
    assert listed["openai/gpt-4o"]["context_window"] > 0
    _, page = await agent.get("/v1/models", **{"anthropic-version": "2023-06-01"})
    assert page["data"][0]["type"] == "model"
    assert page["first_id"] == page["data"][0]["id"]
    _, one = await agent.get("/v1/models/openai/gpt-4o")
    assert one["id"] == "openai/gpt-4o"
    status, _ = await agent.get("/v1/models/openai-nonsense/x")
    assert status == 404


async def test_unknown_fields_and_headers_reach_the_provider(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.script(text("ok"), text("ok"))
    extra = {"context_management": {"edits": []}, "output_config": {"effort": "low"}, "metadata": {"user_id": "{}"}}
    status, _, _ = await agent.post("/v1/messages?beta=true", message() | extra, **{"anthropic-beta": "a-1,b-2"})
    assert status == 200
    seen = provider.requests[0]
    assert seen.json | extra == seen.json
    assert seen.headers["anthropic-beta"] == "a-1,b-2"
    assert "authorization" not in seen.headers or agent.token not in seen.headers["authorization"]
