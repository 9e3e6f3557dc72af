"""``/api/providers``: theft, hostile bodies and paths first; then keys and providers of one's own, and the check."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yarl

from calliope_agent.keys.ring import Probe
from tests.agents import OPENAI_KEY, ServedAgent, chat, pointed_at
from tests.passage import until
from tests.upstream import Answer, ScriptedProvider, html, raw, status, text

KEY = "sk-canary-of-the-person-0123456789"
OTHER = "sk-canary-another-9876543210"
PROVIDERS = "/api/providers"


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[ServedAgent]:
    """An agent of somebody who set nothing."""
    async with ServedAgent(tmp_path) as served:
        yield served


async def ask(
    agent: ServedAgent, method: str, path: str, body: Any = None, *, manage: bool = True
) -> tuple[int, dict[str, Any]]:
    headers = agent.authorization(manage=manage)
    url = yarl.URL(agent.url + path, encoded=True)
    if body is not None:
        headers["content-type"] = "application/json"
    data = io.BytesIO(json.dumps(body).encode()) if body is not None else None
    async with agent.http.request(method, url, data=data, headers=headers) as answer:
        text_ = await answer.text()
        # A path beyond 64 KiB is refused by the HTTP parser itself, in plain text.
        return answer.status, json.loads(text_) if answer.content_type == "application/json" else {"refused": text_}


def own(provider: ScriptedProvider, **more: Any) -> dict[str, Any]:
    return {"base_url": provider.base_url, "wire": "openai", "models": [{"name": "scripted-model"}], **more}


async def row(agent: ServedAgent, name: str) -> dict[str, Any]:
    status_, told = await ask(agent, "GET", f"{PROVIDERS}/{name}", manage=False)
    assert status_ == 200, told
    return told


def config(agent: ServedAgent) -> str:
    file = agent.agent.paths.config_file
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/providers/mine", {"base_url": "http://127.0.0.1:9/v1"}),
        ("DELETE", "/api/providers/mine", None),
        ("PUT", "/api/providers/openai/key", {"key": KEY}),
        ("DELETE", "/api/providers/openai/key", None),
        ("POST", "/api/providers/openai/check", {}),
        ("DELETE", "/api/cache", None),
        ("POST", "/api/tokens/rotate", {"tokens": ["complete"]}),
        ("GET", "/", None),
        ("GET", "/page/page.js", None),
    ],
)
async def test_the_complete_token_changes_nothing(
    agent: ServedAgent, provider: ScriptedProvider, method: str, path: str, body: Any
) -> None:
    code, told = await ask(agent, method, path, body, manage=False)
    assert (code, told["error"]["code"]) == (403, "forbidden")
    assert provider.requests == []
    assert config(agent) == ""


@pytest.mark.parametrize(
    "name",
    ["../openai", "..", ".", "%2e%2e/%2e%2e/etc/passwd", "Open AI", "a/b", "a\\b", "a\x00b", "opénai", "",
     "x" * 60_000, "x" * 10_000_000,
     "a%2Fb", "-", "key"],
)  # fmt: skip
async def test_a_tricky_name_is_a_400_that_names_it(bare: ServedAgent, name: str) -> None:
    """``key`` and the empty name meet no such provider instead; nothing ever lands in a file."""
    path = quote(name, safe="%")
    before = config(bare)
    seen = set()
    for method, tail, body in (
        ("PUT", "", {"base_url": "https://evil.example/v1"}),
        ("PUT", "/key", {"key": KEY}),
        ("DELETE", "/key", None),
        ("POST", "/check", {}),
        ("GET", "", None),
        ("DELETE", "", None),
    ):
        if name == "key" and (method, tail) == ("PUT", ""):
            continue
        code, told = await ask(bare, method, f"{PROVIDERS}/{path}{tail}", body)
        assert code in (400, 404, 405), (method, tail, told)
        seen.add(code)
        if "refused" in told:
            continue
        if code == 400:
            assert told["error"]["param"] == "name"
        assert len(told["error"]["message"]) < 1000
    assert config(bare) == before
    if name not in ("key", ""):
        assert 400 in seen


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "base_url"),
        ({"base_url": 7}, "base_url"),
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "https://user:pw@x/v1"}, "base_url"),
        ({"base_url": "https://x/v1?key=1"}, "base_url"),
        ({"base_url": "x" * 10_000_000}, "base_url"),
        ({"base_url": "https://x/v1", "wire": "litellm"}, "wire"),
        ({"base_url": "https://x/v1", "api_key": KEY}, "api_key"),
        ({"base_url": "https://x/v1", "api_base": "https://y"}, "api_base"),
        ({"base_url": "https://x/v1", "extra_headers": {}}, "extra_headers"),
        ({"base_url": "https://x/v1", "key_env": ["OPENAI_API_KEY"]}, "key_env"),
        ({"base_url": "https://x/v1", "key_file": "/run/secrets/key"}, "key_file"),
        ({"base_url": "https://x/v1", "key_command": ["cat", "/x"]}, "key_command"),
        ({"base_url": "https://x/v1", "base_url_env": ["OPENAI_BASE_URL"]}, "base_url_env"),
        ({"base_url": "https://x/v1", "litellm": "openai"}, "litellm"),
        ({"base_url": "https://x/v1", "allow_link_local": True}, "allow_link_local"),
        ({"base_url": "https://x/v1", "title": "a\nb"}, "title"),
        ({"base_url": "https://x/v1", "title": "x" * 10_000_000}, "title"),
        ({"base_url": "https://x/v1", "check": "POST /pay"}, "check"),
        ({"base_url": "https://x/v1", "models": [{"name": "a", "api_key": "x"}]}, "api_key"),
        ({"base_url": "https://x/v1", "models": [{"name": ""}]}, "name"),
        ({"base_url": "https://x/v1", "models": [{"name": "a"}, {"name": "a"}]}, "models"),
        ({"base_url": "https://x/v1", "models": "gpt"}, "models"),
        ([], None),
    ],
)  # fmt: skip
async def test_a_hostile_provider_is_a_400_that_names_the_field(
    agent: ServedAgent, provider: ScriptedProvider, body: Any, field: str | None
) -> None:
    code, told = await ask(agent, "PUT", f"{PROVIDERS}/mine", body)
    assert (code, told["error"]["param"]) == (400, field), told
    assert len(told["error"]["message"]) < 2000
    assert config(agent) == ""
    assert provider.requests == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "key"),
        ({"key": 7}, "key"),
        ({"key": None}, "key"),
        ({"key": ""}, "key"),
        ({"key": "two\nlines"}, "key"),
        ({"key": "Bearer sk-0123456789"}, "key"),
        ({"key": "x" * 10_000_000}, "key"),
        ({"key": "cal-0123456789012345678901234567890"}, "key"),
        ({"key": KEY, "base_url": "https://evil.example"}, "base_url"),
        ({"key": KEY, "origin": "https://evil.example"}, "origin"),
    ],
)
async def test_a_hostile_key_is_a_400_and_is_not_repeated(bare: ServedAgent, body: Any, field: str) -> None:
    code, told = await ask(bare, "PUT", f"{PROVIDERS}/openai/key", body)
    assert (code, told["error"]["param"]) == (400, field), told
    assert KEY not in json.dumps(told)
    assert (await row(bare, "openai"))["key"] is None


async def test_nobody_takes_a_shipped_or_an_operators_name(provider: ScriptedProvider, tmp_path: Path) -> None:
    operator = tmp_path / "operator"
    operator.mkdir()
    (operator / "company.toml").write_text(
        'title = "Ours"\nwire = "openai"\nbase_url = "https://llm.company.example/v1"\n'
    )
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        for name in ("openai", "company", "local"):
            code, told = await ask(agent, "PUT", f"{PROVIDERS}/{name}", own(provider))
            assert (code, told["error"]["param"]) == (409, "name")
            code, _ = await ask(agent, "DELETE", f"{PROVIDERS}/{name}")
            assert code == 409
        assert config(agent) == ""
        assert (await row(agent, "openai"))["may"]["change"] == "It comes with calliope-agent."
        assert "company.toml" in (await row(agent, "company"))["may"]["change"]


async def test_the_agent_is_nobodys_provider(bare: ServedAgent) -> None:
    for host in ("127.0.0.1", "localhost"):
        address = f"http://{host}:{bare.url.rpartition(':')[2]}/v1"
        code, told = await ask(bare, "PUT", f"{PROVIDERS}/loop", {"base_url": address})
        assert (code, told["error"]["param"]) == (400, "base_url")


async def test_a_moved_provider_does_not_get_the_key(bare: ServedAgent, provider: ScriptedProvider) -> None:
    async with ScriptedProvider() as thief:
        await ask(bare, "PUT", f"{PROVIDERS}/mine", own(provider))
        await ask(bare, "PUT", f"{PROVIDERS}/mine/key", {"key": KEY})
        assert (await ask(bare, "POST", f"{PROVIDERS}/mine/check", {}))[1]["state"] == "valid"
        await ask(bare, "PUT", f"{PROVIDERS}/mine", own(thief))
        told = await row(bare, "mine")
        assert told["state"] == "needs_key"
        assert "so it is not sent" in told["text"]
        assert (await ask(bare, "POST", f"{PROVIDERS}/mine/check", {}))[1]["state"] == "no_key"
        await bare.post("/v1/chat/completions", chat(model="mine/scripted-model"))
        assert thief.requests == []


async def test_an_operators_key_stays_with_the_operators_address(
    agent: ServedAgent, provider: ScriptedProvider
) -> None:
    """OPENAI_API_KEY is set; a person's provider of the same server still has no key."""
    await ask(agent, "PUT", f"{PROVIDERS}/mine", own(provider))
    assert (await row(agent, "mine"))["key"] is None
    await agent.post("/v1/chat/completions", chat(model="mine/scripted-model"))
    assert provider.requests == []


async def test_a_key_may_be_denied(provider: ScriptedProvider, tmp_path: Path) -> None:
    async with ServedAgent(tmp_path, {"CALLIOPE_USER_KEYS": "deny"}) as agent:
        code, told = await ask(agent, "PUT", f"{PROVIDERS}/openai/key", {"key": KEY})
        assert code == 403
        assert "CALLIOPE_USER_KEYS" in told["error"]["message"]
        assert "CALLIOPE_USER_KEYS" in (await row(agent, "openai"))["may"]["set_key"]


async def test_the_operators_key_is_named_and_comes_first(agent: ServedAgent) -> None:
    before = await row(agent, "openai")
    assert before["key"]["source"] == "environment OPENAI_API_KEY"
    assert "environment OPENAI_API_KEY" in before["may"]["set_key"]
    assert before["base_url_source"] == {"kind": "environment", "where": "OPENAI_BASE_URL"}
    code, told = await ask(agent, "PUT", f"{PROVIDERS}/openai/key", {"key": KEY})
    assert (code, told["used"]) == (200, False)
    assert "comes first" in told["note"]
    sources = {line["source"]: line["state"] for line in (await row(agent, "openai"))["key_sources"]}
    assert sources["environment OPENAI_API_KEY"] == "used"
    assert sources["encrypted file"] == "shadowed"


async def test_life_of_a_key(bare: ServedAgent, provider: ScriptedProvider) -> None:
    code, told = await ask(bare, "PUT", f"{PROVIDERS}/mine", own(provider))
    assert (code, told["state"]) == (200, "needs_key")
    assert (await bare.post("/v1/chat/completions", chat(model="mine/scripted-model")))[0] == 424
    code, told = await ask(bare, "PUT", f"{PROVIDERS}/mine/key", {"key": KEY})
    assert (code, told["used"], told["label"]) == (200, True, "sk-…6789 (encrypted file)")
    body = chat(model="mine/scripted-model", temperature=0)
    assert (await bare.post("/v1/chat/completions", body))[0] == 200
    assert provider.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    await ask(bare, "PUT", f"{PROVIDERS}/mine/key", {"key": OTHER})
    assert (await bare.post("/v1/chat/completions", body))[0] == 200
    assert provider.requests[-1].headers["authorization"] == f"Bearer {OTHER}"
    code, told = await ask(bare, "DELETE", f"{PROVIDERS}/mine/key")
    assert (code, told["left"]) == (200, None)
    calls = provider.calls
    assert (await bare.post("/v1/chat/completions", body))[0] == 424
    assert provider.calls == calls
    assert (await ask(bare, "DELETE", f"{PROVIDERS}/mine/key"))[0] == 404


async def test_a_running_stream_outlives_its_key(bare: ServedAgent, provider: ScriptedProvider) -> None:
    await ask(bare, "PUT", f"{PROVIDERS}/mine", own(provider))
    await ask(bare, "PUT", f"{PROVIDERS}/mine/key", {"key": KEY})
    gate = asyncio.Event()
    provider.script(text("one", "two").hold(gate, before=1))
    body = chat(True, model="mine/scripted-model")
    async with bare.http.post("/v1/chat/completions", json=body) as answer:
        await until(answer, b"one")
        await ask(bare, "PUT", f"{PROVIDERS}/mine/key", {"key": OTHER})
        await ask(bare, "DELETE", f"{PROVIDERS}/mine/key")
        assert (await bare.post("/v1/chat/completions", body))[0] == 424
        gate.set()
        rest = await answer.read()
    assert b"two" in rest
    assert b"[DONE]" in rest


async def test_a_removed_provider_takes_its_key_along(bare: ServedAgent, provider: ScriptedProvider) -> None:
    await ask(bare, "PUT", f"{PROVIDERS}/mine", own(provider))
    await ask(bare, "PUT", f"{PROVIDERS}/mine/key", {"key": KEY})
    assert (await ask(bare, "DELETE", f"{PROVIDERS}/mine"))[0] == 200
    assert config(bare).strip() == ""
    await ask(bare, "PUT", f"{PROVIDERS}/mine", own(provider))
    assert (await row(bare, "mine"))["key"] is None
    assert (await ask(bare, "DELETE", f"{PROVIDERS}/nobody"))[0] == 404


async def test_a_change_leaves_what_a_hand_wrote(bare: ServedAgent, provider: ScriptedProvider) -> None:
    file = bare.agent.paths.config_file
    file.parent.mkdir(parents=True)
    file.write_text(
        '[providers.mine]\n# at home\ntitle = "Mine" # short\nwire = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nrank = 7\n'
    )
    code, _ = await ask(bare, "PUT", f"{PROVIDERS}/mine", {"base_url": provider.base_url})
    assert code == 200
    assert file.read_text() == (
        '[providers.mine]\n# at home\ntitle = "Mine" # short\nwire = "openai"\n'
        f'base_url = "{provider.base_url}"\nrank = 7\ncheck = "GET /models"\n'
    )


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (status(401), "rejected"),
        (status(403), "rejected"),
        (status(402), "out_of_quota"),
        (status(429, error_code="insufficient_quota"), "out_of_quota"),
        (status(429), "rate_limited"),
        (status(500), "failing"),
        (status(404), "not_a_model"),
        (html(), "not_a_model"),
        (raw(b'{"hello": 1}', content_type="application/json"), "not_a_model"),
        (raw(b"{", content_type="application/json"), "not_a_model"),
        (status(302, headers={"location": "http://127.0.0.1:9/"}), "not_a_model"),
    ],
)
async def test_check_tells_what_is_wrong(
    agent: ServedAgent, provider: ScriptedProvider, answer: Answer, state: str
) -> None:
    provider.script(answer, on="models")
    code, told = await ask(agent, "POST", f"{PROVIDERS}/openai/check", {})
    assert (code, told["state"], told["models"]) == (200, state, [])
    assert told["message"]
    assert OPENAI_KEY not in json.dumps(told)
    code, told = await ask(agent, "POST", f"{PROVIDERS}/openai/check", {})
    assert told["state"] == "valid", "a failure is not remembered"
    assert len(provider.requests) == 2


async def test_check_lists_the_models_and_makes_one_call(agent: ServedAgent, provider: ScriptedProvider) -> None:
    code, told = await ask(agent, "POST", f"{PROVIDERS}/openai/check", {})
    assert (code, told["state"], told["models"]) == (200, "valid", ["scripted-model"])
    assert [(one.method, one.path) for one in provider.requests] == [("GET", "/v1/models")]
    assert provider.requests[0].headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert provider.calls == 0


async def test_check_by_a_question_asks_for_one_token(bare: ServedAgent, provider: ScriptedProvider) -> None:
    await ask(bare, "PUT", f"{PROVIDERS}/mine", own(provider, check="chat", key_required=False))
    code, told = await ask(bare, "POST", f"{PROVIDERS}/mine/check", {})
    assert (code, told["state"], told["models"]) == (200, "valid", ["scripted-model"])
    assert provider.requests[0].json["max_tokens"] == 1
    provider.script(status(401))
    assert (await ask(bare, "POST", f"{PROVIDERS}/mine/check", {}))[1]["state"] == "rejected"
    provider.script(status(400))
    assert (await ask(bare, "POST", f"{PROVIDERS}/mine/check", {}))[1]["state"] == "valid"
    assert provider.calls == 3


async def test_check_of_nobody_and_of_somebody_away(bare: ServedAgent) -> None:
    assert (await ask(bare, "POST", f"{PROVIDERS}/nobody/check", {}))[0] == 404
    assert (await ask(bare, "POST", f"{PROVIDERS}/openai/check", {}))[1]["state"] == "no_key"
    await ask(bare, "PUT", f"{PROVIDERS}/away", {"base_url": "http://127.0.0.1:9/v1", "key_required": False})
    assert (await ask(bare, "POST", f"{PROVIDERS}/away/check", {}))[1]["state"] == "unreachable"
    await ask(bare, "PUT", f"{PROVIDERS}/cloud", {"base_url": "http://169.254.169.254/v1", "key_required": False})
    told = (await ask(bare, "POST", f"{PROVIDERS}/cloud/check", {}))[1]
    assert told["state"] == "unreachable"
    assert "never called" in told["message"]


async def test_the_list_says_all_a_page_needs(agent: ServedAgent) -> None:
    code, told = await ask(agent, "GET", PROVIDERS, manage=False)
    assert code == 200
    by_name = {each["name"]: each for each in told["providers"]}
    assert {by_name[name]["state"] for name in ("openai", "anthropic")} == {"ready"}
    assert by_name["mistral"]["state"] == "needs_key"
    assert by_name["ollama"]["state"] == "not_set_up"
    assert by_name["azure"]["state"] == "needs_address"
    assert told["roles"]["chat"]["target"] in told["roles"]["chat"]["chain"]
    assert told["keys"]["backend"] == "encrypted file"
    for each in told["providers"]:
        assert each["text"]
        assert set(each["may"]) == {"set_key", "remove_key", "change", "check"}


async def test_a_keyring_that_hangs_is_waited_for_once(bare: ServedAgent) -> None:
    forever, looks = threading.Event(), []

    def hanging(environ: Mapping[str, str]) -> Probe:
        looks.append(environ)
        forever.wait(20)
        return Probe(None, "")

    bare.agent.keys.person.look = hanging
    bare.agent.keys.person.ring_timeout_s = 0.2
    for _ in range(3):
        _, told = await ask(bare, "GET", PROVIDERS, manage=False)
        assert "did not answer in 0.2 s" in told["keys"]["why"]
    assert len(looks) == 1
    forever.set()
