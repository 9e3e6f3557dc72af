"""Streams through the hub, a respawn, and the end of an idle server; all with the real hub."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from itertools import pairwise

import aiohttp
import pytest
from playwright.async_api import BrowserContext

from tests.e2e.browser import Workbench
from tests.e2e.conftest import BUSY, IDLE, IDLE_S, Stack
from tests.upstream import ScriptedProvider, text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
CHAT = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Go"}]}


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "application/json, text/event-stream"])
async def test_events_pass_hub_and_launcher_one_by_one(
    stack: Stack, http: aiohttp.ClientSession, provider: ScriptedProvider, accept: str
) -> None:
    """First proved by a gate: what came cannot have waited for the end. Then measured: the median is no accident."""
    gate = asyncio.Event()
    provider.script(text("one", "two").hold(gate, before=1))
    headers = {"Authorization": f"token {await stack.hub.token_of('alice')}", "Accept": accept}
    url = f"{stack.root}calliope/v1/chat/completions"
    async with http.post(url, json=CHAT, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        seen = b""
        async with asyncio.timeout(20):
            while b'"one"' not in seen:
                seen += await answer.content.readany()
        assert b'"two"' not in seen
        gate.set()
        assert b'"two"' in await answer.content.read()

    provider.script(text(*(f"n{number};" for number in range(40))).every(0.05))
    async with http.post(url, json=CHAT, headers=headers) as answer:
        came = [time.monotonic() async for line in answer.content if b'"content"' in line]
    gaps = [after - before for before, after in pairwise(came)]
    assert len(came) >= 40
    assert abs(statistics.median(gaps) - 0.05) < 0.05


async def test_stop_passes_hub_and_launcher(
    stack: Stack, http: aiohttp.ClientSession, provider: ScriptedProvider
) -> None:
    provider.script(text("word").stall_after(1))
    number = len(provider.requests)
    headers = {"Authorization": f"token {await stack.hub.token_of('alice')}"}
    async with http.post(f"{stack.root}calliope/v1/chat/completions", json=CHAT, headers=headers) as answer:
        await answer.content.readany()
        left = time.monotonic()
    assert await provider.client_gone(number, timeout=5) - left < 1


async def test_a_respawn_keeps_the_persons_things(stack: Stack, alice: BrowserContext) -> None:
    name = "alice-waiide-again1"
    root = await stack.hub.spawn("alice", name)
    page = await alice.new_page()
    await Workbench(page).open(root)
    settings = stack.hub.home("alice") / ".calliope-ide" / "User" / "settings.json"
    before = json.loads(settings.read_text()) | {"editor.fontSize": 15}
    settings.write_text(json.dumps(before))
    await page.close()
    await stack.hub.stop("alice", name)
    root = await stack.hub.spawn("alice", name)
    page = await alice.new_page()
    bench = Workbench(page)
    await bench.open(root)
    await bench.open_file("main.py")
    assert json.loads(settings.read_text())["editor.fontSize"] == 15
    size = await page.locator(".editor-instance .view-lines").first.evaluate("(it) => getComputedStyle(it).fontSize")
    assert size == "15px"
    await page.close()
    await stack.hub.stop("alice", name)


async def test_an_idle_tab_does_not_keep_a_server_and_a_stream_does(
    stack: Stack, http: aiohttp.ClientSession, alice: BrowserContext, provider: ScriptedProvider
) -> None:
    idle, busy = await asyncio.gather(stack.hub.spawn("alice", IDLE), stack.hub.spawn("alice", BUSY))
    headers = {"Authorization": f"token {await stack.hub.token_of('alice')}"}
    provider.script(text(*("word " for _ in range(2000))).every(0.1))
    async with http.post(f"{busy}calliope/v1/chat/completions", json=CHAT, headers=headers, timeout=None) as answer:
        await answer.content.readany()
        page = await alice.new_page()
        await Workbench(page).open(idle)
        for _ in range((IDLE_S + 90) * 5):
            _, model = await stack.hub.api("GET", "/users/alice")
            if IDLE not in model["servers"]:
                break
            await answer.content.readany()
            await asyncio.sleep(0.2)
        assert IDLE not in model["servers"]
        assert model["servers"][BUSY]["ready"]
        await page.close()
    await stack.hub.stop("alice", BUSY)
