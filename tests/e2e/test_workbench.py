"""Through the hub, in a browser: the workbench, a file, a terminal, the agent's chat and its inline suggestions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.e2e.alone import eventually
from tests.e2e.browser import Workbench, shot
from tests.e2e.conftest import Stack
from tests.upstream import ScriptedProvider, status, text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bench(stack: Stack, alice: BrowserContext) -> AsyncIterator[Workbench]:
    """The workbench at the root of alice's instance, trusted; kept open over the tests, as a person does."""
    page = await alice.new_page()
    workbench = Workbench(page)
    await workbench.open(stack.root)
    yield workbench
    await page.close()


async def test_the_instance_root_is_the_ide(stack: Stack, bench: Workbench) -> None:
    assert bench.page.url.startswith(stack.root)
    await expect(bench.page.locator(".explorer-folders-view")).to_contain_text("main.py")
    await expect(bench.page).to_have_title(re.compile("workspace"))
    await expect(bench.page.locator(".monaco-workbench")).to_have_css(
        "color", "rgb(232, 224, 208)"
    )  # Pergamon's foreground
    await shot(bench.page, "workbench")


async def test_a_file_is_edited_and_saved(stack: Stack, bench: Workbench) -> None:
    await bench.open_file("README.md")
    await bench.press("Control+End")
    await bench.type("written in the browser")
    await bench.save()
    await eventually(lambda: "written in the browser" in (stack.workspace / "README.md").read_text())
    await shot(bench.page, "edited")


async def test_a_terminal_runs_a_command_and_knows_the_agent_but_no_key(stack: Stack, bench: Workbench) -> None:
    await bench.trust()
    await bench.terminal()
    await bench.type('env > env.txt; echo $((6 * 7)) > answer.txt; echo "the answer is $(cat answer.txt)"\n')
    await eventually((stack.workspace / "answer.txt").exists)
    await eventually(lambda: (stack.workspace / "answer.txt").read_text() == "42\n")
    await shot(bench.page, "terminal")
    env = dict(line.split("=", 1) for line in (stack.workspace / "env.txt").read_text().splitlines() if "=" in line)
    assert env["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")
    assert env["OPENAI_API_KEY"].startswith("cal-")
    assert "canary" not in str(env)
    assert not {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"} & set(env)
    (stack.workspace / "env.txt").unlink()


async def test_the_chat_streams_from_the_agent(bench: Workbench, provider: ScriptedProvider) -> None:
    provider.script(text("Streamed ", "from the ", "agent.\n```python\nprint(1)\n```").every(0.1))
    await bench.command("Calliope: Focus on Chat View")
    chat = bench.chat()
    await chat.locator("#question").fill("Say something")
    await chat.locator("#question").press("Enter")
    await expect(chat.locator("article.assistant").last).to_contain_text("Streamed from the agent.")
    await expect(chat.locator("article.assistant").last.locator("pre")).to_have_text("print(1)")
    await expect(chat.locator("article.assistant").last).to_contain_text("openai/scripted-model")
    await expect(chat.locator("#send")).to_be_visible()
    await shot(bench.page, "chat")


async def test_stop_reaches_the_provider(bench: Workbench, provider: ScriptedProvider) -> None:
    provider.script(text("Begun ", *("and on " for _ in range(2000))).every(0.05))
    number = len(provider.requests)
    chat = bench.chat()
    await chat.locator("#question").fill("Go on for ever")
    await chat.locator("#question").press("Enter")
    await expect(chat.locator("article.assistant").last).to_contain_text("Begun and on")
    await chat.locator("#stop").click()
    await provider.client_gone(number, timeout=2)
    await expect(chat.locator("article.assistant").last).to_contain_text("Stopped.")


async def test_an_error_says_what_to_do(bench: Workbench, provider: ScriptedProvider) -> None:
    provider.script(status(401))
    chat = bench.chat()
    await chat.locator("#question").fill("Again")
    await chat.locator("#question").press("Enter")
    await expect(chat.locator(".error").last).to_contain_text(re.compile("key", re.IGNORECASE))
    await shot(bench.page, "chat-error")


async def test_a_selection_goes_along(bench: Workbench, provider: ScriptedProvider) -> None:
    await bench.open_file("main.py")
    await bench.press("Control+a")
    provider.script(text("It prints a greeting."))
    await bench.command("Calliope: Explain the Selection")
    await expect(bench.chat().locator("article.assistant").last).to_contain_text("It prints a greeting.")
    asked = provider.requests[-1].json["messages"][-1]["content"]
    assert "main.py" in asked
    assert "print('hello')" in asked


async def test_inline_suggestions_are_shown_and_accepted(
    stack: Stack, bench: Workbench, provider: ScriptedProvider
) -> None:
    await bench.open_file("main.py")
    await bench.press("Control+End", "Enter")
    provider.always = text("return a + b")
    await bench.type("def add(a, b):\n")
    await bench.page.wait_for_selector(bench.ghost_text())
    await shot(bench.page, "inline")
    await bench.press("Tab")
    await bench.save()
    await eventually(lambda: "    return a + b" in (stack.workspace / "main.py").read_text())


async def test_the_agents_settings_open_from_the_ide(stack: Stack, bench: Workbench) -> None:
    async with bench.page.context.expect_page() as opened:
        await bench.command("Calliope: Open Settings")
    settings = await opened.value
    await settings.wait_for_load_state()
    assert settings.url == f"{stack.root}calliope/"
    await shot(settings, "settings")
    await settings.close()


async def test_the_status_is_shown_and_told(bench: Workbench) -> None:
    await bench.page.click("#calliope\\.calliope-agent\\.calliope\\.status")
    dialog = bench.page.locator(".monaco-dialog-box")
    await expect(dialog).to_contain_text("The agent is ready")
    await expect(dialog).to_contain_text("openai/scripted-model")
    await bench.press("Escape")
    await expect(dialog).to_have_count(0)


async def test_the_ide_answers_at_the_references_address(stack: Stack, alice: BrowserContext) -> None:
    page = await alice.new_page()
    workbench = Workbench(page)
    await workbench.open(f"{stack.root}proxy/8071/?folder={stack.workspace}")
    await expect(page.locator(".explorer-folders-view")).to_contain_text("main.py")
    await shot(page, "proxy-8071")
    await page.close()


async def test_nothing_is_asked_outside_the_hub(stack: Stack, alice: BrowserContext) -> None:
    page = await alice.new_page()
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if _foreign(request.url, stack.hub.url) else None)
    await Workbench(page).open(stack.root)
    await page.close()
    assert outside == []


def _foreign(url: str, hub: str) -> bool:
    """vscode-cdn.net addresses are answered by the webview's service worker, never by the network."""
    return url.startswith(("http:", "https:", "ws:", "wss:")) and not url.startswith((hub, hub.replace("http", "ws")))
