"""Slow readers, slow servers, large bodies, and leaving in the middle of anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import tracemalloc

import pytest

from calliope_agent import errors
from calliope_agent.upstream.client import Client
from calliope_agent.upstream.connection import PIECE_BYTES
from calliope_agent.upstream.response import HELD_BYTES
from tests.client.certificates import Authority
from tests.client.rig import HELLO, OK, Peer, Server, abandoned, ask, descriptors, hanging, keeping, request, until

MIB = 1 << 20
REFUSED = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"


def reset(peer: Peer) -> None:
    if (end := peer.writer.get_extra_info("socket")) is not None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_slow_reader_slows_the_provider_down(trusting: Client, authority: Authority, secure: bool) -> None:
    size = 64 * MIB
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.say(OK + b"content-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            await peer.say(b"x" * 65536)
            sent += 65536

    async with Server(serve, tls=authority.server() if secure else None) as server:
        response = await trusting.ask(request(server.url))
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.1)
        assert sent < size // 2, "the kernel's buffers, no more"
        assert response._held <= 2 * HELD_BYTES
        got = 0
        tracemalloc.start()
        try:
            while piece := await response.read():
                got += len(piece)
            # the test's server holds some of it too
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()
        response.release()
        assert got == size


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_large_upload_to_a_slow_server_holds_nobody_up(
    trusting: Client, authority: Authority, secure: bool
) -> None:
    go_on = asyncio.Event()
    got = 0

    async def serve(peer: Peer) -> None:
        nonlocal got
        while (await peer.head()).startswith(b"GET"):
            await peer.say(HELLO)
        await go_on.wait()
        while got < 50 * MIB:
            got += len(await peer.reader.read(1 << 16))
        await peer.say(HELLO)

    async with Server(serve, tls=authority.server() if secure else None) as server:
        upload = asyncio.create_task(ask(trusting, server.url, body=b"x" * (50 * MIB)))
        await until(lambda: any(one._full for one in trusting._open))
        (slow,) = trusting._open
        for _ in range(20):
            assert (await ask(trusting, server.url)).body == b"hello"
        assert slow.transport.get_write_buffer_size() <= 3 * PIECE_BYTES
        go_on.set()
        assert (await upload).body == b"hello"


@pytest.mark.parametrize("then", ["reads on", "leaves it", "closes", "resets"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_an_answer_may_come_before_the_request_is_out(
    trusting: Client, authority: Authority, secure: bool, then: str
) -> None:
    over = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(100_000)
        await peer.say(REFUSED)
        if then == "reads on":
            await peer.left()
        elif then == "leaves it":
            await over.wait()
        elif then == "resets":
            await asyncio.sleep(0.05)
            reset(peer)

    async with Server(serve, tls=authority.server() if secure else None) as server:
        for _ in range(3):
            answer = await ask(trusting, server.url, body=b"x" * (20 * MIB))
            assert (answer.status, answer.body) == (413, b"no")
            await until(lambda: not trusting._open)
        over.set()
        assert len(server.peers) == 3, "nothing is sent behind half a request"


async def test_a_server_that_only_ends_its_own_half_has_said_all(client: Client) -> None:
    over = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await until(lambda: any(one._full for one in client._open))
        await peer.say(b"HTTP/1.1 413 Too Large\r\n\r\nno")
        peer.writer.write_eof()
        await over.wait()

    async with Server(serve) as server:
        answer = await ask(client, server.url, body=b"x" * (20 * MIB))
        assert (answer.status, answer.body) == (413, b"no")
        over.set()


async def test_a_server_that_ends_its_half_in_the_middle_has_cut_it(client: Client) -> None:
    over = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await until(lambda: any(one._full for one in client._open))
        await peer.say(OK + b"content-length: 6\r\n\r\nhello")
        peer.writer.write_eof()
        await over.wait()

    async with Server(serve) as server:
        with pytest.raises(errors.Truncated):
            await ask(client, server.url, body=b"x" * (20 * MIB))
        over.set()


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("size", [2, 20 * MIB])
async def test_a_server_that_leaves_in_the_middle_of_a_request_is_told(client: Client, how: str, size: int) -> None:
    async def serve(peer: Peer) -> None:
        await peer.head()
        if how == "resets":
            reset(peer)

    async with Server(serve) as server:
        for _ in range(3):
            with pytest.raises(errors.Unreachable, match="drops the connection"):
                await ask(client, server.url, body=b"x" * size)
        await until(lambda: not client._open)


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_a_kept_connection_that_ends_as_it_is_used_again_is_told_at_once(client: Client, how: str) -> None:
    async def serve(peer: Peer) -> None:
        if peer.number == 0:
            await peer.request()
            await peer.say(HELLO)
            await peer.head()
            if how == "resets":
                reset(peer)
            return
        await keeping(HELLO)(peer)

    async with Server(serve) as server:
        assert (await ask(client, server.url, body=b"1")).body == b"hello"
        with pytest.raises(errors.Unreachable) as caught:
            await ask(client, server.url, body=b"2")
        assert caught.value.retryable
        assert (await ask(client, server.url, body=b"2")).body == b"hello"
        assert len(server.peers) == 2


async def test_a_kept_connection_whose_end_was_not_seen_yet_is_told_at_once(client: Client) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(HELLO)

    async with Server(serve) as server:
        response = await client.ask(request(server.url, body=b"1"))
        while await response.read():
            pass
        server.tasks[0].cancel()
        response.release()
        with contextlib.suppress(errors.Unreachable):
            assert (await ask(client, server.url, body=b"2")).body == b"hello"
        assert (await ask(client, server.url, body=b"3")).body == b"hello"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_leaving_in_the_middle_of_an_answer_tells_the_provider(
    trusting: Client, authority: Authority, secure: bool
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK + b"content-length: 6\r\n\r\nhello")
        await peer.left()

    async with Server(serve, tls=authority.server() if secure else None) as server:
        response = await trusting.ask(request(server.url))
        assert await response.read() == b"hello"
        response.release()
        await until(server.tasks[0].done)
        response.release()  # twice is once
        assert not trusting._open


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [2, 20 * MIB], ids=["waiting", "uploading"])
async def test_leaving_before_the_answer_tells_the_provider(
    trusting: Client, authority: Authority, secure: bool, size: int
) -> None:
    taken = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        taken.set()
        if size == 2:
            await peer.left()
            return
        with contextlib.suppress(OSError):  # it reads on only when the client has gone
            await gone.wait()
            await peer.left()

    gone = asyncio.Event()
    async with Server(serve, tls=authority.server() if secure else None) as server:
        before = descriptors()
        task = asyncio.create_task(ask(trusting, server.url, body=b"x" * size))
        await taken.wait()
        if size > 2:
            await until(lambda: any(one._full for one in trusting._open))
        await abandoned(task)
        await until(lambda: not trusting._open)
        gone.set()
        await until(server.tasks[0].done)
        await until(lambda: descriptors() <= before)


async def test_many_that_leave_leave_nothing(client: Client) -> None:
    async with Server(hanging) as server:
        before = descriptors()
        for wait in (0, 0.001, 0.02):
            tasks = [asyncio.create_task(ask(client, server.url, body=b"{}")) for _ in range(20)]
            await asyncio.sleep(wait)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: not client._open)
        await until(lambda: all(task.done() for task in server.tasks))
        await until(lambda: descriptors() <= before)


async def test_closing_ends_what_is_under_way(client: Client) -> None:
    async with Server(hanging) as server:
        tasks = [asyncio.create_task(ask(client, server.url, body=b"{}")) for _ in range(3)]
        await until(lambda: len(client._open) == 3)
        await client.close()
        assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [errors.Unreachable] * 3


async def test_closing_twice_at_once_is_closing(client: Client) -> None:
    async with Server(keeping(HELLO)) as server:
        assert (await ask(client, server.url)).body == b"hello"
        async with asyncio.timeout(5):
            await asyncio.gather(client.close(), client.close())
            await client.close()
        assert not client._open


async def test_closing_may_be_left(client: Client) -> None:
    async with Server(keeping(HELLO)) as server:
        assert (await ask(client, server.url)).body == b"hello"
        task = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not client._open)


async def test_connections_are_shared_one_after_the_other(client: Client) -> None:
    async with Server(keeping(HELLO)) as server:
        for _ in range(5):
            answers = await asyncio.gather(*(ask(client, server.url, body=b"{}") for _ in range(8)))
            assert {answer.body for answer in answers} == {b"hello"}
        assert len(server.peers) == 8
