"""Under a real JupyterHub with its real proxy; the IDE is the stand-in, no browser is needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from calliope_agent.launcher.headers import SECURITY
from tests.e2e.hub import Hub
from tests.launcher.stack import FAKE_IDE

SERVER, BOBS, OWNERS, IDLE = "alice-waiide-abc123", "bob-waiide-def456", "alice-owner", "alice-idle"
DATA = Path(os.environ.get("CALLIOPE_DATA_DIR") or Path(__file__).parents[2] / ".data")
PROXY = DATA / "e2e" / "proxy" / "node_modules" / ".bin" / "configurable-http-proxy"
LIFE: Any = {"scope": "module", "loop_scope": "module"}
pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("hub")]


@pytest_asyncio.fixture(**LIFE)
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    if not PROXY.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no configurable-http-proxy: run tests/e2e/install")
    environment = {
        "WAIIDE_IDE_COMMAND": f"{shlex.join([sys.executable, str(FAKE_IDE)])} $SOCKET",
        "USE_ALL_COMPONENTS": "false",
        "OPENAI_API_KEY": "sk-a-provider-key",
    }
    servers = {OWNERS: {"WAIIDE_RESTART_ROLE": "owner", "PORT": "1234"}, IDLE: {"WAIIDE_IDLE_SHUTDOWN_S": "10"}}
    async with Hub(
        folder=tmp_path_factory.mktemp("hub"), proxy=PROXY, environment=environment, servers=servers
    ) as running:
        yield running


@pytest_asyncio.fixture(**LIFE)
async def root(hub: Hub) -> str:
    return await hub.spawn("alice", SERVER)


@pytest_asyncio.fixture(**LIFE)
async def tokens(hub: Hub) -> dict[str, str]:
    return {user: await hub.token_of(user) for user in ("alice", "bob", "admin")}


@pytest_asyncio.fixture(**LIFE)
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"token {token}"}


async def status(client: aiohttp.ClientSession, url: str, **more: Any) -> int:
    method = more.pop("method", "GET")
    async with client.request(method, url, allow_redirects=False, **more) as answer:
        return answer.status


async def test_the_owner_comes_in_and_others_do_not(
    hub: Hub, root: str, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    for path in ("", "x", "api/status", "api/contents", "terminals/websocket/1"):
        assert await status(client, root + path, headers=bearer(tokens["bob"])) in (403, 404)
    assert await status(client, root + "x", headers=bearer(tokens["alice"])) == 200
    assert await status(client, root + "x", headers=bearer(hub.token)) == 200
    async with client.get(root + "x", headers=bearer(tokens["alice"])) as answer:
        told = await answer.json()
        assert answer.headers["X-JupyterHub-User"] == "alice"
        assert answer.headers["X-JupyterHub-Server"] == SERVER
        for name, value in SECURITY.items():
            assert answer.headers.getall(name) == [value]
    secret = [name for name, value in told["environ"].items() if "provider-key" in value or name.endswith("API_TOKEN")]
    assert secret == []


async def test_anonymous_visitors_are_led_to_the_login(root: str, client: aiohttp.ClientSession) -> None:
    async with client.get(root, allow_redirects=False) as answer:
        assert answer.status == 302
        assert "/hub/api/oauth2/authorize" in answer.headers["Location"]
    assert await status(client, root + "x", method="POST", data=b"1") == 403
    for path in ("socket", "terminals/websocket/1"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(root + path)
        assert caught.value.status == 403


async def test_websockets_of_others_are_refused(
    root: str, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    async with client.ws_connect(root + "socket", headers=bearer(tokens["alice"])) as connection:
        await connection.send_str("hello")
        assert await connection.receive_str() == "hello"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await client.ws_connect(root + "socket", headers=bearer(tokens["bob"]))
    assert caught.value.status == 403


async def test_refusals_do_not_break_the_hub_s_proxy(
    root: str, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    """Fifty refused writes in a row: none may turn into the proxy's own 503."""
    got = {await status(client, root + "x", method="POST", data=b"1", headers=bearer(tokens["bob"])) for _ in range(50)}
    assert got == {403}


async def test_health_and_the_hub_s_sign_of_life(root: str, client: aiohttp.ClientSession) -> None:
    async with client.get(root + "health") as answer:
        assert answer.status == 200
        assert (await answer.json())["status"] == "healthy"
    async with client.get(root + "api") as answer:
        assert "X-JupyterHub-Version" in answer.headers
        assert set(await answer.json()) == {"version"}


async def test_restart_is_the_administrator_s(
    hub: Hub, root: str, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    assert await status(client, root + "api/restart", method="POST", headers=bearer(tokens["alice"])) == 403
    assert await status(client, root + "api/restart", method="POST", headers=bearer(hub.token)) == 202
    assert await status(client, root + "api/restart", method="POST", headers=bearer(tokens["bob"])) == 403


async def test_the_owner_may_restart_where_the_operator_allows_it(
    hub: Hub, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    """The same server has a PORT that the hub knows nothing of: the hub's word wins, and it is said."""
    own = await hub.spawn("alice", OWNERS)
    assert await status(client, own + "api/restart", method="POST", headers=bearer(tokens["alice"])) == 202
    assert "so PORT 1234 is not used" in hub.log.read_text()
    await hub.stop("alice", OWNERS)


async def test_a_named_server_says_its_name(hub: Hub, root: str) -> None:
    assert f"Running as named server: {SERVER} for user: alice" in hub.log.read_text()


async def test_oauth_below_the_prefix_goes_to_the_hub(hub: Hub, root: str, client: aiohttp.ClientSession) -> None:
    async with client.get(root + "hub/api/oauth2/authorize?client_id=x", allow_redirects=False) as answer:
        assert answer.headers["Location"] == "/hub/api/oauth2/authorize?client_id=x"


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "application/json, text/event-stream"])
async def test_events_pass_the_hub_s_proxy_one_by_one(
    root: str, tokens: dict[str, str], client: aiohttp.ClientSession, accept: str
) -> None:
    own = bearer(tokens["alice"])
    async with client.get(root + "gated", headers={**own, "Accept": accept}) as answer:
        assert await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 10) == b"data: first\n\n"
        assert await status(client, root + "release", method="POST", headers=own) == 200
        assert await asyncio.wait_for(answer.content.read(), 10) == b"data: second\n\n"


async def test_a_cookie_login_is_held_to_this_origin(hub: Hub, root: str) -> None:
    """The whole OAuth round trip of a browser, then writes from elsewhere with its cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{hub.url}/hub/login") as page:
            xsrf = next(c.value for c in browser.cookie_jar if c.key == "_xsrf")
            assert page.status == 200
        form = {"username": "alice", "password": hub.password, "_xsrf": xsrf}
        async with browser.post(f"{hub.url}/hub/login", data=form) as answer:
            assert answer.status == 200
        async with browser.get(root + "x") as answer:
            arrived = dict((await answer.json())["headers"])
        assert "jupyterhub" not in arrived.get("Cookie", "")
        assert await status(browser, root + "x", method="POST", data=b"1") == 200
        for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
            assert await status(browser, root + "x", method="POST", data=b"1", headers=foreign) == 403
        sibling = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Referer": f"{hub.url}/user/bob/x"}
        assert await status(browser, root + "x", headers=sibling) == 403
        assert await status(browser, root + "api/restart", method="POST") == 403
        for spelling in ("proxy/localhost:8071/", "proxy/absolute/8071/"):
            assert await status(browser, root + spelling) == 403


async def test_terminals_hold_no_token_of_the_hub(
    root: str, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    own = bearer(tokens["alice"])
    async with client.post(root + "api/terminals", headers=own) as answer:
        name = (await answer.json())["name"]
    script = "import json,os;print('BE'+'GIN'+json.dumps(dict(os.environ))+'E'+'ND')"
    async with client.ws_connect(root + f"terminals/websocket/{name}", headers=own) as terminal:
        await terminal.send_json(["stdin", f'{shlex.quote(sys.executable)} -c "{script}"\r'])
        text = ""
        while "END" not in text:
            kind, *rest = await asyncio.wait_for(terminal.receive_json(), 20)
            text += rest[0] if kind == "stdout" else ""
    found = json.loads(text[text.index("BEGIN") + 5 : text.index("END")].replace("\r\n", ""))
    assert not {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "OPENAI_API_KEY"} & set(found)
    assert found["JUPYTERHUB_USER"] == "alice"


async def test_an_unknown_token_costs_no_more_than_the_limit_when_the_hub_is_frozen(
    hub: Hub, root: str, client: aiohttp.ClientSession
) -> None:
    hub.process.send_signal(19)
    try:
        async with asyncio.timeout(12):
            assert await status(client, root + "health") == 200
            assert await status(client, root + "x", headers=bearer(secrets.token_hex(16))) == 503
    finally:
        hub.process.send_signal(18)


async def test_an_idle_server_ends_although_a_tab_is_open(
    hub: Hub, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    """The tab sends what VS Code sends by itself: acknowledgements and keep-alives."""
    idle = await hub.spawn("alice", IDLE)
    quiet = bytes([9]) + bytes(12)
    async with client.ws_connect(idle + "socket", headers=bearer(tokens["alice"])) as tab:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            for _ in range(300):
                await tab.send_bytes(quiet)
                await asyncio.sleep(0.2)
    for _ in range(100):
        _, model = await hub.api("GET", "/users/alice")
        if not model["servers"].get(IDLE, {}).get("ready"):
            return
        await asyncio.sleep(0.2)
    raise AssertionError("the idle server goes on")


async def test_an_open_websocket_ends_with_its_login(
    hub: Hub, tokens: dict[str, str], client: aiohttp.ClientSession
) -> None:
    """The hub's word is believed for cache_max_age; afterwards it is asked again, for open connections too."""
    config = hub.home("alice") / ".jupyter" / "jupyter_server_config.py"
    config.parent.mkdir(exist_ok=True)
    config.write_text("c.HubOAuth.cache_max_age = 1\n")
    own = await hub.spawn("alice", "alice-login")
    _, made = await hub.api("POST", "/users/alice/tokens", {"note": "to be revoked"})
    async with client.ws_connect(own + "socket", headers=bearer(made["token"])) as tab:
        await tab.send_str("still here")
        assert await tab.receive_str() == "still here"
        await hub.api("DELETE", f"/users/alice/tokens/{made['id']}")
        message = await asyncio.wait_for(tab.receive(), 20)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
    config.unlink()
    await hub.stop("alice", "alice-login")
