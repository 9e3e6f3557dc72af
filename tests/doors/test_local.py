"""The embedded model's life: what is missing or broken; a real SmolLM2 that streams, is cancelled, killed, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from calliope_agent.errors import LocalModelAbsent, Unreachable, UpstreamTimeout
from calliope_agent.upstream import weights
from calliope_agent.upstream.local import LocalModel, LocalOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

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
def scripted(tmp_path: Path) -> Callable[[str], LocalModel]:
    """A model of the person's own whose child is a shell script."""

    def make(script: str, start_s: float = 20.0) -> LocalModel:
        python, own = tmp_path / "python", tmp_path / "own.gguf"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        own.write_bytes(b"GGUF")
        return LocalModel(str(own), tmp_path, tmp_path, {}, LocalOptions(python=str(python), start_s=start_s))

    return make


@pytest.fixture
async def model(smollm2: Path, tmp_path: Path) -> AsyncIterator[LocalModel]:
    local = LocalModel(weights.DEFAULT, smollm2, tmp_path, {"OPENAI_API_KEY": "canary", "LANG": "C.UTF-8"})
    yield local
    await local.stop()


def connect(address: LocalAddress, key: str | None = None) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {key or address.api_key.reveal()}"}
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(address.unix_socket), headers=headers)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20, step: float = 0.02) -> None:
    """Asks again and again, ``step`` apart; the bound is for failures only."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # what is waited for is another process's state
            await asyncio.sleep(step)


async def gone(pid: int, seconds: float = 10) -> bool:
    """Whether the process ends within the bound; a process that is gone already has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = await asyncio.to_thread(select.select, [handle], [], [], seconds)
    os.close(handle)
    return bool(ready)


SLOTS_STEP = 1.5  # the engine looks for clients that left when it had nothing to say for a second, /slots included


async def busy(http: aiohttp.ClientSession) -> int:
    async with http.get("http://localhost/slots") as response:
        return sum(slot["is_processing"] for slot in await response.json())


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: ") and b"[DONE]" not in line:
            yield json.loads(line.removeprefix(b"data: "))


async def test_without_the_engine_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    local = LocalModel(weights.DEFAULT, tmp_path, tmp_path, {})
    assert local.state == "absent: no engine"
    with pytest.raises(LocalModelAbsent, match=r"pip install 'calliope-agent\[local\]'"):
        await local.start()


async def test_an_engine_that_does_not_load_is_told(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    local = LocalModel(str(own), tmp_path, tmp_path, {}, LocalOptions(python=str(tmp_path / "bare" / "bin" / "python")))
    with pytest.raises(LocalModelAbsent, match="No module named 'xllamacpp'"):
        await local.start()
    assert local.pid is None
    await local.stop()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (weights.DEFAULT, "Run: calliope-agent models pull$"),
        ("qwen2.5-coder-0.5b", "Run: calliope-agent models pull qwen2.5-coder-0.5b$"),
        ("/nowhere/own.gguf", "/nowhere/own.gguf, and no file is there"),
    ],
)
async def test_without_weights_the_command_is_named(tmp_path: Path, name: str, told: str) -> None:
    local = LocalModel(name, tmp_path, tmp_path, {})
    assert local.state == "absent: no weights"
    with pytest.raises(LocalModelAbsent, match=told) as caught:
        await local.start()
    assert caught.value.status == 424
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("content", "why"), [(b"<html>Please log in</html>", "invalid magic"), (b"GGUF" + b"\3\0\0\0" * 9, "string length")]
)
async def test_a_file_that_is_no_model_is_told_with_the_engines_reason(
    tmp_path: Path, content: bytes, why: str
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(content)
    local = LocalModel(str(own), tmp_path, tmp_path, {})
    with pytest.raises(LocalModelAbsent, match=why) as caught:
        await local.start()
    assert "CALLIOPE_LOCAL_MODEL" in caught.value.message
    assert local.state.startswith("failed: ")
    await local.stop()


async def test_broken_known_weights_are_told_how_to_mend(tmp_path: Path) -> None:
    known = weights.known(weights.DEFAULT)
    with (tmp_path / known.file_name).open("wb") as file:
        file.truncate(known.size)
    local = LocalModel(known.name, tmp_path, tmp_path, {})
    with pytest.raises(LocalModelAbsent, match=f"models pull {known.name} --verify"):
        await local.start()
    await local.stop()


async def test_a_child_that_dies_while_loading(scripted: Callable[..., LocalModel]) -> None:
    for script, told in (("exit 3", "ended with status 3"), ("kill -ILL $$", "AVX2"), ("kill -9 $$", "memory")):
        local = scripted(script)
        with pytest.raises(Unreachable, match=told):
            await local.start()
        await local.stop()


async def test_a_child_that_is_never_ready_is_ended(scripted: Callable[..., LocalModel], tmp_path: Path) -> None:
    local = scripted(f"echo $$ > '{tmp_path}/pid'; exec sleep 600", start_s=1.0)
    with pytest.raises(UpstreamTimeout, match="not ready after 1 s"):
        await local.start()
    assert await gone(int((tmp_path / "pid").read_text()))
    assert local.state == "failed: not ready after 1 s"


async def test_a_stop_while_starting_tells_who_waits(scripted: Callable[..., LocalModel]) -> None:
    local = scripted("exec sleep 600")
    waiting = asyncio.gather(local.start(), local.start(), return_exceptions=True)
    await asyncio.sleep(0)
    assert local.state == "starting"

    async def spawned() -> bool:
        return local.pid is not None

    await until(spawned)
    pid = local.pid
    assert pid
    await local.stop()
    assert [type(outcome) for outcome in await waiting] == [Unreachable, Unreachable]
    assert await gone(pid)


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
