"""The agent server as a process: how it starts, what it leaves alone, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agent_process import AgentProcess, command, environment
from tests.agents import OPENAI_KEY, pointed_at
from tests.doors.processes import gone, until
from tests.upstream import ScriptedProvider, text


async def test_it_answers_without_litellm(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider, AgentProcess(environment(tmp_path, **pointed_at(provider))) as agent:
        assert (await agent.health())["status"] == "ready"
        assert [line async for line in agent.lines("openai/gpt-4o")][-1] == b"data: [DONE]"
        assert (await agent.health())["components"]["litellm"] == {"state": "not needed yet"}
        assert await agent.stop() == 0
        assert "Traceback" not in agent.said


@pytest.mark.timeout(240)  # litellm's import takes seconds on a quiet machine
async def test_a_dotenv_above_changes_nothing(tmp_path: Path) -> None:
    """litellm, left to itself, looks for one upward from where it is started."""
    folder = tmp_path / "repository" / "deep"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent, tmp_path):
        (place / ".env").write_text("OPENAI_API_KEY=sk-from-a-dotenv\nCALLIOPE_CHAT_MODEL=openai/gpt-4o\n")
    environ = environment(tmp_path, CALLIOPE_PRELOAD="litellm")
    async with AgentProcess(environ, cwd=folder) as agent:

        async def loaded() -> bool:
            return bool((await agent.health())["components"]["litellm"]["state"] == "loaded")

        await until(loaded, 150, 0.2)
        told = await agent.health()
        assert "openai" not in told["components"]["providers"]["usable"]
        assert told["roles"].get("chat", "").partition("/")[0] in ("", "local")
        status, answer = await agent.chat("openai/gpt-4o")
        assert (status, answer["error"]["code"]) == (424, "key_missing")


async def test_a_stop_ends_running_streams_with_a_word(tmp_path: Path) -> None:
    async with ScriptedProvider(text("begun", "never said").stall_after(1)) as provider:
        async with AgentProcess(environment(tmp_path, **pointed_at(provider))) as agent:
            lines = agent.lines("openai/gpt-4o")
            await _until(lines, b"begun")
            stopping = asyncio.create_task(agent.stop())
            rest = [line async for line in lines]
            assert await stopping == 0
        assert json.loads(rest[-1].removeprefix(b"data: "))["error"]["code"] == "server_stopping"
        assert b"data: [DONE]" not in rest
        await provider.client_gone(0)
        assert not agent.file.exists()


async def test_a_stop_lets_a_stream_finish_that_is_about_to(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with ScriptedProvider(text("one", " two").hold(gate, before=1)) as provider:
        environ = environment(tmp_path, **pointed_at(provider)) | {"CALLIOPE_DRAIN_S": "20"}
        async with AgentProcess(environ) as agent:
            lines = agent.lines("openai/gpt-4o")
            await _until(lines, b"one")
            stopping = asyncio.create_task(agent.stop())

            async def stopping_told() -> bool:
                async with agent.http.get("/health") as answer:
                    return bool((await answer.json())["status"] == "stopping")

            await until(stopping_told)
            status, refused = await agent.chat("openai/gpt-4o")
            assert (status, refused["error"]["code"]) == (503, "server_stopping")
            gate.set()
            assert [line async for line in lines][-1] == b"data: [DONE]"
            assert await stopping == 0


async def test_a_stop_does_not_wait_for_an_import(tmp_path: Path) -> None:
    async with AgentProcess(environment(tmp_path, CALLIOPE_PRELOAD="litellm")) as agent:

        async def begun() -> bool:
            return bool((await agent.health())["components"]["litellm"]["state"] != "not needed yet")

        await until(begun)
        assert await agent.stop() == 0
        assert not agent.file.exists()


async def test_a_second_start_says_where_the_first_one_is(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    async with AgentProcess(environ) as agent:
        second = await command("serve", environ=environ)
        assert (second.returncode, second.stdout, second.stderr) == (0, f"already running at {agent.url}\n", "")
        assert agent.file.exists(), "the second start leaves the first one's file alone"


async def test_a_dead_ones_file_does_not_keep_others_from_starting(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    async with AgentProcess(environ) as agent:
        agent.process.kill()
        await agent.process.wait()
        assert agent.file.exists()
        agent.file.rename(agent.file.with_name("left"))
    left = json.loads(agent.file.with_name("left").read_text())
    async with AgentProcess(environ) as again:
        again.file.with_name("left").unlink()
        assert json.loads(again.file.read_text())["pid"] != left["pid"]


async def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await command("serve", "--port", str(port), environ=environment(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"Port {port}" in done.stderr
    assert "CALLIOPE_AGENT_PORT" in done.stderr
    assert not (tmp_path / "run" / "agent.json").exists()


async def test_a_port_nobody_chose_moves_away(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    del environ["CALLIOPE_AGENT_PORT"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8072))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which does as well
        async with AgentProcess(environ) as agent:
            assert agent.url != "http://127.0.0.1:8072"


async def test_our_own_address_is_no_provider(tmp_path: Path) -> None:
    """A terminal of ours has these variables: an agent started in it must not ask itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    own = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "cal-" + "x" * 40}
    environ = environment(tmp_path, **own, CALLIOPE_AGENT_PORT=port)
    async with AgentProcess(environ) as agent:
        status, answer = await agent.chat("openai/gpt-4o")
        assert (status, answer["error"]["code"]) == (424, "key_missing")
        done = await command("doctor", "--json", environ=environ)
        notes = " ".join(json.loads(done.stdout)["notes"])
        assert "OPENAI_API_KEY is this agent's own token" in notes
        assert "OPENAI_BASE_URL" in notes


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_file_that_names_us_makes_no_loop(tmp_path: Path, name: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    token = "cal-" + "y" * 40
    folder = tmp_path / "operator"
    folder.mkdir()
    (folder / "round.toml").write_text(
        f'title = "Round"\nwire = "openai"\nbase_url = "http://{name}:{port}/v1"\nkey_env = ["ROUND_KEY"]\n'
        "key_required = false\n"
    )
    environ = environment(tmp_path, CALLIOPE_AGENT_PORT=port, CALLIOPE_AGENT_TOKEN=token, ROUND_KEY=token)
    async with AgentProcess(environ) as agent:
        status, answer = await agent.chat("round/m")
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        async with agent.http.get("/v1/requests") as listed:
            assert len((await listed.json())["data"]) == 1, "nothing of ours reached ourselves"


async def test_a_bad_variable_is_one_line_that_names_it(tmp_path: Path) -> None:
    done = await command("serve", environ=environment(tmp_path) | {"CALLIOPE_DRAIN_S": "soon"})
    assert done.returncode == 1
    assert done.stderr.startswith("calliope-agent: CALLIOPE_DRAIN_S")
    assert done.stderr.count("\n") == 1


async def test_broken_files_leave_the_rest_working_and_mended_ones_count_at_once(tmp_path: Path) -> None:
    config = tmp_path / "config"
    (config / "providers.d").mkdir(parents=True)
    (config / "config.toml").write_text("drain_s = 'soon'\nchat_modle = 'x'\n")
    (config / "providers.d" / "mine.toml").write_text("title = 'Mine'\nwire = 'openia'\n")
    async with ScriptedProvider() as provider, AgentProcess(environment(tmp_path, **pointed_at(provider))) as agent:
        problems = " ".join((await agent.health())["components"]["providers"]["problems"])
        assert "mine.toml" in problems
        assert (await agent.chat("openai/gpt-4o"))[0] == 200
        assert (await agent.chat("mine/m"))[0] == 404
        (config / "config.toml").write_text("chat_model = 'openai/gpt-4o-mini'\n")
        (config / "providers.d" / "mine.toml").write_text(
            f"title = 'Mine'\nwire = 'openai'\nbase_url = '{provider.base_url}'\nkey_required = false\n"
        )

        async def counted() -> bool:
            told = await agent.health()
            return bool(
                told["roles"]["chat"] == "openai/gpt-4o-mini" and not told["components"]["providers"]["problems"]
            )

        await until(counted)
        assert (await agent.chat("mine/m"))[0] == 200
        await agent.stop()
        assert "chat_model" in agent.said, "the log names the setting that was meant"


async def test_tokens_are_for_their_owner_only(tmp_path: Path) -> None:
    async with AgentProcess(environment(tmp_path)) as agent:
        runtime = agent.file.parent
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (runtime, runtime / "token")}
        assert modes == {runtime.name: 0o700, "token": 0o600}
        assert stat.S_IMODE((runtime / "manage-token").stat().st_mode) == 0o600
        shown = await command("token", environ=agent.environ)
        assert shown.stdout.strip() == (runtime / "token").read_text().strip()


async def test_a_runtime_folder_that_others_could_have_filled_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(real)
    linked = await command("serve", environ=environment(tmp_path) | {"CALLIOPE_RUNTIME_DIR": str(link)})
    assert (linked.returncode, linked.stderr.count("\n")) == (1, 1)
    assert "symlink" in linked.stderr
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    (open_to_all / "token").write_text("cal-" + "planted" * 6)
    open_to_all.chmod(0o777)
    planted = await command("serve", environ=environment(tmp_path) | {"CALLIOPE_RUNTIME_DIR": str(open_to_all)})
    assert (planted.returncode, planted.stderr.count("\n")) == (1, 1)
    assert str(open_to_all) in planted.stderr


async def test_a_stop_leaves_no_process_behind(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        (tmp_path / "config").mkdir()
        environ = environment(tmp_path, **pointed_at(provider))
        async with AgentProcess(environ) as agent:
            await agent.chat("openai/gpt-4o")
            before = agent.children()
            await agent.stop()
            assert all([await gone(pid) for pid in before])
            assert not agent.file.exists()
            assert OPENAI_KEY not in agent.said
    assert {entry.name for entry in (tmp_path / "run").iterdir()} <= {"token", "manage-token"}


async def _until(lines: AsyncIterator[bytes], word: bytes) -> list[bytes]:
    """The lines up to the one that holds ``word``."""
    found: list[bytes] = []
    async for line in lines:
        found.append(line)
        if word in line:
            return found
    raise AssertionError(f"{word!r} is not in {found}")
