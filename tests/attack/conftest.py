"""A scripted provider, an agent pointed at it, and raw bytes on its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agents import ServedAgent, pointed_at
from tests.upstream import ScriptedProvider


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest.fixture
async def agent(provider: ScriptedProvider, tmp_path: Path) -> AsyncIterator[ServedAgent]:
    async with ServedAgent(tmp_path, pointed_at(provider, CALLIOPE_MAX_ATTEMPTS="1")) as served:
        yield served


async def connected(agent: ServedAgent) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = agent.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def said(agent: ServedAgent, *pieces: bytes, every: float = 0) -> bytes:
    """Everything the agent answers to these bytes until it closes; they are sent ``every`` so many seconds."""
    reader, writer = await connected(agent)
    for number, piece in enumerate(pieces):
        await asyncio.sleep(every if number else 0)
        writer.write(piece)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
