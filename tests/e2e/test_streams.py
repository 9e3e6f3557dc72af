"""The agent's streams through the hub's proxy and the launcher: each event when it is sent, a stop at once, a cut taken up again."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Stack
from tests.transcripts import last_id, numbered
from tests.upstream import ScriptedProvider, text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

CHAT = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Hello"}], "temperature": 1}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def owner(stack: Stack) -> dict[str, str]:
    return {"authorization": f"token {await stack.hub.token_of('alice')}"}


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "application/json, text/event-stream"])
async def test_each_event_arrives_before_the_next_is_sent(
    stack: Stack, provider: ScriptedProvider, http: aiohttp.ClientSession, owner: dict[str, str], accept: str
) -> None:
    gate = asyncio.Event()
    provider.script(text("one", "two").hold(gate, before=1))
    headers = {**owner, "accept": accept}
    async with http.post(f"{stack.root}calliope/v1/chat/completions", json=CHAT, headers=headers) as answer:
        assert answer.status == 200
        seen = b""
        async with asyncio.timeout(10):
            while b'"one"' not in seen:
                seen += await answer.content.readany()
        assert b'"two"' not in seen
        gate.set()
        assert b'"two"' in await answer.content.read()


async def test_a_stop_reaches_the_provider(
    stack: Stack, provider: ScriptedProvider, http: aiohttp.ClientSession, owner: dict[str, str]
) -> None:
    provider.script(text("word").stall_after(1))
    number = len(provider.requests)
    async with http.post(f"{stack.root}calliope/v1/chat/completions", json=CHAT, headers=owner) as answer:
        await answer.content.readany()
    await provider.client_gone(number, timeout=2)


async def test_a_cut_stream_is_resumed(
    stack: Stack, provider: ScriptedProvider, http: aiohttp.ClientSession, owner: dict[str, str]
) -> None:
    words = [f"word{number}" for number in range(6)]
    gate = asyncio.Event()
    provider.script(text(*words).hold(gate, before=3), text(*words))
    chat, resumable = f"{stack.root}calliope/v1/chat/completions", {**owner, "x-calliope-resumable": "true"}
    got = b""
    async with http.post(chat, json=CHAT, headers=resumable) as answer:
        stream = answer.headers["x-calliope-stream"]
        while b'"word2"' not in got:
            got += await answer.content.readany()
    gate.set()
    kept = numbered(got)
    where, lost = f"{stack.root}calliope/v1/streams/{stream}", {**owner, "last-event-id": last_id(kept)}
    async with http.get(where, headers=lost) as rest:
        resumed = numbered(await rest.read())
    async with http.post(chat, json=CHAT, headers=resumable) as answer:
        whole = numbered(await answer.read())
    assert kept + resumed == whole
