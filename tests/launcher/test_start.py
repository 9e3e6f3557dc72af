"""A whole start on a busy machine, with visitors of several habits: nobody is left without an answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.launcher.stack import TOKEN, Stack, wait_for

SILENCE_S = 20
HELD_S, FREE_S = 0.1, 0.005
NOT_THERE = (aiohttp.ClientError, OSError)


def launcher_of(stack: Stack) -> int | None:
    assert stack.process is not None
    guard = stack.process.pid
    children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    return int(children[0]) if children else None


@contextlib.asynccontextmanager
async def in_slices(stack: Stack) -> AsyncIterator[None]:
    """The launcher gets the processor for a moment now and then: what comes meanwhile, it finds all at once."""
    launcher = await asyncio.to_thread(wait_for, lambda: launcher_of(stack), "the launcher below its guard")

    async def slices() -> None:
        while True:
            os.kill(launcher, signal.SIGSTOP)
            await asyncio.sleep(HELD_S)
            os.kill(launcher, signal.SIGCONT)
            await asyncio.sleep(FREE_S)

    task = asyncio.create_task(slices())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            os.kill(launcher, signal.SIGCONT)


async def a_page(stack: Stack) -> str:
    """A browser that looks again."""
    async with stack.session() as session, session.get(stack.url("")) as answer:
        await answer.read()
        return str(answer.status)


async def a_late_request(stack: Stack) -> str:
    """A connection made ahead of its use."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    with contextlib.closing(writer):
        await asyncio.sleep(3 * HELD_S)
        writer.write(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{stack.port}\r\nConnection: close\r\n".encode())
        writer.write(f"Authorization: token {TOKEN}\r\n\r\n".encode())
        line = await reader.readline()
        await reader.read()
        return line.split()[1].decode() if line else "let go"


async def visits(visit: Callable[[Stack], Awaitable[str]], stack: Stack, seen: Counter[str]) -> None:
    """One after the other until the IDE's page was there a few times."""
    good = 0
    while good < 5:
        try:
            async with asyncio.timeout(SILENCE_S):
                told = await visit(stack)
        except TimeoutError:
            told = "silence"
        except NOT_THERE:
            told = "gone again" if seen["503"] else "not there yet"
        seen[told] += 1
        good += told == "200"
        await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_whoever_asks_during_the_start_is_answered(tmp_path: Path) -> None:
    stack, seen = Stack(tmp_path), Counter[str]()
    stack.start()
    try:
        async with in_slices(stack), asyncio.timeout(120):
            await asyncio.gather(*(visits(visit, stack, seen) for visit in [a_page, a_late_request] * 4))
    finally:
        await asyncio.to_thread(stack.stop)
    assert seen["silence"] == 0, seen
    assert seen["503"] > 0
    assert set(seen) <= {"not there yet", "503", "200", "let go"}
