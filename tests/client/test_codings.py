"""Coded answers: unpacked as they come, bounded, and never taken for whole where they are not."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent import errors
from calliope_agent.upstream.client import Client
from calliope_agent.upstream.coding import PIECE_BYTES, Inflater, inflater
from tests.agents import OPENAI_KEY, ServedAgent, chat
from tests.client.rig import OK, Peer, Server, ask, keeping, request, saying, until, whole
from tests.turns import counting_turns

TEXT = json.dumps({"text": "Calliope " * 3000}).encode()


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("X-GZIP", gzip.compress(TEXT)),
    "several members": (
        "gzip",
        gzip.compress(TEXT[:5000]) + gzip.compress(TEXT[5000:9000]) + gzip.compress(TEXT[9000:]),
    ),
    "an empty member": ("gzip", gzip.compress(b"") + gzip.compress(TEXT)),
    "padded": ("gzip", gzip.compress(TEXT) + b"\0" * 512),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "bare deflate": ("deflate", bare_deflate(TEXT)),
    "identity": ("identity", TEXT),
    "none": ("", TEXT),
}


def answer(coding: str, body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        coding.encode(),
        len(body),
        body,
    )


def unpacked(coding: str, pieces: list[bytes]) -> bytes:
    found = inflater(coding)
    if found is None:
        return b"".join(pieces)
    out = []
    for piece in pieces:
        found.feed(piece)
        while data := found.piece():
            out.append(data)
    found.end()
    return b"".join(out)


@pytest.mark.parametrize("name", PACKED)
async def test_what_is_packed_is_unpacked(client: Client, name: str) -> None:
    async with Server(keeping(answer(*PACKED[name]))) as server:
        for _ in range(2):
            assert (await ask(client, server.url)).body == TEXT
        assert len(server.peers) == 1


@settings(deadline=None)
@given(st.sampled_from(sorted(PACKED)), st.data())
def test_where_it_is_cut_does_not_matter(name: str, data: st.DataObject) -> None:
    coding, body = PACKED[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=8)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert unpacked(coding, pieces) == TEXT


@settings(deadline=None)
@given(st.sampled_from(["gzip", "deflate"]), st.lists(st.binary(min_size=1, max_size=50), max_size=5))
def test_noise_is_told_and_never_raises_anything_else(coding: str, pieces: list[bytes]) -> None:
    with contextlib.suppress(errors.Malformed, errors.Truncated):
        unpacked(coding, pieces)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("left", [0, 1, 9, 20, -9, -1])
async def test_what_is_cut_is_truncated_though_its_length_is_right(client: Client, coding: str, left: int) -> None:
    body = (gzip.compress(TEXT) if coding == "gzip" else zlib.compress(TEXT))[:left]
    async with Server(saying(answer(coding, body))) as server:
        with pytest.raises(errors.Truncated):
            await ask(client, server.url)


@pytest.mark.parametrize("left", [1, 9, -3])
async def test_a_later_member_that_is_cut_is_truncated_too(client: Client, left: int) -> None:
    second = gzip.compress(TEXT)[:left]
    async with Server(saying(answer("gzip", gzip.compress(b"{}") + second))) as server:
        with pytest.raises(errors.Truncated):
            await ask(client, server.url)


@pytest.mark.parametrize(
    ("coding", "body"), [("gzip", TEXT), ("deflate", b"\x78\x9c" + TEXT), ("deflate", b"\xff" * 99)]
)
async def test_what_is_not_in_its_coding_is_malformed(client: Client, coding: str, body: bytes) -> None:
    async with Server(saying(answer(coding, body))) as server:
        with pytest.raises(errors.Malformed, match="not in the coding it names"):
            await ask(client, server.url)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "x" * 500, "\x1b[31m"])
async def test_an_unknown_coding_is_told(client: Client, coding: str) -> None:
    async with Server(saying(answer(coding, TEXT))) as server:
        with pytest.raises(errors.Malformed, match="coding that was not asked for") as caught:
            await ask(client, server.url)
        assert len(caught.value.message) < 200
        assert caught.value.message.isprintable()


async def test_an_error_keeps_its_status_whatever_its_coding(client: Client) -> None:
    async with Server(keeping(answer("br", b"\x0b\x02\x80{}\x03", 429))) as server:
        response = await client.ask(request(server.url))
        assert response.status == 429
        with pytest.raises(errors.Malformed):
            await response.read()
        response.release()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_coded_stream_comes_event_by_event(client: Client, coding: str) -> None:
    """Identity was asked for, and somebody in between packs all the same, flushing at each event."""
    heard = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        head = OK + b"content-encoding: %b\r\ntransfer-encoding: chunked\r\n\r\n" % coding.encode()
        await peer.say(head)
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS + (16 if coding == "gzip" else 0))
        for number in range(5):
            packed = packer.compress(b"data: %d\n\n" % number) + packer.flush(zlib.Z_SYNC_FLUSH)
            await peer.say(b"%x\r\n%b\r\n" % (len(packed), packed))
            await heard.wait()
            heard.clear()
        packed = packer.flush()
        await peer.say(b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed))
        await peer.left()

    async with Server(serve) as server:
        response = await client.ask(request(server.url))
        for number in range(5):
            assert await response.read() == b"data: %d\n\n" % number
            heard.set()
        assert await response.read() == b""
        assert response.complete
        response.release()


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS + 16)
    packed = [packer.compress(b" " * (16 << 20)) for _ in range(size >> 24)]
    return b"".join([*packed, packer.flush()])


async def test_a_bomb_ends_in_an_error_and_bounded_memory(tmp_path: Path) -> None:
    packed = bomb(1 << 30)
    assert len(packed) < 2 << 20
    head = OK + b"content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with Server(keeping(head + packed)) as server:
        environ = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": OPENAI_KEY, "CALLIOPE_MAX_ATTEMPTS": "1"}
        async with ServedAgent(tmp_path, environ) as agent:
            tracemalloc.start()
            try:
                status, body, _ = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert (status, json.loads(body)["error"]["code"]) == (502, "answer_too_large")
    assert peak < 160 << 20


async def test_a_bomb_lets_others_have_their_turn(client: Client) -> None:
    async with Server(saying(answer("gzip", bomb(64 << 20)))) as server:
        response = await client.ask(request(server.url))
        await until(lambda: response.complete)
        async with counting_turns() as turns:
            assert len(await whole(response)) == 64 << 20
        response.release()
    assert turns.count >= 32


@pytest.mark.parametrize("tail", [b"\0" * 65536, b"x" * 65536])
def test_what_follows_the_last_member_is_not_kept(tail: bytes) -> None:
    found = Inflater("gzip")
    found.feed(gzip.compress(b"hello"))
    assert found.piece() == b"hello"
    tracemalloc.start()
    try:
        for _ in range(500):
            found.feed(tail)
            assert found.piece() == b""
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    except errors.Malformed:
        pass
    finally:
        tracemalloc.stop()


def test_pieces_are_bounded() -> None:
    found = Inflater("gzip")
    found.feed(bomb(32 << 20))
    sizes = []
    while data := found.piece():
        sizes.append(len(data))
    assert sum(sizes) == 32 << 20
    assert max(sizes) <= PIECE_BYTES
