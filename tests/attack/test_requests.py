"""Hostile requests on the agent's socket: who comes in, and what a body may do."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from calliope_agent.api import heads, outlet
from tests.agents import ServedAgent, chat, pointed_at
from tests.attack.conftest import connected, said, status_of
from tests.upstream import ScriptedProvider, text

DEEP = "[" * 100_000 + "]" * 100_000


def asking(agent: ServedAgent, head: str, target: str = "/v1/models") -> bytes:
    return f"GET {target} HTTP/1.1\r\n{head}authorization: Bearer {agent.token}\r\nconnection: close\r\n\r\n".encode(
        "latin-1"
    )


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("Host: 127.0.0.1\r\n", 200),
        ("hOsT: LOCALHOST:1\r\n", 200),
        ("Host: [::1]:8072\r\n", 200),
        ("", 421),
        ("Host: 127.0.0.1\r\nHost: evil.example\r\n", 421),
        ("Host: evil.example\r\nHost: 127.0.0.1\r\n", 421),
        ("Host: localhost/evil.example\r\n", 421),
        ("Host: localhost#evil.example\r\n", 421),
        ("Host: localhost.\r\n", 421),
        ("Host: 127.1\r\n", 421),
        ("Host: [::ffff:127.0.0.1]\r\n", 421),
        ("Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n", 200),
        ("Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nOrigin: https://evil.example\r\n", 403),
        ("Host: 127.0.0.1\r\nOrigin: http://[\r\n", 403),
        ("Host: 127.0.0.1\r\nOrigin: \r\n", 403),
        ("Host: 127.0.0.1\r\nOrigin: http://localhost\r\n", 403),
        ("Host: 127.0.0.1\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n", 403),
    ],
)
async def test_only_one_host_and_no_foreign_page_comes_in(agent: ServedAgent, head: str, expected: int) -> None:
    assert status_of(await said(agent, asking(agent, head))) == expected


@pytest.mark.parametrize(
    "target", ["//v1/models", "/health/../v1/models", "/health;/v1/models", "/health%2f..%2fv1/models"]
)
async def test_no_spelling_of_an_open_path_opens_another(agent: ServedAgent, target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    assert status_of(await said(agent, request)) == 401


@pytest.mark.parametrize(
    "lengths",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\nContent-Length: 3\r\n",
    ],
)
async def test_a_body_with_two_lengths_is_refused(agent: ServedAgent, lengths: str) -> None:
    smuggled = asking(agent, "Host: localhost\r\n").decode()
    request = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n0\r\n\r\n{smuggled}"
    answer = await said(agent, request.encode())
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1") == 1


SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def offering(agent: ServedAgent, protocol: str, body: bytes, more: str = "") -> tuple[bytes, bytes]:
    """Head and body of a question as Java's HttpClient or ``curl --http2`` send it: with an offer to go on in another protocol."""
    length = "" if "chunked" in more else f"content-length: {len(body)}\r\n"
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer {agent.token}\r\n"
        f"content-type: application/json\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\n"
        f"http2-settings: AAMAAABkAAQAAP__\r\n{more}{length}\r\n"
    )
    return head.encode(), body


LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "anything"])
@pytest.mark.parametrize("every", [0, 0.05])
async def test_a_body_behind_an_offer_is_no_other_request(agent: ServedAgent, protocol: str, every: float) -> None:
    head, body = offering(agent, protocol, SMUGGLED)
    told = await said(agent, head, body, LAST, every=every)
    assert status_of(told) == (426 if protocol == "websocket" else 400)
    refused_before_its_body_came = protocol == "websocket" and every > 0
    assert told.count(b"HTTP/1.1 ") == (1 if refused_before_its_body_came else 2)
    assert told.count(b'"healthy"') == (0 if refused_before_its_body_came else 1)


@pytest.mark.parametrize("cut", [0, 1, 20, 200, -60, -30, -1])
async def test_a_question_with_an_offer_is_answered(agent: ServedAgent, provider: ScriptedProvider, cut: int) -> None:
    provider.script(text("As ever."), text("And again."))
    asked = json.dumps(chat()).encode()
    first = b"".join(offering(agent, "h2c", asked))
    second = b"".join(
        offering(agent, "h2c", b"%x\r\n%b\r\n0\r\n\r\n" % (len(asked), asked), "transfer-encoding: chunked\r\n")
    )
    told = await said(agent, first[:cut], first[cut:] + second[:cut], second[cut:] + LAST, every=0.02)
    assert told.count(b"HTTP/1.1 200 OK") == 3
    assert told.index(b"As ever.") < told.index(b"And again.") < told.index(b'"healthy"')


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "connection",
    [
        "upgrade",
        "UPGRADE\t, close",
        "close, upgrade",
        "keep-alive,upgrade ,upgrade",
        "upgrade\r\nConnection: upgrade",
        "upgrade\r\nConnection: close",
        "upgrade,,",
    ],
)
async def test_every_spelling_of_an_offer_is_declined_or_refused(
    agent: ServedAgent, version: str, connection: str
) -> None:
    head, body = offering(agent, "h2c", SMUGGLED)
    spelt = head.replace(b"Upgrade, HTTP2-Settings", connection.encode()).replace(
        b"HTTP/1.1", f"HTTP/{version}".encode()
    )
    told = await said(agent, spelt + body + LAST)
    assert status_of(told) == 400
    assert told.count(b'"healthy"') <= 1
    assert told.count(b"HTTP/1.1 ") <= 2


async def test_offers_in_great_number_are_each_answered(agent: ServedAgent) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
    assert (await said(agent, one * 300 + LAST)).count(b'"healthy"') == 301


async def test_a_tunnel_is_refused(agent: ServedAgent) -> None:
    assert status_of(await said(agent, b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 400


@pytest.mark.parametrize("ahead", [0, 1, 3])
async def test_who_leaves_with_requests_sent_ahead_is_not_paid_for(
    agent: ServedAgent, provider: ScriptedProvider, ahead: int
) -> None:
    provider.script(text("First", " never").hold(asyncio.Event(), before=1))
    body = json.dumps(chat(stream=True)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer {agent.token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    reader, writer = await connected(agent)
    writer.write((head.encode() + body) * (1 + ahead))
    async with asyncio.timeout(10):
        await reader.readuntil(b"First")
    writer.close()
    await writer.wait_closed()
    await provider.client_gone(0)
    assert provider.calls == 1


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/fim/completions"])
async def test_a_body_without_end_to_its_levels_is_400(agent: ServedAgent, path: str) -> None:
    for name in ("messages", "extra_body", "stream", "temperature", "suffix", "unknown"):
        body = f'{{"model": "openai/gpt-4o", "prompt": "x", "messages": [], "{name}": {DEEP}}}'
        async with agent.http.post(path, data=body, headers=JSON) as answer:
            assert answer.status == 400
            assert "deeply" in await answer.text()


async def test_a_setting_without_end_to_its_levels_is_400(agent: ServedAgent) -> None:
    headers = {**JSON, **agent.authorization(manage=True)}
    async with agent.http.patch("/api/settings", data=f'{{"cache": {DEEP}}}', headers=headers) as answer:
        assert answer.status == 400


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/v1/chat/completions", ("stream", "model", "extra_body")),
        ("/v1/completions", ("stream", "model", "extra_body", "suffix")),
        ("/v1/fim/completions", ("stream", "model", "extra_body", "suffix", "temperature", "max_tokens")),
    ],
)
async def test_a_number_that_nothing_holds_is_no_mistake_of_ours(
    agent: ServedAgent, path: str, names: tuple[str, ...]
) -> None:
    for name in names:
        for number in ("1e999", "9" * 10_000, "1" * 5_000 + ".5"):
            body = f'{{"model": "openai/gpt-4o", "prompt": "x", "messages": [], "{name}": {number}}}'
            async with agent.http.post(path, data=body, headers=JSON) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_request")


async def test_a_number_that_only_the_provider_reads_is_its_to_refuse(
    agent: ServedAgent, provider: ScriptedProvider
) -> None:
    body = '{"model": "openai/gpt-4o", "messages": [], "temperature": 1e999}'
    async with agent.http.post("/v1/chat/completions", data=body, headers=JSON) as answer:
        assert answer.status == 200
    assert b"1e999" in provider.requests[0].body


@pytest.mark.parametrize("digits", ["9" * 400, "9" * 5_000])
async def test_long_numbers_in_headers_and_queries(agent: ServedAgent, digits: str) -> None:
    status, told = await agent.get(f"/v1/requests?limit={digits}")
    assert (status, told["error"]["param"]) == (400, "limit")
    body = {"model": "openai/gpt-4o", "prompt": "def f(", "suffix": ")"}
    status, _, _ = await agent.post("/v1/fim/completions", body, **{"x-calliope-budget-ms": digits})
    assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "openai/gpt-4o", "messages": [], "api\\u005fbase": "http://evil.example"}',
        '{"model": "openai/gpt-4o", "messages": [], "extra_body": {"\\u0061pi_key": "x"}}',
        '{"api_base": "http://evil.example", "model": "openai/gpt-4o", "api_base": null, "messages": []}',
    ],
)
async def test_no_spelling_of_a_destination_passes(agent: ServedAgent, provider: ScriptedProvider, body: str) -> None:
    async with agent.http.post("/v1/chat/completions", data=body, headers=JSON) as answer:
        assert answer.status == 400
    assert provider.calls == 0


async def test_of_a_doubled_field_the_provider_gets_the_one_that_was_checked(
    agent: ServedAgent, provider: ScriptedProvider
) -> None:
    body = '{"model": "anthropic/x", "model": "openai/gpt-4o", "messages": [], "extra_body": {"api_base": 1}, "extra_body": {}}'
    async with agent.http.post("/v1/chat/completions", data=body, headers=JSON) as answer:
        assert answer.status == 200
    (request,) = provider.requests
    assert json.loads(request.body) == {"model": "gpt-4o", "messages": [], "extra_body": {}}
    assert request.body.count(b"extra_body") == 1


async def test_an_endless_head_is_cut_before_any_token(agent: ServedAgent) -> None:
    for filler in (b"X-Filler: " + b"a" * 1000 + b"\r\n", b"a" * 1000):
        _, writer = await connected(agent)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        sent = 0
        try:
            while sent < 16 << 20:
                writer.write(filler * 64)
                await writer.drain()
                sent += 64 * len(filler)
        except ConnectionError:
            pass
        assert sent < 8 << 20  # what fits into the two sockets' buffers
        writer.close()
    assert (await agent.get("/health"))[0] == 200


async def test_two_requests_of_one_id_stay_two(agent: ServedAgent, provider: ScriptedProvider) -> None:
    """An id is the caller's to choose: nobody may resume, cancel or hide another's answer by choosing the same one."""
    same = {"x-request-id": "same", "x-calliope-resumable": "true"}
    streams: list[str] = []
    for words in ("first", "second"):
        body = chat(stream=True, model="openai/gpt-4o", user=words)
        async with agent.http.post("/v1/chat/completions", json=body, headers=same) as answer:
            assert answer.headers["x-request-id"] == "same"
            streams.append(answer.headers["x-calliope-stream"])
            await answer.read()
    assert len(set(streams)) == 2
    for stream in streams:
        async with agent.http.get(f"/v1/streams/{stream}") as answer:
            assert answer.status == 200
            assert b"Hello" in await answer.read()
    _, told = await agent.get("/v1/requests")
    assert [record["id"] for record in told["data"]] == ["same", "same"]


def posting(agent: ServedAgent, path: str, framing: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer {agent.token}\r\n"
        f"content-type: application/json\r\n{framing}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/chat/completions", "invalid_request_error"), ("/v1/messages", "timeout_error")]
)
@pytest.mark.parametrize(
    ("framing", "begun"),
    [("content-length: 100", b""), ("content-length: 100", b"{"), ("transfer-encoding: chunked", b"1\r\n{\r\n")],
)
async def test_a_body_that_does_not_arrive_holds_nothing_for_long(
    provider: ScriptedProvider, tmp_path: Path, path: str, kind: str, framing: str, begun: bytes
) -> None:
    async with ServedAgent(tmp_path, pointed_at(provider, CALLIOPE_BODY_TIMEOUT_S="0.3")) as agent:
        answer = await said(agent, posting(agent, path, framing) + begun)
    head, _, body = answer.partition(b"\r\n\r\n")
    told = json.loads(body)
    assert status_of(answer) == 408
    assert b"connection: close" in head
    assert (told["error"]["code"], told["error"]["type"]) == ("body_too_slow", kind)
    assert ("request_id" in told) is (path == "/v1/messages")


async def test_a_byte_now_and_then_is_no_way_to_hold_a_request(provider: ScriptedProvider, tmp_path: Path) -> None:
    limits = {"CALLIOPE_BODY_TIMEOUT_S": "20", "CALLIOPE_REQUEST_DEADLINE_S": "1"}
    async with ServedAgent(tmp_path, pointed_at(provider, **limits)) as agent:
        answer = await said(
            agent, posting(agent, "/v1/chat/completions", "content-length: 100"), *[b"{"] * 9, every=0.1
        )
    assert status_of(answer) == 408


async def test_a_body_that_comes_slowly_but_comes_is_served(provider: ScriptedProvider, tmp_path: Path) -> None:
    body = json.dumps(chat(model="openai/gpt-4o")).encode()
    quarters = [body[at : at + len(body) // 3] for at in range(0, len(body), len(body) // 3)]
    async with ServedAgent(tmp_path, pointed_at(provider, CALLIOPE_BODY_TIMEOUT_S="1.5")) as agent:
        head = posting(agent, "/v1/chat/completions", f"content-length: {len(body)}\r\nconnection: close")
        answer = await said(agent, head, *quarters, every=0.6)
    assert status_of(answer) == 200


def strange(path: str, framing: str) -> bytes:
    """The head of a question without a token."""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n{framing}\r\n\r\n".encode()


async def dripping(writer: asyncio.StreamWriter, drop: bytes) -> None:
    while True:
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(0.02)


WIRES = [("/v1/chat/completions", "error"), ("/v1/messages", "request_id"), ("/nowhere", "error")]


@pytest.mark.parametrize(("path", "field"), WIRES)
@pytest.mark.parametrize(
    ("framing", "begun", "drop"),
    [
        ("content-length: 1000000", b"", b" "),
        ("content-length: 1000000", b"{", b" "),
        ("transfer-encoding: chunked", b"1\r\n{\r\n", b"1\r\n \r\n"),
        ("content-length: 1000000\r\nexpect: 100-continue", b"", b" "),
    ],
)
async def test_a_stranger_holds_no_connection_by_a_body_that_drips(
    agent: ServedAgent, monkeypatch: pytest.MonkeyPatch, path: str, field: str, framing: str, begun: bytes, drop: bytes
) -> None:
    monkeypatch.setattr(outlet, "LINGER_S", 0.1)
    reader, writer = await connected(agent)
    writer.write(strange(path, framing) + begun)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert status_of(head) == 401
        assert b"connection: close" in head
        assert field in json.loads(body)
        with pytest.raises(ConnectionError):
            await dripping(writer, drop)
    writer.close()


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize(("path", "field"), WIRES)
async def test_who_reads_only_when_all_is_sent_gets_the_refusal(
    agent: ServedAgent, path: str, field: str, connection: str
) -> None:
    """As urllib does: a reset, which a socket closed with bytes unread sends, would take the answer."""
    body = b" " * (16 << 20)

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", urlsplit(agent.url).port or 0), timeout=10) as line:
            line.sendall(strange(path, f"connection: {connection}\r\ncontent-length: {len(body)}"))
            line.sendall(body)
            return b"".join(iter(lambda: line.recv(1 << 16), b""))

    head, _, told = (await asyncio.to_thread(ask)).partition(b"\r\n\r\n")
    assert status_of(head) == 401
    assert field in json.loads(told)


async def test_a_refusal_of_what_came_whole_costs_no_connection(agent: ServedAgent) -> None:
    asked = strange("/v1/chat/completions", "content-length: 2") + b"{}"
    told = await said(agent, asked, asked + LAST, every=0.05)
    assert told.count(b"HTTP/1.1 401") == 2
    assert told.count(b"connection: close") == 1
    assert told.endswith(b"}")


async def test_a_body_in_its_own_time_costs_no_connection(agent: ServedAgent) -> None:
    body = json.dumps(chat(model="openai/gpt-4o")).encode()
    head = posting(agent, "/v1/chat/completions", f"content-length: {len(body)}")
    told = await said(agent, head, body[:9], body[9:] + LAST, every=0.05)
    assert told.count(b"HTTP/1.1 200") == 2
    assert told.count(b"connection: close") == 1


async def test_empty_lines_after_an_answer_hold_no_connection(
    agent: ServedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "SECONDS", 0.1)
    told = await said(agent, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n", every=0.05)
    assert status_of(told) == 200
