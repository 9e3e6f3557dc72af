"""Hubs that are set up otherwise: a subdomain for each person, and TLS between hub, proxy and servers."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser

from tests.e2e import browser as browsers
from tests.e2e import needs
from tests.e2e.browser import Workbench, shot
from tests.e2e.conftest import SERVER, told_to_servers
from tests.e2e.hub import Hub, free_ports
from tests.passage import Passage
from tests.upstream import ScriptedProvider

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
DOMAIN = "hub.localhost"
SHARED = "All servers of this hub share one origin"

READ = """(url) => fetch(url, {credentials: 'include'}).then((answer) => `${answer.status}`, (why) => why.name)"""
WRITE = (
    """(url) => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include'}).then((answer) => answer.type)"""
)
FRAME = """async (url) => {
  const frame = document.createElement('iframe');
  frame.src = url;
  await new Promise((resolve) => { frame.onload = resolve; document.body.append(frame); });
  return frame.contentDocument === null ? 'walled' : 'open';
}"""
SOCKET = """(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve('open');
  socket.onerror = () => resolve('refused');
})"""


async def test_with_a_subdomain_for_each_person_servers_are_walled_off_by_the_browser(
    tools: needs.Tools, chromium: Browser, provider: ScriptedProvider, tmp_path: Path
) -> None:
    environment = told_to_servers(tools, provider)
    hub = Hub(folder=tmp_path, proxy=tools.proxy, environment=environment, domain=DOMAIN)
    async with hub, _page_below(f"bob.{DOMAIN}") as bobs:
        root = await hub.spawn("alice", SERVER)
        assert root.startswith(f"http://alice.{DOMAIN}:{hub.port}/user/alice/")
        context = await chromium.new_context(viewport={"width": 1400, "height": 900})
        own = await browsers.log_in(context, hub.url, "alice", hub.password)
        await Workbench(own).open(root)
        await shot(own, "subdomain")
        sibling = await context.new_page()
        await sibling.goto(bobs)
        socket = root.replace("http", "ws", 1) + "?reconnectionToken=x&skipWebSocketFrames=false"
        for page, read, enter in ((own, "200", "open"), (sibling, "TypeError", "refused")):
            assert await page.evaluate(READ, f"{root}manifest.json") == read
            assert await page.evaluate(SOCKET, socket) == enter
        async with sibling.expect_response(lambda answer: answer.request.method == "POST") as posted:
            assert await sibling.evaluate(WRITE, f"{root}api/restart") == "opaque"
        assert (await posted.value).status == 403
        assert await sibling.evaluate(FRAME, root) == "walled"
        assert SHARED not in hub.log.read_text()
        await context.close()


async def test_with_tls_between_hub_proxy_and_servers(
    tools: needs.Tools, chromium: Browser, provider: ScriptedProvider, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    environment = told_to_servers(tools, provider)
    async with Hub(folder=tmp_path, proxy=tools.proxy, environment=environment, tls=True) as hub:
        root = await hub.spawn("alice", SERVER)
        context = await chromium.new_context(viewport={"width": 1400, "height": 900})
        page = await browsers.log_in(context, hub.url, "alice", hub.password)
        await Workbench(page).open(root)
        await context.close()

        owner = {"Authorization": f"token {await hub.token_of('alice')}"}
        await Passage(http, f"{root}calliope/", provider, owner).brings_each_event_when_it_is_sent("*/*")
        log = hub.log.read_text()
        assert "does not answer" not in log, "the launcher asks the hub with the hub's own certificates"
        assert SHARED in log, "the control of the test above"
        found = re.search(rf"https://127\.0\.0\.1:(\d+)/user/alice/{SERVER}/", log)
        assert found is not None
        await _refuses_a_caller_without_a_certificate(http, int(found[1]))


@asynccontextmanager
async def _page_below(host: str) -> AsyncIterator[str]:
    """A page really served, at the host of another person's servers, who can show there what he likes. Its port is its
    own, which neither a site's name nor a cookie knows."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html><title>bob's</title><body></body>", content_type="text/html")

    runner = web.AppRunner(app := web.Application())
    app.router.add_get("/", page)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_ports(1)[0])
    await site.start()
    yield f"http://{host}:{port}/"
    await runner.cleanup()


async def _refuses_a_caller_without_a_certificate(http: aiohttp.ClientSession, port: int) -> None:
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(aiohttp.ClientError):
        await http.get(f"https://127.0.0.1:{port}/health", ssl=anybody)
