"""What a provider's refusal means, whatever its body, however slowly or brokenly it comes."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent import errors
from calliope_agent.upstream.attempt import Seen
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.refusal import error_in_body, error_in_stream, of_status, retry_after
from calliope_agent.upstream.sse import Event
from tests.agents import ServedAgent, chat, pointed_at
from tests.upstream import ScriptedProvider

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WORDS = st.sampled_from(["error", "type", "message", "code", "status", "detail", "msg", "x"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 600) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)


@given(body=ANYTHING, status=st.sampled_from([300, 302, 400, 401, 402, 403, 404, 409, 413, 418, 422, 429, 500, 529]))
def test_every_body_has_a_meaning(body: Any, status: int) -> None:
    encoded = json.dumps(body).encode()
    error = of_status(status, {}, encoded, lambda _: "SCRUBBED")
    assert isinstance(error, errors.UpstreamError)
    assert error.provider_status == status
    assert isinstance(error_in_stream(body), errors.UpstreamError)
    assert isinstance(error_in_body(encoded), errors.UpstreamError | None)


@given(body=st.binary(max_size=40))
def test_bytes_without_sense_have_a_meaning_too(body: bytes) -> None:
    assert isinstance(of_status(500, {}, body, str), errors.Overloaded)
    error_in_body(body)


@given(seconds=st.integers(-100_000, 100_000))
def test_a_date_in_the_past_is_no_wait(seconds: int) -> None:
    when = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after({"retry-after": when}, NOW) == max(0, seconds)


def test_content_after_the_finish_is_malformed_and_a_second_finish_is_dropped() -> None:
    def chunk(**choice: Any) -> Event:
        return Event(b"", json.dumps({"choices": [{"index": 0, **choice}]}).encode())

    look = OpenAILook(Seen())
    look.see(chunk(delta={"content": "a"}))
    look.see(chunk(delta={}, finish_reason="stop"))
    look.see(chunk(delta={}, finish_reason="length"))
    assert look.seen.finish == "stop"
    late = chunk(delta={"content": "b"})
    with pytest.raises(errors.Malformed):
        look.see(late)


async def test_an_error_whose_body_comes_in_pieces_is_read_whole(tmp_path: Path) -> None:
    """Head, first half and second half are three packets: a single read of the body would see the first half only."""
    body = json.dumps({"error": {"message": "too many tokens", "code": "context_length_exceeded"}}).encode()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        for piece in (head, body[:20], body[20:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()

    async with ScriptedProvider() as unused:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with ServedAgent(tmp_path, pointed_at(unused, OPENAI_BASE_URL=url)) as agent:
                status, told, _ = await agent.post("/v1/chat/completions", chat())
    assert (status, json.loads(told)["error"]["code"]) == (400, "context_length_exceeded")
