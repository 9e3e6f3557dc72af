"""Who may not enter an instance through the hub, and by which tricks: another person, nobody, a sibling server, a
foreign page, other spellings of the IDE's address, smuggled headers.

The canary of every refused change is a file or a state that must not have moved, not the status alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import BrowserContext, Page
from yarl import URL

from tests.e2e.conftest import Stack
from tests.e2e.hub import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

PLACES = ["", "proxy/8071/", "api/status", "api/services", "api/user", "calliope/", "api/contents"]
SECURITY = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "X-XSS-Protection": "1; mode=block",
    "Strict-Transport-Security": "max-age=31536000",
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cookies(stack: Stack, alice: BrowserContext) -> str:
    """Alice's Cookie header for her own instance, after the hub's OAuth round."""
    await alice.request.get(stack.root)
    return await _cookies(alice, stack.root)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def foreign(stack: Stack) -> AsyncIterator[str]:
    """A page of another origin: same host, another port, so that the browser sends cookies along."""
    (port,) = free_ports(1)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html><title>elsewhere</title>", content_type="text/html")

    runner = web.AppRunner(web_app := web.Application())
    web_app.router.add_get("/{rest:.*}", page)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/"
    await runner.cleanup()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sibling(stack: Stack, alice: BrowserContext) -> AsyncIterator[Page]:
    """A page of bob's server in alice's browser: on a path-routed hub it has the origin of her own instance."""
    page = await alice.new_page()
    # Bob can make his server show anything to anybody; the browser only sees the address and the answer.
    await page.route(
        stack.bobs + "evil.html",
        lambda route: route.fulfill(body="<!DOCTYPE html><title>bob's</title><body></body>", content_type="text/html"),
    )
    await page.goto(stack.bobs + "evil.html")
    yield page
    await page.close()


async def _cookies(context: BrowserContext, url: str) -> str:
    return "; ".join(f"{one.get('name')}={one.get('value')}" for one in await context.cookies(url))


async def _handshake(http: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> int:
    """Status of a websocket's opening; 101 when it is let in."""
    try:
        async with http.ws_connect(url, headers=headers):
            return 101
    except aiohttp.WSServerHandshakeError as exc:
        return exc.status


# --- another person, nobody -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
async def test_another_person_gets_403(stack: Stack, bob: BrowserContext, place: str) -> None:
    answer = await bob.request.get(stack.root + place, headers={"Sec-Fetch-Mode": "navigate"})
    assert answer.status == 403


@pytest.mark.parametrize("place", PLACES)
async def test_another_persons_token_gets_403(stack: Stack, http: aiohttp.ClientSession, place: str) -> None:
    headers = {"Authorization": f"token {await stack.hub.token_of('bob')}"}
    async with http.get(stack.root + place, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 403


@pytest.mark.parametrize("place", ["", "proxy/8071/", "calliope/"])
async def test_nobody_gets_the_login_page(stack: Stack, http: aiohttp.ClientSession, place: str) -> None:
    async with http.get(stack.root + place, allow_redirects=True) as answer:
        assert answer.status == 200
        assert urlsplit(str(answer.url)).path == "/hub/login"


@pytest.mark.parametrize("place", ["api/status", "api/services", "api/user", "api/contents"])
async def test_nobody_gets_no_data(stack: Stack, http: aiohttp.ClientSession, place: str) -> None:
    async with http.get(stack.root + place, allow_redirects=False) as answer:
        assert answer.status in (302, 403)
        assert "alice" not in await answer.text()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("place", ["", "proxy/8071/x", "calliope/api/settings", "api/restart"])
async def test_nobody_changes_anything(stack: Stack, http: aiohttp.ClientSession, method: str, place: str) -> None:
    async with http.request(method, stack.root + place, json={}, allow_redirects=False) as answer:
        assert answer.status in (403, 405)


@pytest.mark.parametrize("place", ["", "proxy/8071/", "calliope/", "terminals/websocket/1"])
async def test_websockets_of_others_are_refused(
    stack: Stack, http: aiohttp.ClientSession, bob: BrowserContext, place: str
) -> None:
    origin = {"Origin": stack.hub.url}
    assert await _handshake(http, stack.root + place, origin) in (401, 403, 404)
    bobs = origin | {"Cookie": await _cookies(bob, stack.root)}
    assert await _handshake(http, stack.root + place, bobs) in (401, 403, 404)
    token = origin | {"Authorization": f"token {await stack.hub.token_of('bob')}"}
    assert await _handshake(http, stack.root + place, token) in (401, 403, 404)


# --- foreign and sibling pages ----------------------------------------------------------------------------------------


async def test_the_owners_websocket_enters_only_from_her_own_origin(
    stack: Stack, http: aiohttp.ClientSession, cookies: str
) -> None:
    """The first is the control: without it the others would prove nothing."""
    url = f"{stack.root}?reconnectionToken=x&skipWebSocketFrames=false"
    assert await _handshake(http, url, {"Cookie": cookies, "Origin": stack.hub.url}) == 101
    for origin in ("https://evil.example", "http://127.0.0.1:1", "null", stack.hub.url + ".evil.example"):
        assert await _handshake(http, url, {"Cookie": cookies, "Origin": origin}) == 403, origin


@pytest.mark.parametrize("place", ["api/restart", "calliope/api/settings", "proxy/8071/mint-key", "mint-key"])
async def test_a_foreign_page_changes_nothing(
    stack: Stack, alice: BrowserContext, foreign: str, http: aiohttp.ClientSession, cookies: str, place: str
) -> None:
    for headers in ({"Origin": foreign.rstrip("/")}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        sent = {"Cookie": cookies, "Content-Type": "text/plain"} | headers
        async with http.post(stack.root + place, data="{}", headers=sent, allow_redirects=False) as answer:
            assert answer.status == 403, headers
    page = await alice.new_page()
    await page.goto(foreign)
    sent_from_page = await page.evaluate(
        "async (url) => (await fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'})).type",
        stack.root + place,
    )
    assert sent_from_page == "opaque"
    async with page.expect_response(lambda answer: answer.request.method == "POST") as posted:
        await page.evaluate(
            "(url) => { document.body.innerHTML = `<iframe name=into></iframe><form method=post target=into></form>`; "
            "const form = document.forms[0]; form.action = url; setTimeout(() => form.submit()); }",
            stack.root + place,
        )
    assert (await posted.value).status == 403
    await page.close()


async def test_a_sibling_server_cannot_write_or_read_the_settings(stack: Stack, sibling: Page) -> None:
    """Same origin, so cookies go along and answers could be read: only the hub's XSRF check and our token stand."""
    asked = """async ([url, method]) => {
      const answer = await fetch(url, {method, credentials: 'include', headers: {'Content-Type': 'application/json'},
        body: method === 'GET' ? undefined : '{}'});
      return [answer.status, answer.redirected ? '' : await answer.text()];
    }"""
    status, _ = await sibling.evaluate(asked, [f"{stack.root}api/restart", "POST"])
    assert status == 403
    status, _ = await sibling.evaluate(asked, [f"{stack.root}calliope/api/settings", "PATCH"])
    assert status == 403
    status, text = await sibling.evaluate(
        "async (url) => { const a = await fetch(url, {headers: {Accept: 'text/html'}}); return [a.status, await a.text()]; }",
        f"{stack.root}calliope/",
    )
    assert status == 403, text[:200]


async def test_a_sibling_server_cannot_frame_the_settings(stack: Stack, sibling: Page) -> None:
    read = await sibling.evaluate(
        """async (url) => {
          const frame = document.createElement('iframe');
          frame.src = url;
          await new Promise((resolve) => { frame.onload = resolve; document.body.append(frame); });
          try { return frame.contentDocument?.body?.innerText ?? ''; } catch { return ''; }
        }""",
        f"{stack.root}calliope/",
    )
    assert "token" not in read.lower()
    assert "may not load this" in read or "opens only by itself" in read or read == ""


async def test_a_service_worker_of_a_sibling_is_refused(stack: Stack, sibling: Page) -> None:
    for script in (f"{stack.root}proxy/8071/_static/out/browser/serviceWorker.js", f"{stack.root}files/sw.js"):
        said = await sibling.evaluate(
            "(script) => navigator.serviceWorker.register(script, {scope: '/'}).then(() => 'registered', (e) => e.name)",
            script,
        )
        assert said in ("SecurityError", "TypeError"), script


async def test_a_service_worker_below_the_workspace_is_refused(
    stack: Stack, http: aiohttp.ClientSession, cookies: str
) -> None:
    (stack.workspace / "sw.js").write_text("self.onfetch = () => {};")
    sent = {
        "Cookie": cookies,
        "Service-Worker": "script",
        "Sec-Fetch-Dest": "serviceworker",
        "Sec-Fetch-Site": "same-origin",
    }
    for place in ("files/sw.js", "proxy/8071/vscode-remote-resource?path=" + str(stack.workspace / "sw.js")):
        async with http.get(stack.root + place, headers=sent, allow_redirects=False) as answer:
            assert answer.status == 403, place


# --- other spellings, smuggled headers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        "proxy/absolute/{port}/", "proxy/localhost:{port}/", "proxy/127.0.0.1:{port}/", "proxy/0{port}/",
        "proxy/absolute/0{port}/", "proxy/%3{first}{rest}/", "proxy/[::1]:{port}/", "proxy/0.0.0.0:{port}/",
    ],
)  # fmt: skip
async def test_the_agent_is_reached_by_no_spelling_of_its_port(
    stack: Stack, http: aiohttp.ClientSession, cookies: str, spelling: str
) -> None:
    port = await _agent_port(stack, http)
    place = spelling.format(port=port, first=port[0], rest=port[1:])
    url = URL(stack.root + place + "health", encoded=True)
    async with http.get(url, headers={"Cookie": cookies}, allow_redirects=False) as answer:
        assert answer.status in (302, 400, 403, 404), place
        assert "healthy" not in await answer.text()


@pytest.mark.parametrize(
    "spelling", ["proxy/absolute/8071/", "proxy/localhost:8071/", "proxy/127.0.0.1:8071/", "proxy/08071/"]
)
async def test_the_ide_is_reached_by_no_other_spelling(
    stack: Stack, http: aiohttp.ClientSession, cookies: str, spelling: str
) -> None:
    async with http.get(stack.root + spelling, headers={"Cookie": cookies}, allow_redirects=False) as answer:
        assert answer.status in (302, 400, 403, 404)
        assert "workbench" not in await answer.text()


async def test_smuggled_headers_do_not_reach_the_ide_or_the_agent(
    stack: Stack, http: aiohttp.ClientSession, cookies: str
) -> None:
    sent = {
        "Cookie": cookies,
        "X-JupyterHub-User": "root",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "host=evil.example",
    }
    async with http.get(f"{stack.root}api/user", headers=sent) as answer:
        assert (await answer.json())["name"] == "alice"
    async with http.get(stack.root, headers=sent, allow_redirects=False) as answer:
        assert "evil.example" not in answer.headers.get("Location", "") + await answer.text()


@pytest.mark.parametrize(
    "request_line",
    ["GET {path}../../../hub/admin HTTP/1.1", "GET {path}..%2f..%2fbob HTTP/1.1", "GET {path}%2e%2e/x HTTP/1.1"],
)
async def test_climbing_paths_do_not_reach_the_ide(stack: Stack, cookies: str, request_line: str) -> None:
    head = await _raw(stack, request_line.format(path=urlsplit(stack.root).path), cookies)
    assert head.split(b" ")[1] in (b"302", b"400", b"403", b"404"), head[:200]


async def test_both_lengths_at_once_are_refused(stack: Stack, cookies: str) -> None:
    path = urlsplit(stack.root).path
    body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    extra = f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n"
    head = await _raw(stack, f"POST {path}mint-key HTTP/1.1", cookies, extra, body)
    assert head.split(b" ")[1] in (b"400", b"403"), head[:200]
    assert head.count(b"HTTP/1.1") == 1


# --- headers, redirects, health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["", "proxy/8071/", "api/status", "health", "ide/", "nothing/../x", "calliope/", "oauth_callback"]
)
async def test_security_headers_on_every_kind_of_answer(
    stack: Stack, http: aiohttp.ClientSession, cookies: str, place: str
) -> None:
    for headers in ({}, {"Cookie": cookies}):
        async with http.get(stack.root + place, headers=headers, allow_redirects=False) as answer:
            assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY, (place, answer.status)
            assert "frame-ancestors" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("old", "new"), [("ide/", ""), ("WAIIDE/", ""), ("vscode/", ""), ("ide/?folder=/x&y=%2F", "?folder=/x&y=%2F")]
)
async def test_old_addresses_redirect_with_their_query(
    stack: Stack, http: aiohttp.ClientSession, cookies: str, old: str, new: str
) -> None:
    url = URL(stack.root + old, encoded=True)
    async with http.get(url, headers={"Cookie": cookies}, allow_redirects=False) as answer:
        assert answer.status in (301, 302, 308)
        assert answer.headers["Location"] == urlsplit(stack.root).path + new


async def test_health_needs_no_login(stack: Stack, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{stack.root}health") as answer:
        assert answer.status == 200
        assert (await answer.json())["status"] == "healthy"


async def test_only_an_admin_may_restart_and_jupyter_stays(
    stack: Stack, http: aiohttp.ClientSession, cookies: str, admin: BrowserContext
) -> None:
    before = await _status(stack, http)
    mine = {"Authorization": f"token {await stack.hub.token_of('alice')}"}
    async with http.post(f"{stack.root}api/restart", headers=mine) as answer:
        assert answer.status == 403
    admins = {"Authorization": f"token {await stack.hub.token_of('admin')}"}
    async with http.post(f"{stack.root}api/restart", headers=admins) as answer:
        assert answer.status == 202
    for _ in range(300):
        after = await _status(stack, http)
        if {one["status"] for one in after["services"].values()} == {"running"}:
            break
        await asyncio.sleep(0.1)
    assert after["started"] == before["started"]
    assert {one["status"] for one in after["services"].values()} == {"running"}


async def _status(stack: Stack, http: aiohttp.ClientSession) -> Any:
    headers = {"Authorization": f"token {await stack.hub.token_of('alice')}"}
    async with http.get(f"{stack.root}api/status", headers=headers) as answer:
        assert answer.status == 200
        return await answer.json()


async def _agent_port(stack: Stack, http: aiohttp.ClientSession) -> str:
    services = (await _status(stack, http))["services"]
    agent = next(service for name, service in services.items() if "agent" in name.lower())
    return str(agent["port"])


async def _raw(stack: Stack, request_line: str, cookies: str, extra: str = "", body: str = "") -> bytes:
    """What the hub's proxy answers to bytes that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.hub.port)
    head = (
        f"{request_line}\r\nHost: 127.0.0.1:{stack.hub.port}\r\nCookie: {cookies}\r\nConnection: close\r\n{extra}\r\n"
    )
    writer.write((head + body).encode())
    await writer.drain()
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer
