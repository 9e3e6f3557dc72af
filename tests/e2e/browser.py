"""A real Chromium, and the VS Code workbench as a person sees it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, FrameLocator, Page, async_playwright, expect

SHOTS = Path(__file__).with_name("shots")
# Nothing of the browser's own goes to the network, and no sandbox: the tests may run as root in a container.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
LOAD_MS = 60_000  # a workbench's first load takes 5 to 20 s on two busy cores


@asynccontextmanager
async def chromium(executable: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


async def shot(page: Page, name: str) -> None:
    """A picture to look at, in ``shots/``."""
    SHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png")


async def log_in(context: BrowserContext, hub: str, user: str, password: str) -> Page:
    """Fill in the hub's login form; returns the page behind it."""
    page = await context.new_page()
    await page.goto(f"{hub}/hub/login")
    await page.fill("#username_input", user)
    await page.fill("#password_input", password)
    await page.click("#login_submit")
    await page.wait_for_url(re.compile(r"/hub/(home|spawn)|/user/"))
    return page


class Workbench:
    """VS Code in a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(30_000)

    async def open(self, url: str) -> None:
        await self.page.goto(url)
        await self.page.wait_for_selector(".monaco-workbench", timeout=LOAD_MS)
        # The extension's own item: the extension host runs and our extension is active.
        await self.page.wait_for_selector("#calliope\\.calliope-agent\\.calliope\\.status", timeout=LOAD_MS)

    async def open_file(self, name: str) -> None:
        row = self.page.locator(".explorer-folders-view .monaco-list-row", has_text=name)
        await self.command("View: Show Explorer")
        await row.dblclick()
        await self.page.wait_for_selector(f".tab.active[data-resource-name='{name}']")
        await self.page.click(".editor-instance .monaco-editor .view-lines")

    async def type(self, text: str) -> None:
        await self.page.keyboard.type(text, delay=20)

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def save(self) -> None:
        await self.press("Control+s")
        await expect(self.page.locator(".tab.active.dirty")).to_have_count(0)

    async def command(self, title: str) -> None:
        """Run a command of the palette by its full title."""
        await self.press("F1")
        await self.page.wait_for_selector(".quick-input-widget input:focus")
        await self.page.keyboard.insert_text(title)
        row = self.page.locator(".quick-input-widget .monaco-list-row.focused", has_text=title.rpartition(": ")[2])
        await row.wait_for()
        await self.press("Enter")

    async def trust(self) -> None:
        """Trust the workspace, as a person does from the banner."""
        await self.page.locator(".part.banner a", has_text="Manage").click()
        await self.page.get_by_role("button", name="Trust", exact=True).first.click()
        await expect(self.page.locator(".part.banner a", has_text="Manage")).not_to_be_visible()
        await self.press("Control+w")

    async def terminal(self) -> None:
        await self.command("Terminal: Create New Terminal")
        await self.page.wait_for_selector(".terminal-wrapper.active .xterm-helper-textarea", state="attached")
        await self.page.locator(".terminal-wrapper.active .xterm").click()

    def chat(self) -> FrameLocator:
        """The page of the chat view, two frames deep."""
        return self.page.frame_locator("iframe.webview.ready").frame_locator("#active-frame")

    def ghost_text(self) -> str:
        return ".ghost-text-decoration, .ghost-text"
