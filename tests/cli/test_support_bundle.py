"""The support bundle: what is in it, and that no secret is."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.agent_process import command, environment
from tests.agents import ANTHROPIC_KEY, OPENAI_KEY, ServedAgent, chat, pointed_at
from tests.upstream import ScriptedProvider

PERSONS_KEY = "gsk-canary-of-the-person-99aa"


def read(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        return {
            entry.name.partition("/")[2]: opened.read().decode()
            for entry in archive
            if (opened := archive.extractfile(entry)) is not None
        }


async def test_everything_is_in_it_and_no_secret(tmp_path: Path, provider: ScriptedProvider) -> None:
    log = tmp_path / "container.log"
    log.write_text(f"said {OPENAI_KEY} and password=hunter2hunter2, then the last line\n")
    ide_log = tmp_path / "home" / ".calliope-ide" / "logs" / "20261123" / "remoteagent.log"
    ide_log.parent.mkdir(parents=True)
    ide_log.write_text(f"Authorization: Bearer {PERSONS_KEY}\nan IDE's line\n")
    async with ServedAgent(tmp_path, pointed_at(provider)) as agent:
        asked, _, _ = await agent.post("/v1/chat/completions", chat())
        assert asked == 200
        environ = {
            **environment(tmp_path),
            **agent.environ,
            "GROQ_API_KEY": PERSONS_KEY,
            "HUB_TOKEN": "plain-words-only",
        }
        done = await command("support-bundle", str(tmp_path / "b.tar.gz"), "--logs", str(log), environ=environ)
        assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "b.tar.gz")), done.stderr
        tokens = [agent.token, agent.service.tokens.manage.reveal()]
    assert (tmp_path / "b.tar.gz").stat().st_mode & 0o777 == 0o600
    found = read(tmp_path / "b.tar.gz")
    everything = "\n".join(found.values())
    for secret in (OPENAI_KEY, ANTHROPIC_KEY, PERSONS_KEY, "hunter2hunter2", "plain-words-only", *tokens):
        assert secret not in everything
    assert json.loads(found["doctor.json"])["settings"]
    assert json.loads(found["versions.json"])["packages"]["starlette"]
    assert json.loads(found["status.json"])["status"]
    assert json.loads(found["why.json"])["data"][0]["asked"] == "gpt-4o"
    assert "then the last line" in found["container.log"]
    assert "an IDE's line" in found["ide/20261123-remoteagent.log"]
    assert "OPENAI_API_KEY" in found["environment.txt"]
    assert "MiB free" in found["folders.txt"]
    assert "load:" in found["limits.txt"]


async def test_what_cannot_be_had_is_a_line_and_nothing_is_written_over(tmp_path: Path) -> None:
    target = tmp_path / "b.tar.gz"
    words = ("support-bundle", str(target), "--logs", str(tmp_path / "absent.log"))
    assert (await command(*words, environ=environment(tmp_path))).returncode == 0
    found = read(target)
    assert "calliope-agent serve" in found["status.json"]
    assert "No such file" in found["container.log"]
    again = await command(*words, environ=environment(tmp_path))
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").symlink_to(tmp_path / "victim")
    done = await command("support-bundle", str(tmp_path / "b.tar.gz"), environ=environment(tmp_path))
    assert done.returncode == 1
    assert not (tmp_path / "victim").exists()
