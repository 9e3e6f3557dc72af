"""A respawn, and the end of an idle server; both with the real hub."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from playwright.async_api import BrowserContext

from tests.e2e.browser import Workbench
from tests.e2e.conftest import BUSY, IDLE, IDLE_S, Stack
from tests.upstream import ScriptedProvider, text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
CHAT = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Go"}]}


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
