"""Where an answer begins and ends, and what that means for the connection."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent import errors
from calliope_agent.upstream.client import Client
from calliope_agent.upstream.response import HEAD_BYTES, HELD_BYTES, Response
from tests.client.rig import HELLO, OK, Peer, Server, ask, keeping, request, saying, until, whole

CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
HELLO_CHUNKED = CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"

# What is answered, and whether the connection may be used again behind it. The body is always "hello".
GOOD: dict[str, tuple[bytes, bool]] = {
    "length": (HELLO, True),
    "chunked": (HELLO_CHUNKED, True),
    "large chunk sizes": (CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n", True),
    "capitals": (b"HTTP/1.1 200 OK\r\nContent-LENGTH: 5\r\n\r\nhello", True),
    "chunk extensions": (CHUNKED + b'5;a=b;c="d\\"e";f\r\nhello\r\n0;x\r\n\r\n', True),
    "spaces behind a chunk's size": (CHUNKED + b"5  \r\nhello\r\n0\r\n\r\n", True),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nx-a: b\r\nstatus: 500\r\n\r\n", True),
    "close": (OK + b"content-length: 5\r\nconnection: close\r\n\r\nhello", False),
    "close in a list": (OK + b"content-length: 5\r\nconnection: x, Close\r\n\r\nhello", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", False),
    "HTTP/1.0 kept": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello", True),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO, True),
    "early hints": (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\ncontent-length: 2\r\n\r\n" + HELLO, True),
    "many of both": ((b"HTTP/1.1 100 C\r\n\r\n" + b"HTTP/1.1 103 E\r\na: b\r\n\r\n") * 20 + HELLO_CHUNKED, True),
    "a folded header": (OK + b"x-a: b\r\n c\r\ncontent-length: 5\r\n\r\nhello", True),
    "line feeds alone": (HELLO.replace(b"\r\n", b"\n"), True),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", True),
    "upgrade offered": (OK + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 5\r\n\r\nhello", True),
    "empty header": (OK + b"x-a:\r\ncontent-length:5\r\n\r\nhello", True),
    "latin header": (OK + b"x-a: \xe9\xff\r\ncontent-length: 5\r\n\r\nhello", True),
}
ENDED_BY_CLOSING = {
    "no length": OK + b"\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "HTTP/1.0 that would be kept": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\nhello",
    "behind a continue": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\nhello",
}
# Said, then closed; what the client makes of it.
BROKEN: dict[str, tuple[bytes, type[errors.UpstreamError]]] = {
    "nothing": (b"", errors.Unreachable),
    "half a head": (OK + b"content-le", errors.Unreachable),
    "only a continue": (b"HTTP/1.1 100 Continue\r\n\r\n", errors.Unreachable),
    "half a body": (OK + b"content-length: 6\r\n\r\nhello", errors.Truncated),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", errors.Truncated),
    "no end of the trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", errors.Truncated),
    "half a chunk": (CHUNKED + b"6\r\nhello", errors.Truncated),
    "a chunk's size that is none": (CHUNKED + b"5\r\nhello\r\nZZ\r\n", errors.Truncated),
    "a chunk's size without end": (CHUNKED + b"f" * 17 + b"\r\n", errors.Truncated),
    "a negative chunk": (CHUNKED + b"-5\r\nhello\r\n", errors.Truncated),
    "two lengths": (OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", errors.Malformed),
    "the same length twice": (OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello", errors.Malformed),
    "a length that is none": (OK + b"content-length: five\r\n\r\nhello", errors.Malformed),
    "a negative length": (OK + b"content-length: -5\r\n\r\nhello", errors.Malformed),
    "a length beyond numbers": (OK + b"content-length: 99999999999999999999999\r\n\r\nhello", errors.Malformed),
    "an upgrade": (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello", errors.Malformed),
    "an upgrade without its headers": (b"HTTP/1.1 101 Switching\r\n\r\nhello", errors.Malformed),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", errors.Malformed),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", errors.Malformed),
    "HTTP/0.9": (b"<html>hello</html>", errors.Malformed),
    "a status that is none": (b"HTTP/1.1 abc OK\r\n\r\n", errors.Malformed),
    "a header without a name": (OK + b": x\r\ncontent-length: 5\r\n\r\nhello", errors.Malformed),
}


@pytest.mark.parametrize("name", GOOD)
async def test_good_answers_are_whole_and_the_connection_kept_where_it_may_be(client: Client, name: str) -> None:
    said, kept = GOOD[name]
    async with Server(keeping(said)) as server:
        for _ in range(3):
            answer = await ask(client, server.url, body=b"{}")
            assert (answer.status, answer.body) == (200, b"hello")
            assert "status" not in answer.headers
            assert "link" not in answer.headers
        assert len(server.peers) == (1 if kept else 3)


@pytest.mark.parametrize("name", ENDED_BY_CLOSING)
async def test_an_answer_may_end_with_its_connection(client: Client, name: str) -> None:
    async with Server(saying(ENDED_BY_CLOSING[name])) as server:
        for _ in range(2):
            assert (await ask(client, server.url)).body == b"hello"
        assert len(server.peers) == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_some_have_no_body(client: Client, status: int) -> None:
    async with Server(keeping(b"HTTP/1.1 %d X\r\n\r\n" % status)) as server:
        for _ in range(2):
            answer = await ask(client, server.url)
            assert (answer.status, answer.body) == (status, b"")
        assert len(server.peers) == 1


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_answers_are_told_as_what_they_are(client: Client, name: str) -> None:
    said, error = BROKEN[name]
    async with Server(saying(said)) as server:
        with pytest.raises(errors.UpstreamError) as caught:
            await ask(client, server.url, body=b"{}")
        assert type(caught.value) is error
        await until(lambda: not client._open)


async def test_both_framings_at_once_are_refused_or_the_chunks_count(client: Client) -> None:
    both = OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    async with Server(keeping(both)) as server:
        try:
            assert (await ask(client, server.url)).body == b"hello"
        except errors.Malformed:
            await until(lambda: not client._open)


class Line:
    """A connection that is only looked at."""

    def __init__(self) -> None:
        self.paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def done_with(self, response: Response) -> None:
        pass


async def _told(pieces: list[bytes], *, lost: bool) -> tuple[object, ...]:
    """Everything that can be seen of an answer that comes in these pieces."""
    response = Response(Line())
    for piece in pieces:
        response.feed(piece)
    verdict = response.complete, response.keeps
    if lost:
        response.lost(None)
    try:
        await response.head()
        body, failed = await whole(response), None
    except errors.UpstreamError as exc:
        body, failed = b"", type(exc)
    return response.status, response.headers, body, failed, *verdict


EVERY = [said for said, _ in GOOD.values()] + list(ENDED_BY_CLOSING.values()) + [said for said, _ in BROKEN.values()]
TAILS = [b"", b"x", b"\r\n", HELLO, b"HTTP/1.1 408 Timeout\r\n\r\n"]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(EVERY), st.sampled_from(TAILS), st.data())
def test_where_the_bytes_are_cut_does_not_matter(said: bytes, tail: bytes, data: st.DataObject) -> None:
    said += tail
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(said) - 1)), max_size=8)))
    pieces = [said[start:end] for start, end in itertools.pairwise([0, *cuts, len(said)])]
    assert asyncio.run(_told(pieces, lost=True)) == asyncio.run(_told([said], lost=True))


@pytest.mark.parametrize("name", GOOD)
async def test_every_byte_may_come_alone(client: Client, name: str) -> None:
    said, kept = GOOD[name]
    response = Response(Line())
    for number, byte in enumerate(said, 1):
        response.feed(bytes([byte]))
        assert response.complete is (number == len(said))
    assert await whole(response) == b"hello"
    assert response.keeps is kept


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.sampled_from([b"", OK, CHUNKED, HELLO[:-3]]))
def test_no_bytes_make_it_raise_or_wait(noise: bytes, before: bytes) -> None:
    asyncio.run(asyncio.wait_for(_told([before, noise] if before else [noise], lost=True), 5))


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "head": (OK, b"x-a: b\r\n" * 1000),
    "header line": (OK + b"x-a: ", b"b" * 8000),
    "header name": (OK, b"b" * 8000),
    "reason": (b"HTTP/1.1 200 ", b"b" * 8000),
    "folded header": (OK + b"x-a: b", b"\r\n c" * 2000),
    "continues": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 400),
    "hints": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 200),
    "empty lines": (b"", b"\r\n" * 4000),
    "chunk extension": (CHUNKED + b"5;", b"a" * 8000),
    "chunk size of zeros": (CHUNKED, b"0" * 8000),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"x-a: b\r\n" * 1000),
    "trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nx-a: ", b"b" * 8000),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_nothing_without_end_fills_the_memory(client: Client, name: str) -> None:
    start, more = ENDLESS[name]

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(start)
        try:
            for _ in range(4000):
                await peer.say(more)
        except OSError:
            return
        raise AssertionError("it took all of it")

    async with Server(serve) as server:
        tracemalloc.start()
        try:
            with pytest.raises((errors.Malformed, errors.Truncated)):
                await ask(client, server.url)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
        await until(server.tasks[0].done)


@pytest.mark.parametrize("name", ENDLESS)
def test_nothing_without_end_costs_its_square(name: str) -> None:
    """Counted, not timed: what is bounded in bytes is bounded in work."""
    start, more = ENDLESS[name]

    async def fed() -> int:
        response = Response(Line())
        response.feed(start)
        taken = 0
        while response._broken is None and taken < 1 << 20:
            response.feed(more[taken % len(more) :][:1] or b"x")
            taken += 1
        return taken

    assert asyncio.run(fed()) <= HEAD_BYTES + 1


@pytest.mark.parametrize("name", ["trailers", "trailer", "chunk extension"])
async def test_nothing_is_kept_of_what_comes_behind_a_break_while_nobody_reads(name: str) -> None:
    start, more = ENDLESS[name]
    response = Response(Line())
    response.feed(start)
    tracemalloc.start()
    try:
        for _ in range(1000):
            response.feed(more)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(errors.Truncated):
        await whole(response)


async def test_a_head_may_be_large(client: Client) -> None:
    said = OK + b"x-a: " + b"b" * 30_000 + b"\r\ncontent-length: 5\r\n\r\nhello"
    async with Server(keeping(said)) as server:
        assert len((await ask(client, server.url)).headers["x-a"]) == 30_000


@pytest.mark.parametrize("tail", [b"x", HELLO, b"\r\n\r\nx", OK + b"content-length: 4\r\n\r\nevil"])
@pytest.mark.parametrize("said", [HELLO, HELLO_CHUNKED])
async def test_what_comes_behind_an_answer_is_nobody_s(client: Client, said: bytes, tail: bytes) -> None:
    async with Server(keeping(said + tail)) as server:
        for _ in range(3):
            assert (await ask(client, server.url)).body == b"hello"
        assert len(server.peers) == 3


async def test_what_comes_while_nobody_asks_ends_the_connection(client: Client) -> None:
    farewell = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(HELLO)
        await farewell.wait()
        await peer.say(OK + b"content-length: 4\r\n\r\nevil")
        await peer.left()

    async with Server(serve) as server:
        assert (await ask(client, server.url)).body == b"hello"
        farewell.set()
        await until(lambda: not client._open)
        assert (await ask(client, server.url)).body == b"hello"
        assert len(server.peers) == 2


async def test_what_was_read_before_a_break_is_given_out_first(client: Client) -> None:
    async with Server(saying(CHUNKED + b"5\r\nhello\r\nZZ\r\n")) as server:
        response = await client.ask(request(server.url))
        assert await response.read() == b"hello"
        with pytest.raises(errors.Truncated):
            await response.read()
        response.release()


async def test_a_body_in_one_byte_chunks_is_held_within_bounds() -> None:
    line = Line()
    response = Response(line)
    response.feed(CHUNKED)
    fed = 0
    while not line.paused:
        response.feed(b"1\r\nx\r\n" * 1000)
        fed += 6000
    assert fed <= HELD_BYTES + 6000
    assert set(await response.read()) == {ord("x")}
    assert not line.paused
