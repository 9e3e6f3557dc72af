"""What the client's own events become for who asks the agent: tries are counted, and nothing secret is told."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from tests.agents import OPENAI_KEY, ServedAgent, chat
from tests.client.rig import OK, Peer, Server, keeping, until

ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    }
).encode()
PLAIN = OK + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
FINISH = b'{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}'
STREAM = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM += b"%x\r\ndata: %b\n\n\r\n" % (len(FINISH) + 8, FINISH) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def environ(url: str, **more: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": OPENAI_KEY, "CALLIOPE_CACHE": "off", **more}


async def attempts(agent: ServedAgent) -> list[int]:
    """How often each request was tried, the oldest first."""
    _, told = await agent.get("/v1/requests")
    return [len(one["attempts"]) for one in reversed(told["data"])]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_kept_connection_that_ends_as_it_is_used_again_costs_one_try(tmp_path: Path, stream: bool) -> None:
    asked = 0

    async def serve(peer: Peer) -> None:
        nonlocal asked
        while (await peer.request())[0]:
            asked += 1
            if asked == 2:
                return
            await peer.say(STREAM if stream else PLAIN)

    async with Server(serve) as server, ServedAgent(tmp_path, environ(server.url)) as agent:
        for _ in range(3):
            code, body, _ = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o", stream=stream))
            assert code == 200
            assert "hi" in body
        assert asked == 4
        assert await attempts(agent) == [1, 2, 1]
        assert len(server.peers) == 2


async def test_two_answers_to_one_request_are_one_answer(tmp_path: Path) -> None:
    async with Server(keeping(PLAIN + PLAIN)) as server, ServedAgent(tmp_path, environ(server.url)) as agent:
        for _ in range(3):
            code, body, _ = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
            assert (code, body.encode()) == (200, ANSWER)
        assert await attempts(agent) == [1, 1, 1]
        assert len(server.peers) == 3


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (401, "key_rejected"), (503, "overloaded")])
async def test_a_status_in_an_unasked_coding_is_that_status(tmp_path: Path, status: int, code: str) -> None:
    said = b"HTTP/1.1 %d X\r\ncontent-encoding: br\r\ncontent-length: 4\r\n\r\n\x0b\x02\x80\x03" % status
    async with (
        Server(keeping(said)) as server,
        ServedAgent(tmp_path, environ(server.url, CALLIOPE_MAX_ATTEMPTS="1")) as agent,
    ):
        _, body, _ = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
    assert json.loads(body)["error"]["code"] == code


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("refuses", [True, False], ids=["refused", "nobody there"])
async def test_a_proxy_that_does_not_help_is_named_and_its_password_is_not(
    tmp_path: Path, scheme: str, refuses: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Server(keeping(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")) as proxy:
        place = f"127.0.0.1:{proxy.port if refuses else 1}"
        more = {f"{scheme.upper()}_PROXY": f"http://person:canary-of-the-proxy@{place}", "CALLIOPE_MAX_ATTEMPTS": "1"}
        async with ServedAgent(tmp_path, environ(f"{scheme}://provider.example/v1", **more)) as agent:
            _, body, headers = await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o"))
            _, told = await agent.get("/v1/requests")
            _, providers = await agent.get("/api/providers")
    error = json.loads(body)["error"]
    assert error["code"] == "unreachable"
    assert "HTTP proxy" in error["message"]
    everything = body + str(headers) + str(told) + str(providers) + caplog.text
    assert "canary-of-the-proxy" not in everything
    assert "cGVyc29uOmNhbmFyeS1vZi10aGUtcHJveHk" not in everything


async def test_leaving_the_agent_closes_the_connection_to_the_provider(tmp_path: Path) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.left()

    async with Server(serve) as server, ServedAgent(tmp_path, environ(server.url)) as agent:
        task = asyncio.create_task(agent.post("/v1/chat/completions", chat(model="openai/gpt-4o", stream=True)))
        await until(lambda: bool(server.peers))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(server.tasks[0].done)


async def test_stopping_the_agent_closes_idle_connections(tmp_path: Path) -> None:
    async with Server(keeping(PLAIN)) as server:
        async with ServedAgent(tmp_path, environ(server.url)) as agent:
            assert (await agent.post("/v1/chat/completions", chat(model="openai/gpt-4o")))[0] == 200
        await until(server.tasks[0].done)
