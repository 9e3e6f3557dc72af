"""The lower end of the hubs that the launcher speaks to: a short round through the oldest one.

Every other test here runs with the newest; what lies outside is refused in tests/launcher/test_away.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import jupyterhub  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from calliope_agent.launcher.hub import HUB_MAJORS
from tests.e2e import browser as browsers
from tests.e2e import needs
from tests.e2e.browser import Workbench, shot
from tests.e2e.conftest import SERVER, Stack, told_to_servers
from tests.e2e.hub import Hub
from tests.passage import Passage
from tests.upstream import ScriptedProvider

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def old(
    tools: needs.Tools, provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    hub = Hub(
        folder=tmp_path_factory.mktemp("oldest"),
        proxy=tools.proxy,
        environment=told_to_servers(tools, provider),
        python=str(tools.oldest_hub),
    )
    async with hub:
        yield Stack(hub, provider, await hub.spawn("alice", SERVER), "")


async def test_both_ends_of_the_range_are_tested(old: Stack) -> None:
    status, told = await old.hub.api("GET", "/")
    assert (status, told["version"]) == (200, f"{HUB_MAJORS[0]}.0.0")
    assert jupyterhub.version_info[0] == HUB_MAJORS[-1], "what the other tests run with"


async def test_the_owner_gets_the_workbench_and_another_person_403(old: Stack, chromium: Browser) -> None:
    hers = await chromium.new_context(viewport={"width": 1400, "height": 900})
    page = await browsers.log_in(hers, old.hub.url, "alice", old.hub.password)
    await Workbench(page).open(old.root)
    await expect(page.locator(".explorer-folders-view")).to_be_visible()
    await shot(page, "oldest-hub")
    await hers.close()
    his = await chromium.new_context()
    await browsers.log_in(his, old.hub.url, "bob", old.hub.password)
    for place in ("", "proxy/8071/", "api/status", "calliope/"):
        answer = await his.request.get(old.root + place, headers={"Sec-Fetch-Mode": "navigate"})
        assert answer.status == 403, place
    await his.close()


async def test_tokens_open_what_is_theirs(old: Stack, http: aiohttp.ClientSession) -> None:
    hers, his = [{"Authorization": f"token {await old.hub.token_of(who)}"} for who in ("alice", "bob")]
    for place in ("", "api/status", "calliope/v1/models"):
        async with http.get(old.root + place, headers=hers) as answer:
            assert answer.status == 200, place
        async with http.get(old.root + place, headers=his) as answer:
            assert answer.status == 403, place
    url = f"{old.root}?reconnectionToken=x&skipWebSocketFrames=false"
    async with http.ws_connect(url, headers=hers):
        pass
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await http.ws_connect(url, headers=his)
    assert caught.value.status == 403


async def test_nobody_gets_the_login_and_health_alone(old: Stack, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{old.root}health") as answer:
        assert (await answer.json())["status"] == "healthy"
    async with http.get(old.root) as answer:
        assert urlsplit(str(answer.url)).path == "/hub/login"
    async with http.post(f"{old.root}api/restart", allow_redirects=False) as answer:
        assert answer.status == 403


async def test_a_stream_comes_event_by_event_and_stops_at_once(
    old: Stack, http: aiohttp.ClientSession, provider: ScriptedProvider
) -> None:
    hers = {"Authorization": f"token {await old.hub.token_of('alice')}"}
    passage = Passage(http, f"{old.root}calliope/", provider, hers)
    await passage.brings_each_event_when_it_is_sent("*/*")
    await passage.tells_the_provider_of_a_stop()


async def test_the_hub_stops_the_server(old: Stack, http: aiohttp.ClientSession) -> None:
    """Last: the others need it."""
    await old.hub.stop("alice", SERVER)
    async with http.get(f"{old.root}health", allow_redirects=False) as answer:
        assert answer.status != 200
