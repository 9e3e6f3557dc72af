"""What a person runs in the IDE's terminal and in a notebook finds the agent by itself: no key, no address, no option."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.e2e import browser as browsers
from tests.e2e import needs
from tests.e2e.alone import eventually
from tests.e2e.browser import Workbench, shot
from tests.e2e.conftest import Stack
from tests.upstream import ScriptedProvider, text

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

ASK = """
import os
from openai import OpenAI
chunks = OpenAI().chat.completions.create(model="chat", stream=True, messages=[{"role": "user", "content": "Speak"}])
print("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
print("canary" in str(dict(os.environ)), {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"} & set(os.environ) or "no token")
"""
# In the form in which aider asks a model it does not know to change files.
EDIT = "Here it is:\n\nmade.py\n```\nprint('made by aider')\n```\n"
# aider's own affairs; with --yes it would open its release notes, and the IDE asks the person before it opens a page.
AIDER = "--no-git --yes --no-check-update --analytics-disable --no-show-model-warnings --no-show-release-notes"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def terminal(stack: Stack, chromium: Browser) -> AsyncIterator[Workbench]:
    """A terminal of the IDE, in a browser of its own, whose workspace is trusted."""
    context = await chromium.new_context(viewport={"width": 1400, "height": 900})
    page = await browsers.log_in(context, stack.hub.url, "alice", stack.hub.password)
    bench = Workbench(page)
    await bench.open(stack.root)
    await bench.trust()
    await bench.terminal()
    yield bench
    await context.close()


async def test_the_openai_sdk_in_the_terminal(
    stack: Stack, tools: needs.Tools, terminal: Workbench, provider: ScriptedProvider
) -> None:
    (stack.workspace / "ask.py").write_text(ASK)
    provider.script(text("From ", "the ", "terminal"))
    await terminal.type(f"{shlex.quote(str(tools.person))} ask.py > told.txt 2>&1; echo ended >> told.txt\n")
    await eventually(lambda: "ended" in (stack.workspace / "told.txt").read_text(), 60)
    assert (stack.workspace / "told.txt").read_text() == "From the terminal\nFalse no token\nended\n"
    await shot(terminal.page, "terminal-sdk")


async def test_the_openai_sdk_in_a_notebooks_kernel(
    stack: Stack, http: aiohttp.ClientSession, provider: ScriptedProvider
) -> None:
    provider.script(text("From ", "the ", "kernel"))
    owner = {"Authorization": f"token {await stack.hub.token_of('alice')}"}
    async with http.post(f"{stack.root}api/kernels", json={"name": "person"}, headers=owner) as answer:
        assert answer.status == 201, await answer.text()
        kernel = (await answer.json())["id"]
    try:
        async with asyncio.timeout(60):
            said = await _run(http, f"{stack.root}api/kernels/{kernel}/channels", owner)
    finally:
        async with http.delete(f"{stack.root}api/kernels/{kernel}", headers=owner) as answer:
            assert answer.status == 204
    assert said == "From the kernel\nFalse no token\n"


async def test_aider_in_the_terminal(stack: Stack, terminal: Workbench, provider: ScriptedProvider) -> None:
    aider = os.environ.get("E2E_AIDER") or shutil.which("aider")
    if aider is None:
        pytest.skip("no aider here: set E2E_AIDER to its executable")
    provider.script(text(EDIT))
    number = len(provider.requests)
    await terminal.type(
        f"{shlex.quote(aider)} {AIDER} --message 'Write made.py' > aider.txt 2>&1 < /dev/null; echo ended >> aider.txt\n"
    )
    await eventually(lambda: "ended" in (stack.workspace / "aider.txt").read_text(), 120)
    said = (stack.workspace / "aider.txt").read_text()
    assert (stack.workspace / "made.py").exists(), said
    assert (stack.workspace / "made.py").read_text() == "print('made by aider')\n"
    assert provider.requests[number].json["model"] == "scripted-model"
    await shot(terminal.page, "terminal-aider")


async def _run(http: aiohttp.ClientSession, channels: str, owner: dict[str, str]) -> str:
    """What the kernel prints while it runs `ASK`, errors included."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "session": "e2e",
        "username": "",
        "version": "5.3",
    }
    content = {"code": ASK, "silent": False}
    said = ""
    async with http.ws_connect(channels, headers=owner) as socket:
        await socket.send_json({
            "header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": [],
        })  # fmt: skip
        while True:
            message: Any = await socket.receive_json()
            if message["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            match message["msg_type"], message["content"]:
                case "stream", part:
                    said += part["text"]
                case "error", why:
                    said += "\n".join(why["traceback"])
                case "status", {"execution_state": "idle"}:
                    return said
