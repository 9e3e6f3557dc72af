"""The wire between launcher and extension, over a real socket pair."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from calliope_agent.launcher.control import Client, Server


async def test_questions_are_answered_and_events_arrive_between_them() -> None:
    async def answer(asked: dict[str, Any]) -> dict[str, Any]:
        server.tell({"event": "state", "for": asked["do"]})
        await asyncio.sleep(0)
        return {"did": asked["do"]}

    server = Server(answer)
    client = Client(server.open())
    assert await asyncio.to_thread(client.ask_now, {"do": "hello"}) == {"did": "hello"}
    events: list[dict[str, Any]] = []
    listening = await listen(client, server, events)
    answers = await asyncio.gather(*(client.ask({"do": str(number)}) for number in range(5)))
    assert [told["did"] for told in answers] == ["0", "1", "2", "3", "4"]
    assert [event["for"] for event in events] == ["hello", "0", "1", "2", "3", "4"]
    replaced = Client(server.open())
    await asyncio.wait_for(listening, 5)
    replaced._socket.close()
    close(client)


async def test_a_launcher_that_does_not_answer_is_not_waited_for() -> None:
    async def never(_asked: dict[str, Any]) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    server = Server(never)
    client = Client(server.open())
    with pytest.raises(ConnectionError):
        await client.ask({"do": "early"})
    listening = await listen(client, server, [])
    with pytest.raises(TimeoutError):
        await client.ask({"do": "x"}, timeout_s=0.05)
    listening.cancel()
    close(client)


async def listen(client: Client, server: Server, events: list[dict[str, Any]]) -> asyncio.Task[None]:
    """Until the first event has come through: both ends are connected."""
    connected = asyncio.Event()

    def take(event: dict[str, Any]) -> None:
        if event["event"] == "connected":
            connected.set()
        else:
            events.append(event)

    listening = asyncio.create_task(client.listen(take))
    while not connected.is_set():
        server.tell({"event": "connected"})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connected.wait(), 0.1)
    return listening


def close(client: Client) -> None:
    if client._writer is not None:
        client._writer.close()
