"""A stream taken up again where its reader lost it: exactly once, byte by byte, while it runs and after its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.agents import ServedAgent, chat, message, pointed_at
from tests.passage import until
from tests.upstream import Answer, ScriptedProvider, text

RESUMABLE = {"x-calliope-resumable": "true"}
WIRES = [("/v1/chat/completions", chat(True)), ("/v1/messages", message(True))]
LONG = text(*(f"word{number} " for number in range(12)))


def blocks(body: bytes) -> list[bytes]:
    """The stream's events, pings left out: they come by the clock."""
    return [block for block in body.split(b"\n\n") if block and not block.startswith(b":")]


def last_id(part: list[bytes]) -> str:
    ids = [line[4:] for line in part[-1].split(b"\n") if line.startswith(b"id: ")]
    return ids[0].decode()


async def whole(agent: ServedAgent, path: str, body: object) -> tuple[str, bytes]:
    async with agent.http.post(path, json=body, headers=RESUMABLE) as answer:
        return answer.headers["x-calliope-stream"], await answer.read()


async def resumed(agent: ServedAgent, stream: str, last: str | None = None) -> tuple[int, bytes]:
    headers = {} if last is None else {"last-event-id": last}
    async with agent.http.get(f"/v1/streams/{stream}", headers=headers) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize(("path", "body"), WIRES)
async def test_every_cut_resumes_to_the_same_bytes(
    agent: ServedAgent, provider: ScriptedProvider, path: str, body: object
) -> None:
    provider.always = LONG
    stream, everything = await whole(agent, path, body)
    events = blocks(everything)
    assert len(events) > 12
    for cut in range(1, len(events) + 1):
        _, rest = await resumed(agent, stream, last_id(events[:cut]))
        assert events[:cut] + blocks(rest) == events
    assert blocks((await resumed(agent, stream))[1]) == events
    assert provider.calls == 1


@pytest.mark.parametrize(("path", "body"), WIRES)
async def test_a_running_answer_survives_its_readers_cut(
    agent: ServedAgent, provider: ScriptedProvider, path: str, body: object
) -> None:
    gate = asyncio.Event()
    provider.script(LONG.hold(gate, 6), LONG)
    async with agent.http.post(path, json=body, headers=RESUMABLE) as answer:
        stream = answer.headers["x-calliope-stream"]
        got = await until(answer, b"word5")
    gate.set()
    kept = blocks(got[: got.rindex(b"\n\n")])
    _, rest = await resumed(agent, stream, last_id(kept))
    _, other = await whole(agent, path, body)
    assert kept + blocks(rest) == blocks(other)
    assert provider.calls == 2


async def test_two_readers_at_once_read_the_same(agent: ServedAgent, provider: ScriptedProvider) -> None:
    gate = asyncio.Event()
    provider.script(LONG.hold(gate, 6))
    path, body = WIRES[0]
    first = asyncio.create_task(whole(agent, path, body))
    await provider.arrived(0)
    stream = next(iter(agent.agent.flights.running)).stream_id
    second = asyncio.create_task(resumed(agent, stream))
    gate.set()
    assert blocks((await first)[1]) == blocks((await second)[1])
    assert provider.calls == 1


@pytest.mark.parametrize("answer", [LONG.cut_after(9), LONG.then_error(503)])
async def test_an_error_is_resumed_too(provider: ScriptedProvider, tmp_path: Path, answer: Answer) -> None:
    gate = asyncio.Event()
    provider.always = answer.hold(gate, 6)
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        asking = asyncio.create_task(whole(agent, *WIRES[0]))
        await provider.arrived(0)
        flight = next(iter(agent.agent.flights.running))
        if not flight.settled:
            settled = asyncio.Event()
            flight.watchers.append(settled.set)
            async with asyncio.timeout(10):
                await settled.wait()
        gate.set()
        stream, everything = await asking
        events = blocks(everything)
        assert b'"error"' in events[-1]
        assert b"[DONE]" not in everything
        _, rest = await resumed(agent, stream, last_id(events[:3]))
        again = blocks(rest)
        assert [*events[:3], *again][:-1] == events[:-1]
        assert b'"error"' in again[-1]


async def test_cancel_ends_the_provider_and_tells_the_readers(agent: ServedAgent, provider: ScriptedProvider) -> None:
    never = asyncio.Event()
    provider.script(LONG.hold(never, 3))
    async with agent.http.post("/v1/chat/completions", json=chat(True), headers=RESUMABLE) as answer:
        await answer.content.readany()
        stream = answer.headers["x-calliope-stream"]
        async with agent.http.delete(f"/v1/streams/{stream}") as told:
            assert await told.json() == {"id": stream, "cancelled": True}
        rest = await answer.read()
    assert b'"cancelled"' in rest
    assert b"[DONE]" not in rest
    await provider.client_gone(0)


async def test_the_grace_time_ends_what_nobody_reads(provider: ScriptedProvider, tmp_path: Path) -> None:
    never = asyncio.Event()
    provider.script(LONG.hold(never, 3))
    async with ServedAgent(tmp_path, pointed_at(provider, CALLIOPE_RESUME_GRACE_S="0.2")) as agent:
        async with agent.http.post("/v1/chat/completions", json=chat(True), headers=RESUMABLE) as answer:
            await answer.content.readany()
            stream = answer.headers["x-calliope-stream"]
        await provider.client_gone(0)
        async with asyncio.timeout(10):
            while agent.agent.flights.get(stream) is not None:  # noqa: ASYNC110  nothing signals a timer's end
                await asyncio.sleep(0.02)
        status, _ = await resumed(agent, stream)
        assert status == 404


@pytest.mark.parametrize("last", ["x", "-1", "999999", "1e3"])
async def test_an_id_the_stream_never_sent(agent: ServedAgent, provider: ScriptedProvider, last: str) -> None:
    provider.always = LONG
    stream, _ = await whole(agent, *WIRES[0])
    status, body = await resumed(agent, stream, last)
    assert status == 400
    assert b"Last-Event-ID" in body
