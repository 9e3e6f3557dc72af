"""The agent behind the launcher: its door, its streams, what a person's tools get."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.launcher.stack import Stack, login, running, terminal_environment, wait_for
from tests.passage import ACCEPTED, CHAT, Passage
from tests.upstream import ScriptedProvider, text

LIFE: Any = {"scope": "module", "loop_scope": "module"}
pytestmark = pytest.mark.asyncio(loop_scope="module")
KEY = "sk-provider-canary-0123"


@pytest_asyncio.fixture(**LIFE)
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest_asyncio.fixture(**LIFE)
async def stack(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    found = Stack(tmp_path_factory.mktemp("agent"), environment(provider))
    context = running(found)
    await asyncio.to_thread(context.__enter__)
    await asyncio.to_thread(wait_for, lambda: found.services()["agent"]["status"] == "running", "the agent")
    yield found
    await asyncio.to_thread(context.__exit__, None, None, None)


def environment(provider: ScriptedProvider) -> dict[str, str]:
    return {
        "USE_ALL_COMPONENTS": "true",
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": provider.base_url,
        "CALLIOPE_CHAT_MODEL": "openai/scripted-model",
        "WAIIDE_IDLE_SHUTDOWN_S": "3600",
    }


async def test_the_door_adds_the_manage_token_and_shows_no_secret(stack: Stack) -> None:
    told = stack.get("calliope/api/health")
    assert told.status == 200
    assert "streams" in told.json()
    assert told.get("Content-Security-Policy") == "frame-ancestors 'none'"
    assert stack.get("calliope/api/health", {}).status in (302, 403)
    manage = (stack.folder / "run" / "manage-token").read_text().strip()
    for path in ("calliope/api/health", "api/status", "api", "x"):
        body = stack.get(path).body.decode()
        assert manage not in body
        assert KEY not in body


async def test_changes_by_cookie_want_the_page_s_token(stack: Stack) -> None:
    cookie = login(stack)
    for headers in ({}, {"X-Calliope-Write-Token": "guessed"}):
        answer = stack.ask("PATCH", "calliope/api/settings", {"Cookie": cookie, **headers}, b"{}")
        assert answer.status == 403
        assert b"write token" in answer.body


async def test_the_page_opens_in_no_frame(stack: Stack) -> None:
    html = {"Cookie": login(stack), "Accept": "text/html", "Sec-Fetch-Site": "same-origin", "Referer": stack.url("")}
    framed = {**html, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    fetched = {**html, "Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    for headers in (framed, fetched):
        assert stack.get("calliope/", headers).status == 403


@pytest_asyncio.fixture(**LIFE)
async def passage(stack: Stack, provider: ScriptedProvider) -> AsyncIterator[Passage]:
    async with stack.session() as session:
        yield Passage(session, stack.url("calliope/"), provider, {})


@pytest.mark.parametrize("accept", ACCEPTED)
async def test_each_event_comes_when_it_is_sent(passage: Passage, accept: str) -> None:
    await passage.brings_each_event_when_it_is_sent(accept)


async def test_a_stop_reaches_the_provider(passage: Passage) -> None:
    await passage.tells_the_provider_of_a_stop()


async def test_a_cut_stream_is_resumed(passage: Passage) -> None:
    await passage.lets_a_cut_stream_be_taken_up_again()


async def test_a_running_stream_is_seen_as_activity(stack: Stack, provider: ScriptedProvider) -> None:
    provider.script(text("word").stall_after(1))
    before = stack.get("api/status").json()["last_activity"]
    async with aiohttp.ClientSession() as session:
        token = (stack.folder / "run" / "token").read_text().strip()
        url = f"http://127.0.0.1:{stack.agent_port}/v1/chat/completions"
        async with session.post(url, json=dict(CHAT), headers={"Authorization": f"Bearer {token}"}) as answer:
            await answer.content.readany()
            moved = lambda: stack.get("api/status").json()["last_activity"] > before  # noqa: E731
            await asyncio.to_thread(wait_for, moved, "activity", 15)


async def test_tools_in_a_terminal_reach_the_agent_without_a_key(stack: Stack, provider: ScriptedProvider) -> None:
    provider.script(text("from the agent"))
    environ = await terminal_environment(stack)
    assert KEY not in environ.values()
    script = (
        "import openai; c=openai.OpenAI(); "
        "print(c.chat.completions.create(model='chat', messages=[{'role':'user','content':'x'}]).choices[0].message.content)"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", script, env=environ, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 50)
    assert out.decode().strip() == "from the agent"


async def test_the_command_line_of_a_terminal_finds_the_agent(stack: Stack) -> None:
    environ = await terminal_environment(stack)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "calliope_agent", "status", env=environ, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 50)
    assert child.returncode == 0, out


async def test_a_killed_agent_comes_back_at_the_same_address(stack: Stack) -> None:
    before = stack.services()["agent"]
    os.kill(before["pid"], signal.SIGKILL)
    await asyncio.to_thread(wait_for, lambda: stack.services()["agent"].get("restarts") == 1, "the restart")
    await asyncio.to_thread(wait_for, lambda: stack.services()["agent"]["status"] == "running", "the agent")
    assert stack.services()["agent"]["port"] == before["port"]
    assert json.loads(stack.get("calliope/api/health").body)["status"] in ("ready", "degraded")


async def test_a_stop_ends_a_stream_with_a_word_before_jupyter_goes(provider: ScriptedProvider, tmp_path: Path) -> None:
    stack = Stack(tmp_path, {**environment(provider), "CALLIOPE_DRAIN_S": "1"})
    await asyncio.to_thread(stack.start)
    try:
        await asyncio.to_thread(stack.ready)
        await asyncio.to_thread(wait_for, lambda: stack.services()["agent"]["status"] == "running", "the agent")
        provider.script(text("word").stall_after(1))
        async with stack.session() as session:
            async with session.post(stack.url("calliope/v1/chat/completions"), json=dict(CHAT)) as answer:
                await answer.content.readany()
                stopping = asyncio.create_task(asyncio.to_thread(stack.stop, signal.SIGTERM, 9.5))
                rest = await answer.content.read()
            assert b"server_stopping" in rest
            assert b"[DONE]" not in rest
            assert await stopping == 128 + signal.SIGTERM
        assert stack.below() == set()
    finally:
        await asyncio.to_thread(stack.stop, signal.SIGKILL)
