"""The commands without a server: what they say, and with which status they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calliope_agent.cli import COMMANDS
from tests.agent_process import command, environment


@pytest.mark.parametrize("name", COMMANDS)
async def test_every_command_explains_itself(tmp_path: Path, name: str) -> None:
    done = await command(name, "--help", environ=environment(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: calliope-agent {name}")


async def test_no_command_shows_what_there_is(tmp_path: Path) -> None:
    done = await command(environ=environment(tmp_path))
    assert done.returncode == 2
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("words", [("status",), ("env",), ("token",), ("why",), ("chat", "hello")])
async def test_without_an_agent_one_line_says_how_to_start_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = await command(*words, environ=environment(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "calliope-agent serve" in done.stderr


async def test_doctor_tells_every_setting_and_never_a_key(tmp_path: Path) -> None:
    environ = environment(tmp_path, OPENAI_API_KEY="sk-canary-7f3a9b", CALLIOPE_CHAT_MODLE="x")
    text = await command("doctor", environ=environ)
    assert text.returncode == 0
    assert "CALLIOPE_CHAT_MODLE is not a setting. Did you mean 'CALLIOPE_CHAT_MODEL'?" in text.stdout
    assert "canary" not in text.stdout
    told = json.loads((await command("doctor", "--json", environ=environ)).stdout)
    assert [row["provider"] for row in told["keys"]] == ["openai"]
    assert {row["variable"] for row in told["settings"]} >= {"CALLIOPE_AGENT_PORT", "CALLIOPE_AGENT_TOKEN"}


async def test_doctor_fails_where_something_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("drain_s = 'soon'\n")
    done = await command("doctor", environ=environment(tmp_path) | {"CALLIOPE_DRAIN_S": ""})
    assert done.returncode == 1
    assert "config.toml line 1" in done.stdout


async def test_models_lists_what_could_be_asked(tmp_path: Path) -> None:
    environ = environment(tmp_path, OPENAI_API_KEY="sk-canary-7f3a9b")
    rows = json.loads((await command("models", "--json", environ=environ)).stdout)
    assert {row["provider"] for row in rows} >= {"openai"}
    assert all("canary" not in row["key"] for row in rows)
    every = json.loads((await command("models", "--all", "--json", environ=environ)).stdout)
    assert any(row["key"] == "missing" for row in every)
    table = (await command("models", environ=environ)).stdout
    assert table.splitlines()[0].split()[:2] == ["provider", "model"]
