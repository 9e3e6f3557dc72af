"""Without a hub: the same workbench behind the launcher's own token, and with the reference's compose environment."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect

from calliope_agent.launcher import ide_files
from tests.e2e import needs
from tests.e2e.alone import TOKEN, Alone, command_of, eventually, family
from tests.e2e.browser import Workbench, shot

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
LIGHT = "rgb(43, 37, 33)"  # Pergamon Light's foreground
COMPOSE = {
    "JUPYTERHUB_USER": "testuser",
    "JUPYTERHUB_SERVER_NAME": "testuser-waiide-test123",
    "JUPYTERHUB_SERVICE_PREFIX": "/user/testuser/testuser-waiide-test123/",
    "USE_ALL_COMPONENTS": "true",
}


@pytest_asyncio.fixture(loop_scope="session")
async def person(chromium: Browser) -> AsyncIterator[BrowserContext]:
    context = await chromium.new_context(viewport={"width": 1400, "height": 900})
    yield context
    await context.close()


async def test_the_printed_address_opens_the_workbench(
    tools: needs.Tools, person: BrowserContext, tmp_path: Path
) -> None:
    async with Alone(home=tmp_path / "home", data_dir=tools.data_dir) as alone:
        (alone.home / "workspace" / "a.txt").write_text("one\n")
        bench = Workbench(await person.new_page())
        await bench.open(alone.url)
        assert "token=" not in bench.page.url
        await bench.open_file("a.txt")
        await bench.press("Control+End")
        await bench.type("two")
        await bench.save()
        await eventually(lambda: (alone.home / "workspace" / "a.txt").read_text() == "one\ntwo")
        await shot(bench.page, "alone")


async def test_the_compose_environment_works_and_keeps_files_settings_and_extensions(
    tools: needs.Tools, person: BrowserContext, tmp_path: Path
) -> None:
    (extension,) = (one for one in ide_files.extensions(ide_files.folder()) if one.name.endswith("pergamon"))
    (tmp_path / "mine.vsix").write_bytes(_renamed(ide_files.pack(extension)))
    home = tmp_path / "home"
    async with Alone(home=home, data_dir=tools.data_dir, environment=COMPOSE) as alone:
        bench = Workbench(await person.new_page())
        await bench.open(alone.url)
        await bench.trust()
        await bench.terminal()
        installs = f"code-server --install-extension {tmp_path / 'mine.vsix'} && touch kept.txt\n"
        await bench.type(installs)
        await eventually((home / "workspace" / "kept.txt").exists, 60)
        await bench.command("Preferences: Toggle between Light/Dark Themes")
        await expect(bench.page.locator(".monaco-workbench")).to_have_css("color", LIGHT)
        settings = home / ".calliope-ide" / "User" / "settings.json"
        await eventually(lambda: "Pergamon Light" in settings.read_text())
        await shot(bench.page, "compose")
    async with Alone(home=home, data_dir=tools.data_dir, environment=COMPOSE) as alone:
        bench = Workbench(await person.new_page())
        await bench.open(alone.url)
        await expect(bench.page.locator(".monaco-workbench")).to_have_css("color", LIGHT)
        await expect(bench.page.locator(".explorer-folders-view")).to_contain_text("kept.txt")
        await bench.command("Extensions: Show Installed Extensions")
        await expect(bench.page.locator(".extensions-list", has_text="Person's own").first).to_be_visible()
        await shot(bench.page, "compose-again")


async def test_a_killed_ide_comes_back_and_the_open_tab_with_it(
    tools: needs.Tools, person: BrowserContext, tmp_path: Path
) -> None:
    async with Alone(home=tmp_path / "home", data_dir=tools.data_dir) as alone:
        bench = Workbench(await person.new_page())
        await bench.open(alone.url)
        old = [pid for pid in family(alone.process.pid) if "entry.js" in command_of(pid)]
        hosts = [pid for pid in family(alone.process.pid) if "extensionHost" in command_of(pid)]
        assert old
        assert hosts
        os.kill(old[0], signal.SIGKILL)
        await eventually(lambda: not any(map(command_of, [*old, *hosts])), 10)
        await alone.answers(200)
        await bench.open(alone.root)


@pytest.mark.parametrize("victim", ["guard", "launcher"])
async def test_a_killed_launcher_leaves_no_process_of_a_real_ide(
    tools: needs.Tools, person: BrowserContext, tmp_path: Path, victim: str
) -> None:
    async with Alone(home=tmp_path / "home", data_dir=tools.data_dir) as alone:
        bench = Workbench(await person.new_page())
        await bench.open(alone.url)
        await bench.trust()
        await bench.terminal()
        await bench.type("sleep 1000 & touch begun.txt\n")
        await eventually((alone.home / "workspace" / "begun.txt").exists)
        everyone = family(alone.process.pid)
        assert any("extensionHost" in command_of(pid) for pid in everyone)
        assert any(command_of(pid).startswith("sleep 1000") for pid in everyone)
        launcher = next(pid for pid in everyone if "calliope_agent launch" in command_of(pid))
        os.kill(alone.process.pid if victim == "guard" else launcher, signal.SIGKILL)
        await eventually(lambda: not any(map(command_of, everyone)), 15)


async def test_without_an_ide_the_page_says_what_to_run(tools: needs.Tools, tmp_path: Path) -> None:
    alone = Alone(home=tmp_path / "home", data_dir=tmp_path / "empty", ready=503)
    headers = {"Authorization": f"token {TOKEN}"}
    async with alone, aiohttp.ClientSession(headers=headers) as session:
        for _ in range(100):
            async with session.get(alone.root) as page:
                text = await page.text()
            if "calliope-agent ide install" in text:
                break
            await asyncio.sleep(0.2)
        assert "calliope-agent ide install" in text
        async with session.get(f"{alone.root}api/status") as answer:
            assert answer.status == 200


def _renamed(vsix: bytes) -> bytes:
    """The theme as an extension of the person's own."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(vsix)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name in ("extension/package.json", "extension.vsixmanifest"):
                text = text.replace(b"theme-pergamon", b"theme-own").replace(b'"Pergamon"', b'"Person\'s own"')
                text = text.replace(b'"calliope"', b'"person"')
            new.writestr(name, text)
    return made.getvalue()
