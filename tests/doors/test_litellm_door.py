"""The litellm door itself: when it imports, what reaches litellm, and what litellm may not do in this process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from calliope_agent import errors
from calliope_agent.secret import Secret
from calliope_agent.upstream import litellm_door
from calliope_agent.upstream.attempt import Attempt, Kind
from calliope_agent.upstream.litellm_calls import NO_KEY
from calliope_agent.upstream.place import Place
from tests.doors.litellm_rig import HI, KEY, QUIET, ROUTES, rig
from tests.upstream import ScriptedProvider, text

pytestmark = QUIET
ROOT = Path(__file__).parents[2]

# A process of its own that asks every kind over every route, tools included, and then tells what litellm left behind.
PROCESS = """
import asyncio, json, os, sys
from tests.doors.litellm_rig import HI, ROUTES, rig

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
BODIES = {
    "chat": {"messages": HI, "tools": [TOOL]},
    "messages": {"messages": HI, "max_tokens": 5, "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    "responses": {"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]},
    "completions": {"prompt": "hi"},
    "count_tokens": {"messages": HI},
    "embeddings": {"input": "hi"},
}

async def main():
    async with rig() as made:
        for route in ROUTES:
            for kind, body in BODIES.items():
                if kind in ("embeddings", "count_tokens") and route in ("anthropic", "litellm-anthropic"):
                    continue
                for stream in (True, False):
                    if not stream or kind in ("chat", "messages", "responses", "completions"):
                        attempt = made.attempt(route, kind, {**body, "stream": stream})
                        await (made.frames(attempt) if stream else made.plain(attempt))

asyncio.run(main())
print(json.dumps({
    "proxy": [name for name in ("litellm.proxy.proxy_server", "litellm.responses.mcp.chat_completions_handler", "mcp")
              if name in sys.modules],
    "switches": [os.environ.get("LITELLM_LOCAL_MODEL_COST_MAP"), os.environ.get("LITELLM_MODE")],
    "of the file": os.environ.get("A_LINE_OF_DOT_ENV"),
}))
"""


# What people set to see what litellm and its clients do: it would show prompts, and keys, on standard error.
TALKATIVE = {"LITELLM_LOG": "DEBUG", "LITELLM_VERBOSE": "1", "OPENAI_LOG": "debug", "ANTHROPIC_LOG": "debug"}


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(cwd), **TALKATIVE}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environ, capture_output=True, text=True, timeout=55, check=True
    )


def test_the_agent_is_imported_without_litellm(tmp_path: Path) -> None:
    code = "import sys, calliope_agent.agent, calliope_agent.upstream.litellm_door as door; print('litellm' in sys.modules)"
    assert run(code, tmp_path).stdout == "False\n"


def test_a_process_that_used_it_has_no_proxy_no_dot_env_and_said_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A_LINE_OF_DOT_ENV=1\n")
    deeper = tmp_path / "a" / "b"
    deeper.mkdir(parents=True)
    done = run(PROCESS, deeper)
    *printed, last = done.stdout.splitlines()
    assert json.loads(last) == {"proxy": [], "switches": ["True", "PRODUCTION"], "of the file": None}
    assert printed == []
    assert "LiteLLM" not in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
async def test_no_image_is_fetched_from_this_machine(host: str) -> None:
    """litellm puts http: images into Anthropic's form by downloading them: a request could choose where."""
    async with ScriptedProvider() as inside, rig() as made:
        image = {"type": "image_url", "image_url": {"url": f"http://{host}:{inside.port}/latest/meta-data.png"}}
        attempt = made.attempt("anthropic", "chat", {"messages": [{"role": "user", "content": [image]}]})
        with pytest.raises(errors.UpstreamRefused):
            await made.plain(attempt)
        assert inside.connections == 0


async def test_first_callers_share_one_import_and_leave_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    imports, gate, real = [], threading.Event(), litellm_door._import

    def counted() -> Any:
        imports.append(1)
        gate.wait(30)
        return real()

    monkeypatch.setattr(litellm_door, "_import", counted)
    async with rig() as made:
        asked = [made.attempt("openai", "messages", {"messages": HI, "max_tokens": 5}) for _ in range(4)]
        waiting = [asyncio.create_task(made.plain(attempt)) for attempt in asked]
        await asyncio.sleep(0)
        waiting[0].cancel()
        before = made.door.loaded
        gate.set()
        gone, *answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(gone, asyncio.CancelledError)
        assert [answer["type"] for answer in answers if isinstance(answer, dict)] == ["message"] * 3
        assert (before, made.door.loaded) == (False, True)
        assert len(imports) == 1


async def test_a_failed_import_says_what_to_do_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ImportError("no such wheel")

    async with rig() as made:
        with monkeypatch.context() as patched:
            patched.setattr(litellm_door, "_import", broken)
            made.door.preload()
            with pytest.raises(errors.UpstreamError, match="doctor"):
                await made.plain(made.attempt("openai", "messages", {"messages": HI, "max_tokens": 5}))
            assert not made.door.loaded
            assert made.scripted.calls == 0
        assert (await made.plain(made.attempt("openai", "messages", {"messages": HI, "max_tokens": 5})))["content"]


INJECTED = {
    "api_base": "http://127.0.0.1:9/v1",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key": "sk-injected",
    "custom_llm_provider": "ollama",
    "mock_response": "injected",
    "aws_bedrock_runtime_endpoint": "http://127.0.0.1:9",
    "vertex_project": "injected",
    "extra_headers": {"x-injected": "1"},
    "extra_body": {"injected": 1},
    "fallbacks": ["ollama/x"],
    "num_retries": 3,
    "metadata": {"injected": "1"},
    "litellm_params": {"api_base": "http://127.0.0.1:9"},
}


SHAPES: dict[Kind, dict[str, Any]] = {
    "chat": {"messages": HI},
    "messages": {"messages": HI, "max_tokens": 5},
    "responses": {"input": "hi"},
    "completions": {"prompt": "hi"},
}
# What passes natively keeps every field: there the edge refuses these.
TRANSLATED = [(r, k) for r in ROUTES for k in SHAPES if (r, k) not in {("openai", "chat"), ("anthropic", "messages")}]


@pytest.mark.parametrize(("route", "kind"), TRANSLATED)
async def test_a_request_cannot_say_where_it_goes_or_how_it_is_asked(route: str, kind: Kind) -> None:
    async with rig() as made:
        answer = await made.plain(made.attempt(route, kind, {**INJECTED, **SHAPES[kind]}))
        assert made.scripted.calls == 1
        request = made.scripted.requests[0]
        assert request.key == KEY
        assert "injected" not in json.dumps(request.json) + json.dumps(dict(request.headers)) + json.dumps(
            answer["model"]
        )
        assert "Hello world" in json.dumps(answer)


async def test_a_provider_without_a_key_never_gets_the_one_of_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-address")
    async with rig() as made:
        attempt = made.attempt("litellm-openai", "chat", {"messages": HI})
        await made.plain(Attempt(attempt.call, attempt.target, None, attempt.limits))
        assert made.scripted.requests[0].key == NO_KEY


async def test_a_places_own_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as made:

        async def place(attempt: Attempt) -> Place:
            return Place(made.scripted.base_url, key=Secret("of-the-place"))

        monkeypatch.setattr(made, "place", place)
        await made.plain(made.attempt("litellm-openai", "chat", {"messages": HI}))
        assert made.scripted.requests[0].key == "of-the-place"


@pytest.mark.parametrize("route", ["litellm-openai", "anthropic"])
async def test_what_the_manifest_drops_is_not_sent(route: str) -> None:
    async with rig() as made:
        body = {"messages": HI, "temperature": 0.5}
        await made.plain(made.attempt(route, "chat", body, drops=frozenset({"temperature"})))
        assert "temperature" not in made.scripted.requests[0].json


async def test_streams_beside_each_other_do_not_mix() -> None:
    async with rig() as made:
        made.scripted.respond(lambda request: text(*[request.json["messages"][-1]["content"]] * 20).every(0.001))
        asked = [
            made.attempt(
                route, "messages", {"messages": [{"role": "user", "content": word}], "max_tokens": 5, "stream": True}
            )
            for route in ("openai", "litellm-openai")
            for word in ("one", "two", "three")
        ]
        told = await asyncio.gather(*map(made.frames, asked))
    for attempt, body in zip(asked, told, strict=True):
        word = attempt.call.field("messages")[0]["content"]
        assert body.count(f'"text":"{word}"'.encode()) == 20
        assert body.count(b'"type":"text_delta"') == 20
