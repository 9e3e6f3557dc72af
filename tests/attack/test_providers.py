"""Hostile providers: what an answer may do to memory, to other streams, and to what is told of it."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.completion import flights
from calliope_agent.upstream.client import Client
from calliope_agent.upstream.dial import forbidden
from calliope_agent.upstream.sse import SseParser
from tests.agents import OPENAI_KEY, ServedAgent, chat, pointed_at
from tests.upstream import Answer, ScriptedProvider, status, text


def json_answer(body: bytes, code: int = 200, request_id: str = "") -> Answer:
    return status(code, body=body, headers={"Content-Type": "application/json", "x-request-id": request_id})


@pytest.mark.parametrize("code", [200, 400, 500])
async def test_json_without_end_to_its_levels_is_the_providers_fault(
    agent: ServedAgent, provider: ScriptedProvider, code: int
) -> None:
    provider.always = json_answer(b"[" * 60_000, code)
    status_, body, _ = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
    assert status_ in (400, 502, 503)
    assert json.loads(body)["error"]["code"] != "internal_error"


async def test_records_keep_no_megabytes_and_no_key(agent: ServedAgent, provider: ScriptedProvider) -> None:
    answer = {
        "id": "x",
        "object": "chat.completion",
        "model": "m" * 100_000,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "s" * 100_000}],
        "usage": {"prompt_tokens": 1, "more": "u" * 100_000},
    }
    provider.always = json_answer(json.dumps(answer).encode(), request_id=OPENAI_KEY)
    assert (await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o")))[0] == 200
    _, told = await agent.get("/v1/requests")
    assert len(json.dumps(told)) < 4096
    assert OPENAI_KEY not in json.dumps(told)


async def test_kept_answers_are_bounded_together(
    agent: ServedAgent, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "KEPT_BYTES", 1 << 20)
    provider.always = text("x" * 300_000)
    streams = []
    for number in range(6):
        headers = {"idempotency-key": f"key-{number}"}
        async with agent.http.post(
            "/v1/chat/completions", json=chat(stream=True, model="openai/gpt-4o"), headers=headers
        ) as answer:
            streams.append(answer.headers["x-calliope-stream"])
            await answer.read()
    found = []
    for stream in streams:
        async with agent.http.get(f"/v1/streams/{stream}") as answer:
            await answer.read()
            found.append(answer.status)
    assert found == [404, 404, 404, 200, 200, 200]


def test_an_event_in_many_pieces_is_not_copied_for_each() -> None:
    parser = SseParser()
    parser.feed(b"data: ")
    copied = 0
    tracemalloc.start()
    try:
        for _ in range(2_000):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            parser.feed(b"x" * 1_000)
            copied += tracemalloc.get_traced_memory()[1] - before > 500_000
    finally:
        tracemalloc.stop()
    assert copied < 100
    (event,) = parser.feed(b"\n\n")
    assert len(event.data) == 2_000_000


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"data: a", b"data:", b"\n", b"\r", b"\r\n", b": c", b"event: e", b"\xef\xbb\xbf", b"x"])
    ),
    st.data(),
)
def test_where_the_pieces_are_cut_does_not_matter(words: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    at_once, in_pieces = SseParser(), SseParser()
    expected = at_once.feed(whole) + at_once.flush()
    found = [
        event
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for event in in_pieces.feed(whole[start:end])
    ]
    assert found + in_pieces.flush() == expected


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
    ],
)
def test_metadata_services_are_forbidden_in_every_spelling(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "93.184.216.34", "2606:2800:220:1::", "64:ff9b::5db8:d822"]
)
def test_other_addresses_are_not(address: str) -> None:
    assert not forbidden(address)


@pytest.mark.parametrize(
    "host",
    ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "[::ffff:a9fe:a9fe]", "169.254.169.254"],
)
async def test_no_spelling_of_a_base_url_reaches_a_metadata_service(tmp_path: Path, host: str) -> None:
    environ = {"OPENAI_BASE_URL": f"http://{host}:80/v1", "OPENAI_API_KEY": OPENAI_KEY, "CALLIOPE_MAX_ATTEMPTS": "1"}
    async with ServedAgent(tmp_path, environ) as served:
        code, body, _ = await served.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
    assert code in (424, 502)
    assert any(words in body for words in ("link-local", "must be", "cannot be resolved", "base URL is not one")), body


async def test_the_loopback_is_not_asked_through_a_proxy(tmp_path: Path, provider: ScriptedProvider) -> None:
    """A company's HTTP_PROXY without NO_PROXY would have got the prompts for a model on this machine."""
    async with ScriptedProvider() as proxy:
        environ = pointed_at(provider, HTTP_PROXY=proxy.origin, ALL_PROXY=proxy.origin)
        async with ServedAgent(tmp_path, environ) as served:
            assert (await served.post("/v1/chat/completions", chat(model="openai/gpt-4o")))[0] == 200
        assert proxy.requests == []
    client = Client({"HTTP_PROXY": "http://proxy:3128"})
    assert client.proxy("http://127.8.8.8:1/") is None
    assert client.proxy("http://[::1]/") is None
    assert client.proxy("http://127.0.0.1.evil.example/") == "http://proxy:3128"


async def test_a_redirect_takes_the_key_nowhere(agent: ServedAgent, provider: ScriptedProvider) -> None:
    async with ScriptedProvider() as evil:
        provider.always = status(307, headers={"Location": f"{evil.base_url}/chat/completions"})
        code, _, _ = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
        assert code == 502
        assert evil.requests == []
