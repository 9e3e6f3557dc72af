"""Where a command finds the running agent."""

from __future__ import annotations

from pathlib import Path

from tests.agent_process import command, environment
from tests.agents import ServedAgent


async def test_root_in_a_container_finds_the_agent_that_has_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    async with ServedAgent(tmp_path, {"CALLIOPE_RUNTIME_DIR": str(tmp_path / "run" / "agent")}) as agent:
        done = await command("status", environ=environment(tmp_path))
        assert agent.url in done.stdout, done.stderr
