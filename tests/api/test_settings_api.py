"""``/api/settings``: what is refused and why, what is written and how, what is shown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.agents import ANTHROPIC_KEY, OPENAI_KEY, ServedAgent, chat, pointed_at
from tests.shut import shut
from tests.upstream import ScriptedProvider, text

SETTINGS = "/api/settings"
HAND_WRITTEN = """\
# my settings
cache_ttl_s = 60  # a minute

[providers.mine]  # at home
title = "Mine"
wire = "openai"
base_url = "http://127.0.0.1:9/v1"
"""


def config(agent: ServedAgent) -> Path:
    return agent.agent.paths.config_file


def written(agent: ServedAgent) -> str | None:
    return config(agent).read_text() if config(agent).exists() else None


async def patch(agent: ServedAgent, body: Any, *, manage: bool = True, raw: bytes | None = None) -> tuple[int, Any]:
    data = io.BytesIO(raw if raw is not None else json.dumps(body).encode())
    headers = agent.authorization(manage=manage) | {"content-type": "application/json"}
    async with agent.http.patch(SETTINGS, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


async def rows(agent: ServedAgent) -> dict[str, Any]:
    _, told = await agent.get(SETTINGS)
    return {row["name"]: row for row in told["settings"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"no_such_thing": 1}, "no_such_thing"),
        ({"chat_modle": "openai/gpt-4o"}, "chat_modle"),
        ({"cache_ttl_s": "60"}, "cache_ttl_s"),
        ({"cache_ttl_s": True}, "cache_ttl_s"),
        ({"cache_ttl_s": -1}, "cache_ttl_s"),
        ({"cache_ttl_s": 1e12}, "cache_ttl_s"),
        ({"max_attempts": 1.5}, "max_attempts"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"fallback_on_refusal": "true"}, "fallback_on_refusal"),
        ({"cache": "sometimes"}, "cache"),
        ({"cache": ["on"]}, "cache"),
        ({"chat_model": 7}, "chat_model"),
        ({"chat_model": "openai/gpt 4"}, "chat_model"),
        ({"chat_model": "x" * 10_000_000}, "chat_model"),
        ({"chat_model": "gtp-4o"}, "chat_model"),
        ({"local_model": "x" * 10_000_000}, "local_model"),
        ({"local_model": "a\nchat_model = 'evil'"}, "local_model"),
        ({"fallbacks": "openai/gpt-4o"}, "fallbacks"),
        ({"fallbacks": ["openai/gpt-4o,anthropic/x"]}, "fallbacks"),
        ({"fallbacks": ["openai/gpt-4o", 3]}, "fallbacks"),
        ({"fallbacks": ["openai/gpt-4o"] * 1000}, "fallbacks"),
        ({"fallbacks": [""]}, "fallbacks"),
        ({"fallbacks": ["nobody/nothing"]}, "fallbacks"),
        ({"model_aliases": {"claude-*": 1}}, "model_aliases"),
        ({"model_aliases": {"claude-*=x": "chat"}}, "model_aliases"),
        ({"model_aliases": ["chat"]}, "model_aliases"),
        ({"model_fallbacks": {"openai/gpt-4o": "openai/gpt-4o-mini"}}, "model_fallbacks"),
        ({"model_fallbacks": {"openai/gpt-4o": ["nobody/nothing"]}}, "model_fallbacks"),
        ({"x" * 10_000_000: 1}, "x" * 60),
        ({"max_attempts": 5, "cache": "never"}, "cache"),
    ],
)
async def test_a_wrong_body_names_its_field_and_changes_nothing(agent: ServedAgent, body: Any, field: str) -> None:
    config(agent).parent.mkdir(parents=True)
    config(agent).write_text(HAND_WRITTEN)
    status, told = await patch(agent, body)
    assert status == 400
    assert told["error"]["param"] == field
    assert len(told["error"]["message"]) < 2000
    assert written(agent) == HAND_WRITTEN


@pytest.mark.parametrize(
    "name",
    ["providers_dir", "user_keys", "require_key_separation", "keys_passphrase", "agent_token", "manage_token",
     "metrics_token", "config_dir", "runtime_dir", "agent_url"],
)  # fmt: skip
async def test_what_is_the_operators_is_refused_with_the_reason(agent: ServedAgent, name: str) -> None:
    status, told = await patch(agent, {name: "override"})
    assert (status, told["error"]["code"], told["error"]["param"]) == (409, "conflict", name)
    assert "environment variable" in told["error"]["message"]
    assert written(agent) is None


@pytest.mark.parametrize("raw", [b"[]", b"7", b'{"cache": "on",}', b"", b'{"cache": "\xff"}'])
async def test_no_json_object_is_refused(agent: ServedAgent, raw: bytes) -> None:
    status, _ = await patch(agent, None, raw=raw)
    assert status == 400
    assert written(agent) is None


async def test_the_environment_comes_first_and_says_so(provider: ScriptedProvider, tmp_path: Path) -> None:
    async with ServedAgent(tmp_path, pointed_at(provider, CALLIOPE_CACHE="off")) as agent:
        status, told = await patch(agent, {"cache": "on"})
        assert status == 409
        assert "CALLIOPE_CACHE" in told["error"]["message"]
        row = (await rows(agent))["cache"]
        assert row["value"] == "off"
        assert row["source"] == {"kind": "environment", "where": "CALLIOPE_CACHE"}
        assert row["changeable"] is False
        assert "CALLIOPE_CACHE" in row["why_not"]


async def test_the_complete_token_may_look_and_not_change(agent: ServedAgent) -> None:
    assert (await agent.get(SETTINGS))[0] == 200
    status, told = await patch(agent, {"max_attempts": 5}, manage=False)
    assert (status, told["error"]["code"]) == (403, "forbidden")
    assert written(agent) is None


async def test_a_broken_file_is_not_overwritten(agent: ServedAgent) -> None:
    config(agent).parent.mkdir(parents=True)
    config(agent).write_text("cache = [\n")
    status, told = await patch(agent, {"max_attempts": 5})
    assert status == 409
    assert "config.toml" in told["error"]["message"]
    assert written(agent) == "cache = [\n"
    assert (await rows(agent))["max_attempts"]["changeable"] is False


async def test_a_link_is_not_followed(agent: ServedAgent, tmp_path: Path) -> None:
    config(agent).parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text("")
    config(agent).symlink_to(elsewhere)
    status, _ = await patch(agent, {"max_attempts": 5})
    assert status == 409
    assert elsewhere.read_text() == ""


async def test_a_change_keeps_comments_and_order_and_counts_at_once(agent: ServedAgent) -> None:
    config(agent).parent.mkdir(parents=True)
    config(agent).write_text(HAND_WRITTEN)
    status, told = await patch(agent, {"cache_ttl_s": 120, "chat_model": "openai/gpt-4o-mini", "fallbacks": ["gpt-4o"]})
    assert status == 200
    assert written(agent) == HAND_WRITTEN.replace(
        "cache_ttl_s = 60  # a minute\n",
        'cache_ttl_s = 120  # a minute\nchat_model = "openai/gpt-4o-mini"\nfallbacks = ["gpt-4o"]\n',
    )
    row = next(row for row in told["settings"] if row["name"] == "chat_model")
    assert row["value"] == "openai/gpt-4o-mini"
    assert row["source"]["kind"] == "file"
    assert row["source"]["where"].endswith("config.toml line 3")
    _, _, headers = await agent.post("/v1/chat/completions", chat(model="chat"))
    assert headers["x-calliope-target"] == "openai/gpt-4o-mini"
    assert config(agent).stat().st_mode & 0o777 == 0o600


async def test_null_takes_a_setting_back_to_its_default(agent: ServedAgent) -> None:
    await patch(agent, {"max_attempts": 5, "model_aliases": {"claude-*": "chat"}})
    assert (await rows(agent))["max_attempts"]["value"] == 5
    await patch(agent, {"max_attempts": None, "model_aliases": None, "cache": None})
    assert (await rows(agent))["max_attempts"]["value"] == 3
    assert (written(agent) or "").strip() == ""


async def test_the_store_of_answers_follows_the_setting(agent: ServedAgent) -> None:
    assert (await agent.get("/api/cache"))[1]["where"] == "disk"
    await patch(agent, {"store_content": False})
    assert (await agent.get("/api/cache"))[1]["where"] == "memory"


async def test_secrets_are_never_shown(provider: ScriptedProvider, tmp_path: Path) -> None:
    canaries = {
        "CALLIOPE_AGENT_TOKEN": "cal-canary-complete-1234567890",
        "CALLIOPE_MANAGE_TOKEN": "cal-canary-manage-1234567890",
        "CALLIOPE_METRICS_TOKEN": "cal-canary-metrics-1234567890",
        "CALLIOPE_KEYS_PASSPHRASE": "canary-passphrase-1234567890",
    }
    async with ServedAgent(tmp_path, pointed_at(provider, **canaries)) as agent:
        for path in (SETTINGS, "/api/providers", "/api/usage", "/api/cache", "/openapi.json", "/metrics"):
            async with agent.http.get(path) as answer:
                assert answer.status == 200
                text = await answer.text()
            for secret in (*canaries.values(), OPENAI_KEY, ANTHROPIC_KEY):
                assert secret not in text
        row = (await rows(agent))["keys_passphrase"]
        assert (row["value"], row["set"], row["secret"]) == (None, True, True)


async def test_a_home_that_is_away_stops_no_request(agent: ServedAgent, provider: ScriptedProvider) -> None:
    """A network file system has its moments: the last good state is kept, and what would be written is refused."""
    config(agent).parent.mkdir(parents=True, exist_ok=True)
    config(agent).write_text(HAND_WRITTEN)
    provider.script(text("first"), text("away"), text("back"))
    assert (await agent.post("/v1/chat/completions", chat()))[0] == 200
    assert (await patch(agent, {"cache_ttl_s": 61}))[0] == 200
    with shut(config(agent).parent):
        await agent.agent.refresh(now=True)
        assert (await agent.post("/v1/chat/completions", chat()))[0] == 200
        assert agent.agent.settings.cache_ttl_s == 61
        told = (await patch(agent, {"cache_ttl_s": 62}))[1]["error"]
        assert "Permission denied" in told["message"]
    await agent.agent.refresh(now=True)
    assert (await agent.post("/v1/chat/completions", chat()))[0] == 200
