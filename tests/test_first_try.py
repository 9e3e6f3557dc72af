"""The README's first try, with the real model: curl, both SDKs and the commands against the real process."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agent_process import AgentProcess, command, environment, program
from tests.doors.processes import gone, until
from tests.local_weights import smollm2_folder

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow, pytest.mark.xdist_group("smollm2")]

# A minute or more of decoding.
LONG = {"max_tokens": 4000, "ignore_eos": True}
OPENAI = """
from openai import OpenAI
texts, usage = [], None
for chunk in OpenAI(max_retries=0).chat.completions.create(
    model="chat", stream=True, stream_options={"include_usage": True}, max_tokens=24,
    messages=[{"role": "user", "content": "Count from one to ten."}],
):
    texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    usage = chunk.usage or usage
print(len(texts), usage.completion_tokens, repr("".join(texts)))
"""
ANTHROPIC = """
from anthropic import Anthropic
texts = []
with Anthropic(max_retries=0).messages.stream(
    model="chat", max_tokens=24, messages=[{"role": "user", "content": "Count from one to ten."}]
) as stream:
    texts += stream.text_stream
    final = stream.get_final_message()
print(len(texts), final.usage.output_tokens, repr("".join(texts)))
"""


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    environ = environment(tmp_path) | {"CALLIOPE_DATA_DIR": str(smollm2_folder())}
    async with AgentProcess(environ) as running:
        yield running


async def tools(agent: AgentProcess) -> dict[str, str]:
    """What `eval "$(calliope-agent env)"` would set in a shell."""
    told = await command("env", "--json", environ=agent.environ)
    return {**agent.environ, **json.loads(told.stdout)}


async def test_curl_streams_token_by_token(agent: AgentProcess) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shell = (
        f'eval "$({shlex.quote(sys.executable)} -m calliope_agent env)"; curl -sN "$OPENAI_BASE_URL/chat/completions" '
        '-H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" '
        """-d '{"model": "chat", "stream": true, "max_tokens": 24, "messages": [{"role": "user", "content": "Say hello."}]}'"""
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", shell, env=agent.environ, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines = [(time.monotonic(), line.strip()) async for line in process.stdout if line.strip()]
    assert await process.wait() == 0
    assert lines[-1][1] == b"data: [DONE]"
    content = [when for when, line in lines if b'"content":"' in line.replace(b": ", b":")]
    assert len(content) > 3
    assert content[-1] > content[0], "it came in pieces, not at once"


@pytest.mark.parametrize("code", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
async def test_the_sdk_streams_with_usage(agent: AgentProcess, code: str) -> None:
    done = await program([sys.executable, "-c", code], environ=await tools(agent))
    assert done.returncode == 0, done.stderr
    pieces, tokens, text = done.stdout.split(" ", 2)
    assert int(pieces) > 3
    assert int(tokens) > 3
    assert len(text) > 10


async def test_the_commands_tell_what_happened(agent: AgentProcess) -> None:
    asked = await command("chat", "--max-tokens", "16", environ=agent.environ, given="What is the capital of France?")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.strip()
    status = json.loads((await command("status", "--json", environ=agent.environ)).stdout)
    assert status["status"] == "ready"
    assert status["roles"]["chat"].startswith("local/")
    listed = json.loads((await command("models", "--json", environ=agent.environ)).stdout)
    assert [row["provider"] for row in listed if "chat" in row["roles"]] == ["local"]
    why = json.loads((await command("why", "--json", environ=agent.environ)).stdout)
    (record,) = why["data"]
    assert (record["asked"], record["outcome"]) == ("chat", "complete")
    story = (await command("why", record["id"], environ=agent.environ)).stdout
    assert "attempt 1: local/" in story
    doctor = await command("doctor", "--json", environ=agent.environ)
    assert doctor.returncode == 0
    told = json.loads(doctor.stdout)
    assert told["wrong"] == []
    sources = {row["variable"]: row["source"] for row in told["settings"]}
    assert sources["CALLIOPE_DRAIN_S"] == "CALLIOPE_DRAIN_S"
    assert sources["LOG_LEVEL"] == "default"


async def test_a_stop_ends_the_models_process_too(agent: AgentProcess) -> None:
    lines = agent.lines(
        "chat", max_tokens=2000, messages=[{"role": "user", "content": "Count from one to a thousand."}]
    )
    seen = [await anext(lines) for _ in range(5)]
    children = agent.children()
    assert children, "the model runs as a child"
    stopping = asyncio.create_task(agent.stop())
    rest = [line async for line in lines]
    assert await stopping == 0
    assert json.loads([*seen, *rest][-1].removeprefix(b"data: "))["error"]["code"] == "server_stopping"
    assert all([await gone(pid) for pid in children])


async def test_who_leaves_stops_the_decoding(agent: AgentProcess) -> None:
    lines = agent.lines(
        "chat", max_tokens=4000, messages=[{"role": "user", "content": "Count from one to a thousand."}]
    )
    for _ in range(5):
        await anext(lines)
    await lines.aclose()  # type: ignore[attr-defined]  # an async generator

    async def idle() -> bool:
        return bool((await agent.health())["streams"] == 0)

    await until(idle)
    used = [_cpu_ticks(pid) for pid in agent.children()]

    async def at_rest() -> bool:
        before = [_cpu_ticks(pid) for pid in agent.children()]
        await asyncio.sleep(0.5)
        return [_cpu_ticks(pid) for pid in agent.children()] == before

    await until(at_rest)
    assert used, "the child lives on for the next question"


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
