"""A real SmolLM2 that streams, is cancelled, killed, put to sleep and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from calliope_agent.upstream import weights
from calliope_agent.upstream.local import LocalModel, LocalOptions
from tests.doors.processes import gone, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from calliope_agent.upstream.local import LocalAddress

ROOT = Path(__file__).parents[2]
# A minute or two of decoding: longer than any bound below.
LONG = {
    "messages": [{"role": "user", "content": "Count from one to a thousand."}],
    "max_tokens": 4000,
    "ignore_eos": True,
    "stream": True,
}
SHORT = {"messages": [{"role": "user", "content": "The capital of France?"}], "max_tokens": 8, "temperature": 0}


@pytest.fixture
async def model(smollm2: Path, tmp_path: Path) -> AsyncIterator[LocalModel]:
    local = LocalModel(weights.DEFAULT, smollm2, tmp_path, {"OPENAI_API_KEY": "canary", "LANG": "C.UTF-8"})
    yield local
    await local.stop()


def connect(address: LocalAddress, key: str | None = None) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {key or address.api_key.reveal()}"}
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(address.unix_socket), headers=headers)


SLOTS_STEP = 1.5  # the engine looks for clients that left when it had nothing to say for a second, /slots included


async def busy(http: aiohttp.ClientSession) -> int:
    async with http.get("http://localhost/slots") as response:
        return sum(slot["is_processing"] for slot in await response.json())


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: ") and b"[DONE]" not in line:
            yield json.loads(line.removeprefix(b"data: "))


async def test_a_waiter_that_leaves_does_not_end_the_start_of_others(model: LocalModel) -> None:
    first, second = asyncio.create_task(model.start()), asyncio.create_task(model.start())
    await asyncio.sleep(0)
    first.cancel()
    address = await second
    assert first.cancelled()
    assert await model.start() is address


def process_files(pid: int) -> bytes:
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))


async def test_nothing_shows_a_key_and_nobody_else_gets_in(model: LocalModel) -> None:
    address = await model.start()
    assert model.pid
    shown = process_files(model.pid)
    assert b"LANG=C.UTF-8" in shown
    assert b"canary" not in shown
    assert address.api_key.reveal().encode() not in shown
    assert Path(address.unix_socket).parent.stat().st_mode & 0o777 == 0o700
    async with connect(address, key="wrong") as http:
        response = await http.post(f"{address.base_url}/chat/completions", json=SHORT)
        assert response.status == 401


async def test_tokens_stream_and_the_model_says_that_it_finished(model: LocalModel) -> None:
    assert model.state == "idle"
    address = await model.start()
    assert model.state == "running"
    async with connect(address) as http:
        body = {**SHORT, "stream": True, "stream_options": {"include_usage": True}}
        async with http.post(f"{address.base_url}/chat/completions", json=body) as response:
            seen = [event async for event in events(response)]
    said = [event["choices"][0]["delta"].get("content") for event in seen if event["choices"]]
    finish = [event["choices"][0]["finish_reason"] for event in seen if event["choices"]]
    assert sum(bool(text) for text in said) > 2
    assert finish[-1] in {"stop", "length"}
    assert seen[-1]["usage"]["completion_tokens"] <= 8
    assert {event["model"] for event in seen} == {weights.DEFAULT}


async def test_leaving_a_stream_stops_the_decoding(model: LocalModel) -> None:
    address = await model.start()
    async with connect(address) as leaver, connect(address) as watcher:
        async with leaver.post(f"{address.base_url}/chat/completions", json=LONG) as response:
            async for event in events(response):
                if event["choices"][0]["delta"].get("content"):
                    break
            assert await busy(watcher) == 1

        async def idle() -> bool:
            return await busy(watcher) == 0

        await until(idle, step=SLOTS_STEP)


async def test_a_killed_child_cuts_its_answer_and_the_next_start_heals(model: LocalModel) -> None:
    address = await model.start()
    killed = model.pid
    assert killed
    async with connect(address) as http, http.post(f"{address.base_url}/chat/completions", json=LONG) as response:
        await anext(events(response))
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    again = await model.start()
    assert again.unix_socket == address.unix_socket
    assert again.api_key != address.api_key
    assert model.pid not in {None, killed}
    async with connect(again) as http, http.post(f"{again.base_url}/chat/completions", json=SHORT) as response:
        assert (await response.json())["choices"][0]["message"]["content"]


async def test_a_death_shows_in_the_state_until_the_next_start(model: LocalModel) -> None:
    await model.start()
    killed = model.pid
    assert killed
    os.kill(killed, signal.SIGKILL)
    assert await gone(killed)
    assert model.state.startswith("failed: the model's process")
    assert model.pid is None
    await model.start()
    assert model.state == "running"


async def test_a_plain_request_that_is_dropped_stops_too(model: LocalModel) -> None:
    address = await model.start()
    async with connect(address) as leaver, connect(address) as watcher:
        body = {**LONG, "stream": False}
        asking = asyncio.create_task(leaver.post(f"{address.base_url}/chat/completions", json=body))

        async def decoding() -> bool:
            return await busy(watcher) == 1

        async def idle() -> bool:
            return await busy(watcher) == 0

        await until(decoding)
        asking.cancel()
        await until(idle, step=SLOTS_STEP)


async def test_a_stop_in_mid_answer_needs_no_force(model: LocalModel) -> None:
    address = await model.start()
    pid = model.pid
    assert pid
    async with connect(address) as http, http.post(f"{address.base_url}/chat/completions", json=LONG) as response:
        await anext(events(response))
        child = model._child
        assert child
        await model.stop()
    assert child.epitaph == "ended with status 0"  # by itself, within the second before force
    assert await gone(pid)
    assert not Path(address.unix_socket).parent.exists()
    assert model.state == "idle"


async def test_weights_are_freed_when_idle_and_come_back(smollm2: Path, tmp_path: Path) -> None:
    local = LocalModel(weights.DEFAULT, smollm2, tmp_path, {}, LocalOptions(idle_s=1))
    address = await local.start()
    pid = local.pid
    status = Path(f"/proc/{pid}/status")

    def resident_kb() -> int:
        return int(status.read_text().partition("VmRSS:")[2].split()[0])

    loaded = resident_kb()

    async def freed() -> bool:
        return resident_kb() < loaded / 2

    await until(freed)
    async with connect(address) as http, http.post(f"{address.base_url}/chat/completions", json=SHORT) as response:
        assert (await response.json())["choices"][0]["message"]["content"]
    assert local.pid == pid
    await local.stop()


@pytest.mark.parametrize("run", ["asyncio.run", "uvloop.run"])
async def test_the_child_dies_with_a_killed_agent(smollm2: Path, tmp_path: Path, run: str) -> None:
    code = (
        "import asyncio, sys, uvloop\n"
        "from pathlib import Path\n"
        "from calliope_agent.upstream.local import LocalModel\n"
        "async def main():\n"
        "    local = LocalModel('smollm2-135m', Path(sys.argv[1]), Path(sys.argv[2]), {})\n"
        "    await local.start()\n"
        "    print(local.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        f"{run}(main())\n"
    )
    agent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        str(smollm2),
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert agent.stdout
    child = int(await agent.stdout.readline())
    agent.kill()
    await agent.wait()
    assert await gone(child)
