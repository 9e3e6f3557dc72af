"""The reference's resource tiers, and half a gigabyte: one person's working day in each, and nothing killed for memory."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.image.engine import Running, container, podman, until
from tests.image.test_life import ask, provider

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

WEBSOCKETS = 10  # the most that the reference counts for one person


def kills(running: Running) -> int:
    """Processes that the kernel ended for memory in there: cgroup v2's memory.events, or v1's memory.oom_control."""
    pid = podman("inspect", running.name, "--format", "{{.State.Pid}}")
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    version1 = next((path for _, controllers, path in groups if "memory" in controllers.split(",")), None)
    unified = next((path for number, _, path in groups if number == "0"), "/")
    if version1 is not None:
        told = Path(f"/sys/fs/cgroup/memory{version1}/memory.oom_control").read_text()
    else:
        told = Path(f"/sys/fs/cgroup{unified}/memory.events").read_text()
    found = re.search(r"^oom_kill (\d+)$", told, re.MULTILINE)
    assert found is not None, told
    return int(found[1])


async def hold_websockets(running: Running, page: str) -> int:
    """How many of the IDE's own websockets stay open at once through the proxy."""
    quality = re.search(r"(?:stable|oss-dev|insider)-[0-9a-f]{40}", page)
    assert quality is not None, page[:300]
    origin = f"http://127.0.0.1:{running.port}"
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        held = []
        for number in range(WEBSOCKETS):
            query = {
                "reconnectionToken": f"{number:08d}-0000-4000-8000-000000000000", "reconnection": "false",
                "skipWebSocketFrames": "false", "token": running.token,
            }  # fmt: skip
            opened = client.ws_connect(f"{origin}/{quality[0]}", params=query, headers={"origin": origin})
            held.append(await stack.enter_async_context(opened))
        return sum(await asyncio.gather(*map(stays_open, held)))


async def stays_open(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """For a second: a refusal would come at once. What the IDE says meanwhile is its own matter."""
    try:
        async with asyncio.timeout(1):
            async for _ in socket:
                pass
    except TimeoutError:
        return True
    return False


# A limit above the machine's own cores is no limit to speak of, but it is set all the same, as the hub's template would.
@pytest.mark.parametrize(
    ("memory", "cpus"), [("512m", "0.5"), ("1g", "0.5"), ("4g", "2"), ("8g", "4"), ("16g", "8")]
)  # fmt: skip
async def test_a_tier_s_limits_are_enough(image: str, memory: str, cpus: str) -> None:
    options = ("--memory", memory, "--memory-swap", memory, "--cpus", cpus)
    with provider(50) as variables, container(image, *options, env=variables) as running:
        running.ready()
        until(lambda: "workbench" in running.get("/", 30)[1], "the IDE's page")
        with ask(running) as answer:
            assert answer.read().count(b"data: ") == 52
        assert await hold_websockets(running, running.get("/", 30)[1]) == WEBSOCKETS
        services = running.status()["services"]
        assert {name: service.get("restarts", 0) for name, service in services.items()} == dict.fromkeys(services, 0)
        assert "out of memory" not in running.log()
        assert kills(running) == 0
        assert podman("inspect", running.name, "--format", "{{.State.OOMKilled}}") == "false"


def test_a_kill_for_memory_would_be_seen(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # podman's monitor leaves a file named "oom" where it was started
    with container(image, "--memory", "400m", "--memory-swap", "400m", env={"USE_ALL_COMPONENTS": "false"}) as running:
        running.ready()
        greedy = "import mmap; m = mmap.mmap(-1, 1 << 30); m.write(b'x' * (1 << 30))"
        running.run("python3", "-c", greedy, user="1000:100", check=False)
        assert kills(running) >= 1
