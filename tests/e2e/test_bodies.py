"""Bytes through the hub's proxy and the launcher: big ones in constant memory, odd paths and verbs as they were sent.

The backend is the stand-in IDE, which tells what arrived; what the real one has to show for it is asked of the real one.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from tests.e2e import needs
from tests.e2e.alone import command_of, family
from tests.e2e.conftest import SERVER, Stack
from tests.e2e.hub import Hub
from tests.launcher.stack import FAKE_IDE

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
BIG = 100 << 20
ROOM_MIB = 40


@dataclass(frozen=True, slots=True)
class Server:
    """Alice's server with the stand-in IDE."""

    hub: Hub
    root: str
    owner: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tools: needs.Tools, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    environment = {
        "WAIIDE_IDE_COMMAND": f"{shlex.join([sys.executable, str(FAKE_IDE)])} $SOCKET",
        "USE_ALL_COMPONENTS": "false",
    }
    async with Hub(folder=tmp_path_factory.mktemp("bodies"), proxy=tools.proxy, environment=environment) as hub:
        root = await hub.spawn("alice", SERVER)
        yield Server(hub, root, {"Authorization": f"token {await hub.token_of('alice')}"})


async def test_big_bodies_pass_in_constant_memory(server: Server, http: aiohttp.ClientSession) -> None:
    """Both ways: the peaks of every process of the launcher's hardly rise above what they held before."""
    before = {pid: _mib(pid, "VmRSS") for pid in _launchers(server.hub)}
    assert any("jupyterhub.singleuser" in command_of(pid) for pid in before), "the process that the bytes go through"

    async def body() -> AsyncIterator[bytes]:
        for _ in range(BIG >> 16):
            yield bytes(1 << 16)

    async with http.post(f"{server.root}swallow", data=body(), headers=server.owner) as answer:
        assert (await answer.json())["size"] == BIG
    async with http.get(f"{server.root}pour?size={BIG}", headers=server.owner) as answer:
        received = 0
        async for chunk in answer.content.iter_any():
            received += len(chunk)
    assert received == BIG
    risen = {command_of(pid): _mib(pid, "VmHWM") - held for pid, held in before.items()}
    assert max(risen.values()) < ROOM_MIB, risen


async def test_a_big_file_of_the_real_ide_comes_whole(
    stack: Stack, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The address by which VS Code's own pages load files of the machine."""
    file = tmp_path / "big.bin"
    file.write_bytes(whole := os.urandom(1 << 20) * 100)
    owner = {"Authorization": f"token {await stack.hub.token_of('alice')}", "Accept-Encoding": "identity"}
    async with http.get(f"{stack.root}vscode-remote-resource?path={file}", headers=owner) as answer:
        assert answer.status == 200
        assert await answer.read() == whole


@pytest.mark.parametrize("path", ["a%2Fb", "a%3Fb?x=%23", "a%23b", "sp%20ace", "%C3%A9?x=1&x=2"])
async def test_paths_arrive_as_they_were_sent(server: Server, http: aiohttp.ClientSession, path: str) -> None:
    for place in ("", "proxy/8071/"):
        url = URL(f"{server.root}{place}{path}", encoded=True)
        async with http.get(url, headers=server.owner) as answer:
            assert (await answer.json())["raw"] == f"/{path}"


async def test_head_keeps_the_length(server: Server, http: aiohttp.ClientSession) -> None:
    async with http.head(f"{server.root}pour?size=65536", headers=server.owner) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "65536")
        assert await answer.read() == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_methods_without_a_body_arrive(server: Server, http: aiohttp.ClientSession, method: str) -> None:
    async with http.request(method, f"{server.root}x", headers=server.owner) as answer:
        assert answer.status == 200
        told = await answer.json()
    assert (told["method"], told["body"]) == (method, "")


async def test_a_websocket_message_of_12_mib_is_intact(server: Server, http: aiohttp.ClientSession) -> None:
    message = os.urandom(12 << 20)
    async with http.ws_connect(f"{server.root}socket", headers=server.owner, max_msg_size=0) as connection:
        await connection.send_bytes(message)
        assert await connection.receive_bytes() == message


async def test_the_references_static_address_has_the_real_ides_files(
    stack: Stack, tools: needs.Tools, http: aiohttp.ClientSession
) -> None:
    """Today's VS Code keeps them below a folder named after its build."""
    name = "out/vs/code/browser/workbench/workbench.css"
    owner = {"Authorization": f"token {await stack.hub.token_of('alice')}"}
    async with http.get(f"{stack.root}proxy/8071/static/{name}", headers=owner) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/css"
        assert await answer.read() == (tools.ide.vscode / name).read_bytes()


def _launchers(hub: Hub) -> list[int]:
    """The launcher, its guard, and Jupyter: without the stand-in IDE, which is the test's own."""
    everyone = family(hub.process.pid)
    found = [pid for pid in everyone if "calliope_agent" in command_of(pid) and str(FAKE_IDE) not in command_of(pid)]
    assert found
    return found


def _mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
