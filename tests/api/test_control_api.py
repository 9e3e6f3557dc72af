"""Usage, cache, metrics, tokens, the description of the API, and the page's own parts."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from calliope_agent.api import pages
from calliope_agent.api.app import ENDPOINTS
from tests.agents import ServedAgent, chat, message, pointed_at
from tests.upstream import ScriptedProvider, status, text

CHAT = "/v1/chat/completions"


async def test_usage_counts_the_providers_own_tokens_and_costs(agent: ServedAgent, provider: ScriptedProvider) -> None:
    provider.script(text("a").counting(1000, 100), text("b").without_usage(), status(401))
    await agent.post(CHAT, chat(model="openai/gpt-4o"))
    _, told = await agent.get("/api/usage")
    assert told["total"]["input_tokens"] == 1000
    assert told["total"]["output_tokens"] == 100
    assert told["total"]["cost_usd"] > 0
    await agent.post(CHAT, chat(model="openai/gpt-4o"))
    await agent.post(CHAT, chat(model="openai/gpt-4o"))
    _, told = await agent.get("/api/usage")
    (target,) = told["targets"]
    assert target["target"] == "openai/gpt-4o"
    assert (target["requests"], target["answered"], target["failed"], target["without_usage"]) == (3, 2, 1, 1)
    assert target["cost_usd"] is None


async def test_usage_outlives_the_agent(provider: ScriptedProvider, tmp_path: Path) -> None:
    provider.script(text("a").counting(1000, 100), text("b").counting(10, 1))
    told = []
    for _ in range(2):
        async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
            await agent.post(CHAT, chat(model="openai/gpt-4o"))
            told.append((await agent.get("/api/usage"))[1])
    assert [one["total"]["input_tokens"] for one in told] == [1000, 1010]
    assert [one["total"]["requests"] for one in told] == [1, 2]
    assert told[0]["since"] == told[1]["since"]
    assert 0 < told[0]["total"]["cost_usd"] < told[1]["total"]["cost_usd"]


async def test_a_price_nobody_knows_is_null_and_a_kept_answer_is_free(
    agent: ServedAgent, provider: ScriptedProvider
) -> None:
    body = chat(model="openai/gpt-nobody-knows", temperature=0)
    await agent.post(CHAT, body)
    await asyncio.gather(*agent.agent.keeper.writing)
    await agent.post(CHAT, body)
    _, told = await agent.get("/api/usage")
    (target,) = told["targets"]
    assert (target["requests"], target["from_cache"], target["cost_usd"]) == (2, 1, None)
    assert provider.calls == 1


async def test_cache_is_shown_and_emptied(agent: ServedAgent, provider: ScriptedProvider) -> None:
    await agent.post(CHAT, chat(temperature=0))
    await asyncio.gather(*agent.agent.keeper.writing)
    assert (await agent.get("/api/cache"))[1]["entries"] == 1
    async with agent.http.delete("/api/cache", headers=agent.authorization(manage=True)) as answer:
        assert await answer.json() == {"cleared": 1}
    await agent.post(CHAT, chat(temperature=0))
    assert provider.calls == 2


async def test_metrics_are_prometheus_and_name_no_key(provider: ScriptedProvider, tmp_path: Path) -> None:
    environ = pointed_at(provider, CALLIOPE_METRICS_TOKEN="metrics-only-0123456789")
    async with ServedAgent(tmp_path, environ) as agent:
        provider.script(text("a"), status(401))
        await agent.post(CHAT, chat(True))
        await agent.post("/v1/messages", message())
        only = {"authorization": "Bearer metrics-only-0123456789"}
        async with agent.http.get("/metrics", headers=only) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            told = await answer.text()
        for path in ("/api/settings", "/v1/models", "/"):
            async with agent.http.get(path, headers=only) as answer:
                assert answer.status == 403
        async with agent.http.get("/metrics", headers={"authorization": ""}) as answer:
            assert answer.status == 401
    assert 'calliope_requests_total{kind="chat",outcome="complete",cache="bypass"} 1' in told
    assert 'calliope_attempts_total{target="openai/gpt-4o",code="ok"} 1' in told
    assert 'calliope_attempts_total{target="anthropic/claude-sonnet-4-5",code="key_rejected"} 1' in told
    assert 'calliope_ttft_seconds_bucket{le="+Inf"} 1' in told
    assert "calliope_ttft_seconds_count 1" in told
    names = [line.split()[2] for line in told.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    line = re.compile(r'(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="([^"\\]|\\.)*",?)+\})? [0-9.e+-]+)')
    for each in told.splitlines():
        assert line.fullmatch(each), each


async def test_a_rotated_token_counts_at_once_and_the_old_one_no_more(agent: ServedAgent) -> None:
    old, manage = agent.token, agent.authorization(manage=True)
    async with agent.http.post("/api/tokens/rotate", json={"tokens": ["complete"]}, headers=manage) as answer:
        assert answer.status == 200
        told = await answer.text()
    fresh = agent.token
    assert fresh != old
    assert fresh not in told
    assert agent.agent.paths.token_file.read_text().strip() == fresh
    assert (await agent.get("/v1/models", authorization=f"Bearer {old}"))[0] == 401
    assert (await agent.get("/v1/models", authorization=f"Bearer {fresh}"))[0] == 200
    assert (await agent.get("/v1/models", **manage))[0] == 200


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [({"tokens": []}, 400, "tokens"), ({"tokens": ["all"]}, 400, "tokens[0]"),
     ({}, 400, "tokens"), ({"tokens": ["complete"]}, 409, "complete")],
)  # fmt: skip
async def test_what_is_not_rotated_says_why(
    provider: ScriptedProvider, tmp_path: Path, body: object, code: int, param: str
) -> None:
    environ = pointed_at(provider, CALLIOPE_AGENT_TOKEN="cal-given-by-the-operator")
    async with ServedAgent(tmp_path, environ) as agent:
        headers = agent.authorization(manage=True)
        async with agent.http.post("/api/tokens/rotate", json=body, headers=headers) as answer:
            assert answer.status == code
            assert (await answer.json())["error"]["param"] == param
        assert agent.token == "cal-given-by-the-operator"


async def test_the_description_holds_every_endpoint_with_its_closed_body(agent: ServedAgent) -> None:
    status_, told = await agent.get("/openapi.json")
    assert status_ == 200
    described = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    assert described == {(one.method, one.path.replace(":path", "")) for one in ENDPOINTS}
    schemas = told["components"]["schemas"]
    for name in ("KeyBody", "ProviderBody", "ModelBody", "RotateBody", "SettingsBody"):
        assert schemas[name]["additionalProperties"] is False
    body = told["paths"]["/api/providers/{name}/key"]["put"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/KeyBody"}
    assert told["paths"]["/health"]["get"]["security"] == []
    identifiers = [one["operationId"] for methods in told["paths"].values() for one in methods.values()]
    assert len(identifiers) == len(set(identifiers))


async def test_the_page_carries_the_write_token_of_its_request_and_a_strict_policy(agent: ServedAgent) -> None:
    manage = agent.authorization(manage=True)
    async with agent.http.get("/", headers=manage | {"x-calliope-write-token": "a-token-of-the-launcher"}) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/html"
        policy = answer.headers["content-security-policy"]
        assert "a-token-of-the-launcher" in await answer.text()
    assert "unsafe" not in policy
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    async with agent.http.get(
        "/", headers=manage | {"x-calliope-write-token": '"><script>alert(1)</script>'}
    ) as answer:
        assert "alert(1)" not in await answer.text()


async def test_the_pages_parts_are_these_and_no_other_file(agent: ServedAgent) -> None:
    manage = agent.authorization(manage=True)
    names = [path.name for path in pages.FOLDER.iterdir() if path.suffix != ".html"]
    assert "page.js" in names
    for name in names:
        async with agent.http.get(f"/page/{name}", headers=manage) as answer:
            assert answer.status == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("index.html", "nothing.js", "..%2Fpages.py", "%2e%2e%2fapp.py"):
        async with agent.http.get(f"/page/{name}", headers=manage) as answer:
            assert answer.status == 404


def test_the_page_asks_nobody_else_and_needs_no_inline_code() -> None:
    for path in pages.FOLDER.iterdir():
        source = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|llm\.example\.com)", source), path
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", source)
            assert not re.search(r'(?:src|href)="/', source), "addresses must be relative"
        if path.suffix == ".js":
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source
            )
            assert not re.search(r"""fetch\(["'`]/""", source)
