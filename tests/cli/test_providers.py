"""``providers``, ``cache`` and ``token rotate``: with a running agent it is asked, without one the files are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from calliope_agent.cli import main
from tests.agents import ServedAgent, chat, pointed_at
from tests.upstream import ScriptedProvider, status


def alone(folder: Path) -> dict[str, str]:
    return {
        "HOME": str(folder / "home"),
        "CALLIOPE_RUNTIME_DIR": str(folder / "run"),
        "CALLIOPE_STATE_DIR": str(folder / "state"),
        "CALLIOPE_PROVIDERS_DIR": str(folder / "operator"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }


async def run(environ: Mapping[str, str], *words: str) -> int:
    """In a thread: the agent that is asked runs in this loop."""
    return await asyncio.to_thread(main, words, environ)


def test_without_an_agent_the_files_are_written_and_read(tmp_path: Path, capsys: Any) -> None:
    environ = alone(tmp_path)
    assert main(["providers", "show", "mine"], environ) == 1
    assert "no provider 'mine'" in capsys.readouterr().err
    assert main(["providers", "add", "mine", "--base-url", "http://127.0.0.1:9/v1", "--no-key"], environ) == 0
    assert main(["providers", "list"], environ) == 0
    assert "mine" in capsys.readouterr().out
    assert main(["providers", "check", "mine"], environ) == 1
    assert "mine: unreachable" in capsys.readouterr().out
    assert main(["providers", "rm", "mine"], environ) == 0
    assert main(["providers", "rm", "mine"], environ) == 1
    assert main(["providers", "add", "openai", "--base-url", "https://evil.example/v1"], environ) == 1
    assert "taken" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "A", "x" * 100, ""])
def test_a_tricky_name_writes_nothing(tmp_path: Path, name: str, capsys: Any) -> None:
    environ = alone(tmp_path)
    assert main(["providers", "add", name, "--base-url", "https://x.example/v1"], environ) == 1
    assert capsys.readouterr().err.startswith("calliope-agent: ")
    assert not (tmp_path / "home" / ".config" / "calliope-agent" / "config.toml").exists()


async def test_a_running_agent_is_asked(provider: ScriptedProvider, tmp_path: Path, capsys: Any) -> None:
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        environ = agent.environ
        assert await run(environ, "providers", "check", "openai") == 0
        assert "scripted-model" in capsys.readouterr().out
        provider.script(status(401), on="models")
        assert await run(environ, "providers", "check", "openai") == 1
        assert "openai: rejected" in capsys.readouterr().out
        added = ("providers", "add", "mine", "--base-url", provider.base_url, "--model", "scripted-model", "--no-key")
        assert await run(environ, *added) == 0
        assert await run(environ, "providers", "show", "mine") == 0
        assert "scripted-model" in capsys.readouterr().out
        code, _, _ = await agent.post("/v1/chat/completions", chat(model="mine/scripted-model"))
        assert code == 200
        assert await run(environ, "providers", "rm", "mine") == 0


async def test_a_token_is_rotated_in_the_running_agent(provider: ScriptedProvider, tmp_path: Path, capsys: Any) -> None:
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        old = agent.token
        assert await run(agent.environ, "token", "rotate") == 0
        assert old not in capsys.readouterr().out
        assert agent.token != old
        assert (await agent.get("/v1/models", authorization=f"Bearer {old}"))[0] == 401
        assert await run(agent.environ, "token") == 0
        assert capsys.readouterr().out.strip() == agent.token
        manage = agent.service.tokens.manage
        assert await run(agent.environ, "token", "rotate", "--manage") == 0
        assert agent.service.tokens.manage != manage
        assert await run(agent.environ, "providers", "list") == 0


def test_a_token_is_rotated_in_the_files(tmp_path: Path, capsys: Any) -> None:
    environ = alone(tmp_path)
    assert main(["token", "rotate"], environ) == 0
    first = (tmp_path / "run" / "token").read_text()
    assert main(["token", "rotate"], environ) == 0
    assert (tmp_path / "run" / "token").read_text() != first
    assert first.strip() not in capsys.readouterr().out
    assert main(["token", "rotate"], environ | {"CALLIOPE_AGENT_TOKEN": "cal-given-by-the-operator"}) == 1
    assert "CALLIOPE_AGENT_TOKEN" in capsys.readouterr().err


async def test_cache_is_counted_and_cleared_with_and_without_an_agent(
    provider: ScriptedProvider, tmp_path: Path, capsys: Any
) -> None:
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        await agent.post("/v1/chat/completions", chat(temperature=0))
        await asyncio.gather(*agent.agent.keeper.writing)
        assert await run(agent.environ, "cache", "stats") == 0
        assert capsys.readouterr().out.startswith("1 answers")
    assert await run(agent.environ, "cache", "stats") == 0
    assert capsys.readouterr().out.startswith("1 answers")
    assert await run(agent.environ, "cache", "clear") == 0
    assert capsys.readouterr().out == "1 answers forgotten.\n"


def test_a_named_agent_that_is_away_is_an_error_and_no_file_is_touched(tmp_path: Path, capsys: Any) -> None:
    away = {"CALLIOPE_AGENT_URL": "http://127.0.0.1:9", "CALLIOPE_MANAGE_TOKEN": "cal-0123456789abcdef"}
    environ = alone(tmp_path) | away
    assert main(["providers", "add", "mine", "--base-url", "https://x.example/v1"], environ) == 1
    assert "not running" in capsys.readouterr().err
    assert main(["token", "rotate"], environ) == 1
    assert not (tmp_path / "home").exists()
