"""A server whose tab is only open ends; the hub's own clock alone would let it live for ever."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser

from tests.e2e import browser as browsers
from tests.e2e import needs
from tests.e2e.hub import Hub

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
SERVER, LIMIT_S = "alice-idle", 25


async def test_a_server_with_an_idle_tab_ends(
    tools: needs.Tools, chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = {
        "CALLIOPE_DATA_DIR": str(tools.data_dir),
        "WAIIDE_IDLE_SHUTDOWN_S": str(LIMIT_S),
        "USE_ALL_COMPONENTS": "false",
    }
    async with Hub(folder=tmp_path_factory.mktemp("idle"), proxy=tools.proxy, environment=environment) as hub:
        root = await hub.spawn("alice", SERVER)
        context = await chromium.new_context(viewport={"width": 1200, "height": 800})
        page = await browsers.log_in(context, hub.url, "alice", hub.password)
        await page.goto(root)
        await page.wait_for_selector(".monaco-workbench .part.statusbar", timeout=90_000)
        for _ in range(600):
            _, model = await hub.api("GET", "/users/alice")
            if not model["servers"].get(SERVER, {}).get("ready"):
                break
            await asyncio.sleep(0.25)
        else:
            raise AssertionError(f"the server goes on\n{hub.tail()}")
        assert f"nobody was active for {LIMIT_S} s" in hub.log.read_text()
        assert not page.is_closed(), "the tab was open all the while"
        await context.close()
