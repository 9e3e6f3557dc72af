"""Connections that nobody uses."""

from __future__ import annotations

from tests.client.rig import HELLO, Server, ask, keeping, opened, request, until, whole


async def test_a_connection_is_used_again_while_it_is_young() -> None:
    async with Server(keeping(HELLO)) as server, opened(keepalive_s=60) as client:
        for _ in range(3):
            await ask(client, server.url)
        assert len(server.peers) == 1


async def test_an_old_one_is_not_used_again() -> None:
    async with Server(keeping(HELLO)) as server, opened(keepalive_s=0) as client:
        for _ in range(3):
            assert (await ask(client, server.url)).body == b"hello"
        assert len(server.peers) == 3
        await until(lambda: not client._open)


async def test_old_ones_are_closed_without_anybody_asking() -> None:
    async with Server(keeping(HELLO)) as server, Server(keeping(HELLO)) as other, opened(keepalive_s=0.05) as client:
        for _ in range(2):
            await ask(client, server.url)
            await ask(client, other.url)
            await until(lambda: not client._open)
            await until(lambda: not client._idle and client._sweeper is None)
        assert all(task.done() for task in server.tasks + other.tasks)


async def test_what_the_provider_closed_is_forgotten() -> None:
    async with opened() as client:
        async with Server(keeping(HELLO)) as server:
            await ask(client, server.url)
        await until(lambda: not client._open)
        assert not any(client._idle.values())


async def test_the_one_used_last_is_used_first() -> None:
    """So that the others can grow old."""
    async with Server(keeping(HELLO)) as server, opened() as client:
        responses = [await client.ask(request(server.url)) for _ in range(3)]
        for response in responses:
            await whole(response)
        for response in (responses[1], responses[2], responses[0]):
            response.release()
        resting = next(iter(client._idle.values()))
        last = resting[-1]
        again = await client.ask(request(server.url))
        assert last not in resting
        await whole(again)
        again.release()
        assert resting[-1] is last
