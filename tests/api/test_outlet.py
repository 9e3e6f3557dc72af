"""How answers leave the agent: whole where they are whole, at once where the rest is not there yet, and never silent for long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from calliope_agent.api import eventstream
from calliope_agent.api.outlet import Outlet
from tests.agents import ServedAgent, chat
from tests.upstream import ScriptedProvider, text

PATIENCE_S = 20
READ = 1 << 20


@asynccontextmanager
async def connection(agent: ServedAgent) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(agent.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def request(agent: ServedAgent, *, stream: bool, more: str = "") -> tuple[bytes, bytes]:
    """Head and body."""
    body = json.dumps(chat(stream)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {agent.token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode(), body


class Line(asyncio.Transport):
    """A transport that writes down what it is given, in pieces as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append(b"closed")


async def test_head_and_body_are_one_write_and_neither_waits_for_the_other() -> None:
    line = Line()
    outlet = Outlet(line, asyncio.get_running_loop())
    outlet.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    outlet.write(b"HTTP/1.1 200 OK\r\n\r\n")
    outlet.write(b"body")
    outlet.write(b" more")
    outlet.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert line.told == [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nbody", b" more"]
    await asyncio.sleep(0)
    assert line.told[3:] == [b"HTTP/1.1 204 No Content\r\n\r\n"]
    outlet.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    outlet.close()
    await asyncio.sleep(0)
    assert line.told[4:] == [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"closed"]


async def test_a_whole_answer_comes_in_one_piece(agent: ServedAgent, provider: ScriptedProvider) -> None:
    """A caller is woken once: head and body are one write."""
    provider.script(text("All at once."))
    async with connection(agent) as (reader, writer):
        writer.write(b"".join(request(agent, stream=False)))
        head, _, body = (await reader.read(READ)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["choices"][0]["message"]["content"] == "All at once."


async def test_a_streams_head_comes_with_its_first_words(agent: ServedAgent, provider: ScriptedProvider) -> None:
    gate = asyncio.Event()
    provider.script(text("First", " last").hold(gate, before=1))
    async with connection(agent) as (reader, writer):
        writer.write(b"".join(request(agent, stream=True)))
        first = await reader.read(READ)
        gate.set()
        rest = await reader.readuntil(b"0\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"First" in first
    assert b"last" in rest


async def test_kept_connection_gets_every_answer_whole(agent: ServedAgent, provider: ScriptedProvider) -> None:
    async with connection(agent) as (reader, writer):
        for number in range(3):
            provider.script(text(f"Answer {number}"))
            writer.write(b"".join(request(agent, stream=False)))
            head, _, body = (await reader.read(READ)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert json.loads(body)["choices"][0]["message"]["content"] == f"Answer {number}"


async def test_who_waits_for_continue_gets_it_before_the_body(agent: ServedAgent, provider: ScriptedProvider) -> None:
    """RFC 9110 §10.1.1: curl waits for it with large bodies."""
    provider.script(text("Went on."))
    head, body = request(agent, stream=False, more="expect: 100-continue\r\n")
    async with connection(agent) as (reader, writer):
        writer.write(head)
        assert await reader.read(READ) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read(READ)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_silence_of_the_provider_is_filled_with_pings(
    agent: ServedAgent, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstream, "PING_S", 0.01)
    gate = asyncio.Event()
    provider.script(text("First", " last").hold(gate, before=1))
    async with agent.http.post("/v1/chat/completions", json=chat(stream=True)) as answer:
        told = b""
        async with asyncio.timeout(PATIENCE_S):
            while told.count(b": ping\n\n") < 3:
                told += await answer.content.readany()
            gate.set()
            told += await answer.content.read()
    assert told.endswith(b"data: [DONE]\n\n")
    assert b"First" in told.partition(b": ping")[0]
