"""One stack for all end-to-end tests: a scripted provider, a hub with alice's and bob's servers, a browser.

Locally a missing tool skips these tests with one line; in CI (``CI`` is set) it fails them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from tests.e2e import browser as browsers
from tests.e2e import needs
from tests.e2e.hub import Hub
from tests.upstream import ScriptedProvider

SERVER = "alice-waiide-abc123"
BOBS = "bob-waiide-def456"
IDLE, BUSY = "alice-idle-000001", "alice-busy-000002"
IDLE_S = 20


@dataclass(frozen=True, slots=True)
class Stack:
    """What the tests of a session share."""

    hub: Hub
    provider: ScriptedProvider
    root: str
    """Address of alice's instance, with its last slash."""
    bobs: str

    @property
    def workspace(self) -> Path:
        return self.hub.home("alice") / "workspace"


@pytest.fixture(scope="session")
def tools() -> needs.Tools:
    try:
        return needs.find()
    except needs.Missing as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        pytest.skip(str(exc))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest.fixture(autouse=True)
def own_script(provider: ScriptedProvider) -> None:
    """A test that failed before its answer was asked for leaves it to nobody else."""
    provider.unscript()


def told_to_servers(tools: needs.Tools, provider: ScriptedProvider) -> dict[str, str]:
    """The environment of every server: the real IDE, the scripted provider behind the agent, a kernel."""
    return {
        "CALLIOPE_DATA_DIR": str(tools.data_dir),
        "LOG_LEVEL": "INFO",
        "OPENAI_API_KEY": "sk-e2e-canary-0123456789",
        "OPENAI_BASE_URL": provider.base_url,
        "CALLIOPE_CHAT_MODEL": "openai/scripted-model",
        "CALLIOPE_INLINE_MODEL": "openai/scripted-model",
        "CALLIOPE_CACHE": "off",
        "JUPYTER_PATH": str(tools.person.parents[1] / "share" / "jupyter"),
        "WAIIDE_RESTART_ROLE": "admin",
    }


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(
    tools: needs.Tools, provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The hub with alice's named server and bob's beside it."""
    environment = told_to_servers(tools, provider)
    hub = Hub(folder=tmp_path_factory.mktemp("hub"), proxy=tools.proxy, environment=environment)
    hub.servers = {name: {"WAIIDE_IDLE_SHUTDOWN_S": str(IDLE_S)} for name in (IDLE, BUSY)}
    async with hub:
        main = hub.home("alice") / "workspace"
        main.mkdir(parents=True)
        (main / "main.py").write_text("print('hello')\n")
        (main / "README.md").write_text("# Notes\n")
        root = await hub.spawn("alice", SERVER)
        bobs = await hub.spawn("bob", BOBS)
        yield Stack(hub, provider, root, bobs)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(tools: needs.Tools) -> AsyncIterator[Browser]:
    async with browsers.chromium(tools.chromium) as browser:
        yield browser


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def alice(chromium: Browser, stack: Stack) -> AsyncIterator[BrowserContext]:
    """Alice's browser, logged in."""
    async for context in _logged_in(chromium, stack, "alice"):
        yield context


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bob(chromium: Browser, stack: Stack) -> AsyncIterator[BrowserContext]:
    async for context in _logged_in(chromium, stack, "bob"):
        yield context


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def admin(chromium: Browser, stack: Stack) -> AsyncIterator[BrowserContext]:
    async for context in _logged_in(chromium, stack, "admin"):
        yield context


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without cookies that shows redirects instead of following them."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout) as session:
        yield session


async def _logged_in(browser: Browser, stack: Stack, user: str) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport={"width": 1400, "height": 900})
    password = stack.hub.admin_password if user == "admin" else stack.hub.password
    page = await browsers.log_in(context, stack.hub.url, user, password)
    await page.close()
    yield context
    await context.close()
