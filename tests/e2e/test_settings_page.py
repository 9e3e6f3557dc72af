"""The settings page as a person meets it: through the launcher, in Chromium. Needs no IDE: a stand-in answers there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, expect

from tests.e2e.browser import chromium, shot
from tests.launcher.stack import TOKEN, Stack, running, wait_for
from tests.upstream import ScriptedProvider, status, text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
LIFE: Any = {"scope": "module", "loop_scope": "module"}
PREFIX = "/user/alice/alice-waiide-abc123/"
FIRST, SECOND = "sk-canary-first-0123456789", "sk-canary-second-9876543210"
CHAT = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "Hello"}], "temperature": 1}
UNNAMED = """
() => [...document.querySelectorAll('button,input,select,textarea,a,summary,[role=group]')].filter((one) =>
  !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim())).map((one) => one.outerHTML)
"""


@pytest_asyncio.fixture(**LIFE)
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(models=("scripted-model", "scripted-small")) as scripted:
        yield scripted


@pytest_asyncio.fixture(**LIFE)
async def stack(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """An operator who names OpenAI's address and no key, below a hub's prefix."""
    environ = {
        "USE_ALL_COMPONENTS": "true",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",  # never the tester's own
        "OPENAI_BASE_URL": provider.base_url,
        "CALLIOPE_FAST_MODEL": "openai/scripted-small",
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_SERVER_NAME": "alice-waiide-abc123",
        "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
    }
    found = Stack(tmp_path_factory.mktemp("page"), environ, prefix=PREFIX)
    context = running(found)
    await asyncio.to_thread(context.__enter__)
    await asyncio.to_thread(wait_for, lambda: found.services()["agent"]["status"] == "running", "the agent")
    yield found
    await asyncio.to_thread(context.__exit__, None, None, None)


@pytest_asyncio.fixture(**LIFE)
async def browser() -> AsyncIterator[Browser]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: apt-get install chromium")
        pytest.skip("no Chromium: apt-get install chromium")
    async with chromium(executable) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def person(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield context
    await context.close()


class Seen:
    """The page, and what the browser complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._listen)

    def _listen(self, line: ConsoleMessage) -> None:
        """Chromium notes every 503; that of /api/health is its word for "no model can be asked yet", which the page shows."""
        if line.type == "error" and not line.location["url"].endswith("/calliope/api/health"):
            self.complaints.append(line.text)

    async def provider(self, name: str) -> Any:
        entry = self.page.locator(f"[data-provider={name}]")
        if not await entry.evaluate("one => one.open"):
            await entry.locator("summary").first.click()
        return entry

    async def said(self, words: str) -> None:
        await expect(self.page.locator("#said")).to_contain_text(words, timeout=15_000)


async def opened(context: BrowserContext, stack: Stack) -> Seen:
    seen = Seen(await context.new_page())
    await seen.page.goto(stack.url(f"calliope/?token={TOKEN}"))
    await expect(seen.page.locator("[data-provider=openai]")).to_be_visible(timeout=20_000)
    assert "token=" not in seen.page.url
    return seen


async def asked(stack: Stack) -> tuple[int, str]:
    async with (
        stack.session() as session,
        session.post(stack.url("calliope/v1/chat/completions"), json=CHAT) as answer,
    ):
        return answer.status, await answer.text()


async def test_a_key_is_set_checked_used_rotated_and_removed(
    person: BrowserContext, stack: Stack, provider: ScriptedProvider
) -> None:
    seen = await opened(person, stack)
    page = seen.page
    assert (await asked(stack))[0] == 424

    entry = await seen.provider("openai")
    provider.script(status(401), on="models")
    await entry.get_by_label("Your key").fill(FIRST)
    await entry.get_by_role("button", name="Save key").click()
    await seen.said("OpenAI: sk-…6789 (encrypted file) is kept.")
    await expect(entry).to_contain_text("Ready")
    await entry.get_by_role("button", name="Check").click()
    await seen.said("Key refused")
    await entry.get_by_role("button", name="Check").click()
    await seen.said("Works")
    await entry.get_by_text("The 2 models it lists").click()
    await expect(entry.get_by_text("scripted-small").first).to_be_visible()
    assert provider.requests[-1].headers["authorization"] == f"Bearer {FIRST}"

    chat = page.locator("[data-key=role-chat]")
    await chat.locator("summary").click()
    await chat.get_by_label("Model").select_option("openai/scripted-model")
    await chat.get_by_role("button", name="Use it").click()
    await seen.said("Chat is played by openai/scripted-model.")
    await expect(chat).to_contain_text("config.toml line 1")

    await _rotated_under_a_stream(seen, entry, (stack, provider))

    page.once("dialog", _accept)
    await entry.get_by_role("button", name="Remove key").click()
    await seen.said("your key is removed")
    calls = provider.calls
    assert (await asked(stack))[0] == 424
    assert provider.calls == calls
    await page.locator("#refresh").click()
    await seen.said("Up to date.")
    await expect(page.locator("[data-part=requests]")).to_contain_text("key missing")
    for key in (FIRST, SECOND):
        assert key not in await page.content()
        assert key not in stack.text()
    assert not [line for line in seen.complaints if "424" not in line]


async def _rotated_under_a_stream(seen: Seen, entry: Any, where: tuple[Stack, ScriptedProvider]) -> None:
    stack, provider = where
    gate = asyncio.Event()
    provider.script(text("one", "two").hold(gate, before=1))
    async with (
        stack.session() as session,
        session.post(stack.url("calliope/v1/chat/completions"), json=CHAT) as answer,
    ):
        assert answer.headers["x-calliope-target"] == "openai/scripted-model"
        body = b""
        while b'"one"' not in body:
            body += await answer.content.readany()
        await entry.get_by_label("Replace your key").fill(SECOND)
        await entry.get_by_role("button", name="Save key").click()
        await seen.said("sk-…3210")
        gate.set()
        body += await answer.read()
    assert b'"two"' in body
    assert b"[DONE]" in body
    assert (await asked(stack))[0] == 200
    assert provider.requests[-1].headers["authorization"] == f"Bearer {SECOND}"


async def _accept(dialog: Dialog) -> None:
    await dialog.accept()


async def test_a_keyboard_is_enough(person: BrowserContext, stack: Stack, provider: ScriptedProvider) -> None:
    seen = await opened(person, stack)
    page = seen.page
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.locator("[data-key=group-add] > summary").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.type("lab")
    await page.keyboard.press("Tab")
    await page.keyboard.type(provider.base_url)
    for _ in range(2):
        await page.keyboard.press("Tab")
    await page.keyboard.type("scripted-model")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await seen.said("lab is saved.")
    await page.locator("[data-provider=lab] > summary").focus()
    await page.keyboard.press("Enter")
    await page.locator("[data-key=check-lab]").focus()
    await page.keyboard.press("Enter")
    await seen.said("lab: Works")
    await expect(page.locator("[data-key=check-lab]")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#toast")).to_be_hidden()
    assert await page.evaluate(UNNAMED) == []
    page.once("dialog", _accept)
    await page.locator("[data-key=edit-lab] > summary").click()
    await page.get_by_role("button", name="Remove this provider").click()
    await seen.said("lab is removed")
    assert seen.complaints == []


async def test_what_is_set_elsewhere_says_so_and_what_is_wrong_is_told(person: BrowserContext, stack: Stack) -> None:
    seen = await opened(person, stack)
    page = seen.page
    fast = page.locator("[data-key=role-fast]")
    await expect(fast).to_contain_text("CALLIOPE_FAST_MODEL sets it")
    await expect(fast.get_by_role("combobox")).to_have_count(0)
    await page.locator("[data-key=change-chat] > summary").click()
    chat = page.locator("[data-key=role-chat]")
    await chat.get_by_label("Model").select_option(label="Another model…")
    await chat.get_by_label("Its name").fill("nobody/nothing")
    await chat.get_by_role("button", name="Use it").click()
    await seen.said("There is no model 'nobody/nothing'")
    setting = page.locator("[data-key=setting-max_attempts]")
    await setting.locator("summary").click()
    await setting.get_by_role("spinbutton").fill("7")
    await setting.get_by_role("button", name="Save").click()
    await seen.said("max_attempts is saved.")
    await expect(setting.locator("summary")).to_contain_text("config.toml")
    await setting.get_by_role("button", name="Use the default").click()
    await seen.said("the default again")
    assert not [line for line in seen.complaints if "400" not in line]


@pytest_asyncio.fixture(loop_scope="module")
async def hostile() -> AsyncIterator[int]:
    """The port of a dev server that the person was talked into starting."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><body>a dev server's page</body>", content_type="text/html")

    application = web.Application()
    application.router.add_get("/{tail:.*}", page)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_other_pages_of_the_same_origin_change_nothing(
    person: BrowserContext, stack: Stack, hostile: int
) -> None:
    """A dev server below /proxy/ shares the origin: it may neither read the page, nor frame it, nor reach into its window."""
    await (await opened(person, stack)).page.close()
    page = await person.new_page()
    await page.goto(stack.url(f"proxy/{hostile}/"))
    await expect(page.locator("body")).to_have_text("a dev server's page")
    calliope = f"{PREFIX}calliope/"
    script = """async ([url, accept]) => {
      const answer = await fetch(url, {headers: {accept}}); return [answer.status, await answer.text()]; }"""
    for accept in ("text/html", "*/*", "application/json"):
        code, body = await page.evaluate(script, [calliope, accept])
        assert code == 403
        assert "write-token" not in body
    change = """async ([url, token]) => (await fetch(url, {method: 'PATCH', body: '{"max_attempts": 9}',
      headers: {'content-type': 'application/json', 'x-calliope-write-token': token}})).status"""
    for token in ("", "guessed"):
        assert await page.evaluate(change, [f"{calliope}api/settings", token]) == 403
    opened_by_script = "url => { window.other = window.open(url); return new Promise((go) => setTimeout(go, 0)); }"
    async with person.expect_page() as waiting:
        await page.evaluate(opened_by_script, calliope)
    other = await waiting.value
    await expect(other.locator("[data-provider=openai]")).to_be_visible(timeout=20_000)
    assert await page.evaluate("() => window.other.closed"), "the opener still holds the page's window"
    told = json.loads(stack.get("calliope/api/settings").body)
    assert next(one for one in told["settings"] if one["name"] == "max_attempts")["value"] == 3


async def test_an_agent_that_is_away_is_told_and_comes_back(person: BrowserContext, stack: Stack) -> None:
    seen = await opened(person, stack)
    page = seen.page
    await page.route("**/api/providers", lambda route: route.fulfill(status=503, body="down"))
    await page.locator("#refresh").click()
    await expect(page.locator("#trouble [role=alert]")).to_contain_text("The agent does not answer")
    await page.unroute("**/api/providers")
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator("#trouble")).to_be_empty()
    await expect(page.locator("#state")).not_to_contain_text("could not be asked")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width"), [("wide", 1280), ("narrow", 390), ("tiny", 320)])
async def test_it_fits_every_screen(browser: Browser, stack: Stack, scheme: Any, name: str, width: int) -> None:
    """Pictures to look at; nothing runs out of the screen, and text stands out from its ground (WCAG 1.4.3)."""
    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    seen = await opened(context, stack)
    page = seen.page
    await page.evaluate(
        "document.querySelectorAll('[data-provider=openai],.request').forEach((one) => { one.open = true; })"
    )
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0
    assert await page.evaluate(CONTRASTS) == []
    for part in ("models", "providers", "requests", "usage", "cache", "settings"):
        await page.locator(f"#{part}").scroll_into_view_if_needed()
        await page.locator(f"#{part}").evaluate("one => scrollTo(0, one.offsetTop - 90)")
        await shot(page, f"settings-{scheme}-{name}-{part}")
    assert seen.complaints == []
    await context.close()


CONTRASTS = """
() => {
  const light = (text) => {
    const [red, green, blue] = text.match(/[\\d.]+/g).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  for (const one of document.querySelectorAll('p,span,li,dt,dd,h1,h2,h3,h4,label,button:not(:disabled),summary,code,a,th,td,time')) {
    if (!one.checkVisibility() || ![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const [high, low] = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) poor.push(`${one.className} ${one.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""
