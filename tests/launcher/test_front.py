"""The front before Jupyter: everyone who comes is answered, at the moment of the hand-over too."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from calliope_agent.launcher import front
from calliope_agent.launcher.front import Front
from tests.launcher.stack import free_port

LIMIT_S = 10
REQUEST = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """An idle launcher collects no garbage for minutes: what only a collection would mend counts as broken."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def made(port: int) -> Front:
    return Front("127.0.0.1", port, "/", lambda: "ide: starting")


def arrived(port: int) -> socket.socket:
    """A connection in the listener's queue, its request sent; the running loop has seen nothing of it."""
    visitor = socket.create_connection(("127.0.0.1", port), LIMIT_S)
    visitor.sendall(REQUEST)
    visitor.setblocking(False)
    return visitor


async def first_line(visitor: socket.socket) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        return (await asyncio.get_running_loop().sock_recv(visitor, 65536)).partition(b"\r\n")[0]


@pytest.mark.parametrize("steps", range(6))
async def test_a_visitor_at_the_moment_of_the_hand_over_is_answered(uncollected: None, steps: int) -> None:
    """``steps`` of the loop lie between arrival and hand-over: in line, accepted, on the way to the answer, answered."""
    port = free_port()
    door = made(port)
    await door.open()
    with arrived(port) as visitor:
        for _ in range(steps):
            await asyncio.sleep(0)
        await door.close()
        assert await first_line(visitor) == b"HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize("target", [b"http://[x", b"//[", b"http://", b"*", b"", b"/%zz", b"\xff\xfe"])
async def test_what_is_no_address_is_answered_too(target: bytes) -> None:
    port = free_port()
    door = made(port)
    await door.open()
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as visitor:
        visitor.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        visitor.setblocking(False)
        assert await first_line(visitor) == b"HTTP/1.1 503 Service Unavailable"
    await door.close()


async def test_a_whole_queue_is_answered_after_the_port_was_left(uncollected: None) -> None:
    port = free_port()
    door = made(port)
    await door.open()
    with ExitStack() as stack:
        visitors = [stack.enter_context(arrived(port)) for _ in range(50)]
        await door.close()
        with pytest.raises(ConnectionRefusedError):
            arrived(port)
        for visitor in visitors:
            assert await first_line(visitor) == b"HTTP/1.1 503 Service Unavailable"


async def test_a_request_that_comes_after_the_port_was_left_is_answered() -> None:
    """A browser opens connections ahead of their use."""
    port = free_port()
    door = made(port)
    await door.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST[:5])
    await asyncio.sleep(0)
    await door.close()
    writer.write(REQUEST[5:])
    assert (await asyncio.wait_for(reader.readline(), LIMIT_S)).startswith(b"HTTP/1.1 503")
    writer.close()


async def test_a_visitor_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "ANSWER_S", 0.05)
    port = free_port()
    door = made(port)
    await door.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
    writer.close()
    await door.close()


async def test_it_listens_again_after_it_left_and_says_when_the_port_is_taken() -> None:
    port = free_port()
    first, second = made(port), made(port)
    for _ in range(2):
        await first.open()
        await first.open()
        with pytest.raises(OSError, match="address already in use"):
            await second.open()
        with arrived(port) as visitor:
            assert await first_line(visitor) == b"HTTP/1.1 503 Service Unavailable"
        await first.close()
    await second.open()
    await second.close()
