"""A secret of every source, the whole fault matrix, and then a look everywhere: no secret stands anywhere it does not belong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from calliope_agent.redact import Redactor
from tests.agent_process import AgentProcess, command, environment
from tests.doors.processes import until
from tests.upstream import (
    Answer,
    Request,
    ScriptedProvider,
    done_only,
    error_event,
    hang_up,
    html,
    malformed,
    nothing,
    raw,
    reset,
    status,
    text,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEYS = {
    "variable": "sk-canary-variable-4b1d7f20a6",
    "mounted": "canaryMountedSecretWithoutAnyPrefix77",
    "file": "gsk_canaryFileOfTheOperator0123456789",
    "command": "xai-canary-command-5566778899aabb",
    "stored": "hf_canaryStoredByThePerson9988776655",
}
OTHERS = {
    "CALLIOPE_AGENT_TOKEN": "cal-canary-complete-0123456789abcdef",
    "CALLIOPE_MANAGE_TOKEN": "cal-canary-manage-0123456789abcdef",
    "CALLIOPE_METRICS_TOKEN": "cal-canary-metrics-0123456789abcdef",
    "CALLIOPE_KEYS_PASSPHRASE": "canary-passphrase-of-the-vault",
    "AWS_SECRET_ACCESS_KEY": "canaryAwsSecretAccessKey/0123456789+abc",
    "JUPYTERHUB_API_TOKEN": "canary0hub0token0123456789abcdef",
}
SECRETS = (*KEYS.values(), *OTHERS.values())
PROVIDERS = {"variable": "openai", "mounted": "mistral", "file": "vaulted", "command": "printed", "stored": "mine"}
FAULTS: tuple[Answer, ...] = (
    *(status(code).echoing_key() for code in (400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529)),
    status(301, headers={"location": "http://127.0.0.1:9/?key=" + KEYS["variable"]}),
    error_event(401).echoing_key(),
    error_event(500).echoing_key(),
    text("a").then_error(503).echoing_key(),
    text("a").cut_after(1),
    text("a").drop_after(1),
    text("a").with_headers({"x-goog-api-key": KEYS["variable"], "set-cookie": f"key={KEYS['mounted']}"}),
    raw(json.dumps({"error": " and ".join(SECRETS)}).encode(), status_code=400),
    raw(json.dumps({"detail": [{"msg": f"Bearer {KEYS['file']}"}]}).encode(), status_code=422),
    raw(f"<html>{KEYS['command']}</html>".encode(), "text/html"),
    raw(KEYS["stored"].encode(), "text/plain", 500),
    html(),
    malformed(),
    done_only(),
    nothing(),
    hang_up(),
    reset(),
)  # fmt: skip


def by_name(request: Request) -> Answer:
    """The model's name says which fault it has: so no two share a breaker."""
    word = str(request.json.get("model", "")).rpartition("-")[2]
    return FAULTS[int(word)] if word.isdigit() and int(word) < len(FAULTS) else text("fine")


def prepare(folder: Path, provider: ScriptedProvider) -> dict[str, str]:
    operator = folder / "operator"
    operator.mkdir()
    for name in ("mounted", "file", "command"):
        (folder / name).write_text(KEYS[name] + "\n")
        (folder / name).chmod(0o600)
    script = folder / "print-key"
    script.write_text(f"env > {folder}/child-environment\ncat {folder}/command\n")
    plain = f'wire = "openai"\nbase_url = "{provider.base_url}"\ncheck = "GET /models"\n'
    (operator / "vaulted.toml").write_text(f'title = "Vaulted"\n{plain}key_file = "{folder}/file"\n')
    (operator / "printed.toml").write_text(f'title = "Printed"\n{plain}key_command = ["/bin/sh", "{script}"]\n')
    return environment(
        folder,
        **OTHERS,
        OPENAI_API_KEY=KEYS["variable"],
        OPENAI_BASE_URL=provider.base_url,
        MISTRAL_API_KEY_FILE=str(folder / "mounted"),
        MISTRAL_BASE_URL=provider.base_url,
        LOG_LEVEL="DEBUG",
        CALLIOPE_MAX_ATTEMPTS="1",
        CALLIOPE_CACHE="all",
        PYTHONFAULTHANDLER="1",
    )


def found(sink: str, content: str) -> Iterator[str]:
    """Secrets in a text, beginnings too: "the first half of the key" is a leak."""
    for secret in SECRETS:
        if secret in content or secret[: len(secret) // 2] in content:
            yield f"{secret[:16]}... in {sink}"


async def answers(agent: AgentProcess) -> AsyncIterator[tuple[str, str]]:
    """Every fault of every key, whole and streamed; then the same of another wire, which is translated."""
    for provider in PROVIDERS.values():
        for number in range(len(FAULTS)):
            for stream in (False, True):
                body: dict[str, Any] = {
                    "model": f"{provider}/fault-{number}",
                    "messages": [{"role": "user", "content": "hi"}],
                }
                yield await posted(agent, "/v1/chat/completions", body | {"stream": stream})
        yield await posted(agent, f"/api/providers/{provider}/check", {})
    for number in range(len(FAULTS)):
        asked = {"model": f"mine/fault-{number}", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        yield await posted(agent, "/v1/messages", asked)


async def posted(agent: AgentProcess, path: str, body: Any) -> tuple[str, str]:
    manage = {"authorization": f"Bearer {OTHERS['CALLIOPE_MANAGE_TOKEN']}"}
    try:
        async with agent.http.post(path, json=body, headers=manage) as answer:
            return f"{path} {body}", f"{answer.raw_headers!r} {await answer.text()}"
    except aiohttp.ClientPayloadError:
        return path, ""


async def told(agent: AgentProcess) -> AsyncIterator[tuple[str, str]]:
    manage = {"authorization": f"Bearer {OTHERS['CALLIOPE_MANAGE_TOKEN']}"}
    paths = ("/", "/api/settings", "/api/providers", "/api/providers/mine", "/api/usage", "/api/cache", "/api/health",
             "/health", "/metrics", "/openapi.json", "/v1/models", "/v1/requests?limit=500", "/v1/requests/nobody")  # fmt: skip
    for path in paths:
        async with agent.http.get(path, headers=manage) as answer:
            yield path, f"{answer.raw_headers!r} {await answer.text()}"


def processes() -> Iterator[tuple[str, str]]:
    """What ``ps`` shows: command lines of everybody, and the environments of the agent's children."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield f"ps {entry.name}", (entry / "cmdline").read_bytes().decode(errors="replace")


def files(folder: Path) -> Iterator[tuple[str, str]]:
    """All that was written, but the files that hold a secret by the operator's will."""
    given = {folder / name for name in ("mounted", "file", "command")}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path not in given:
            yield str(path), path.read_bytes().decode("latin-1")


async def said_by_commands(environ: dict[str, str]) -> AsyncIterator[tuple[str, str]]:
    for words in (
        ["doctor"],
        ["doctor", "--json"],
        ["status"],
        ["models", "--all"],
        ["keys", "list"],
        ["providers", "list", "--json"],
        ["providers", "show", "openai"],
        ["providers", "check", "mine"],
        ["why"],
    ):
        done = await command(*words, environ=environ)
        yield " ".join(words), done.stdout + done.stderr


async def test_no_secret_stands_where_it_does_not_belong(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.respond(by_name)
        environ = prepare(tmp_path, provider)
        added = await command("providers", "add", "mine", "--base-url", provider.base_url, environ=environ)
        assert added.returncode == 0, added.stderr
        stored = await command("keys", "set", "mine", environ=environ, given=KEYS["stored"] + "\n")
        assert stored.returncode == 0, stored.stderr
        leaks = [*found("keys set", stored.stdout + stored.stderr)]
        async with AgentProcess(environ) as agent:
            async for sink, content in answers(agent):
                leaks += found(sink, content)
            used = {request.headers.get("authorization", "") for request in provider.requests}
            assert used == {f"Bearer {key}" for key in KEYS.values()}, "every key was really used"
            async for sink, content in told(agent):
                leaks += found(sink, content)
            running = environ | {"CALLIOPE_AGENT_URL": agent.url}
            async for sink, content in said_by_commands(running):
                leaks += found(sink, content)
            for sink, content in processes():
                leaks += found(sink, content)
            await _crashed(agent)
            leaks += found("the log", agent.said)
            assert "DEBUG" in agent.said or "INFO" in agent.said
        for sink, content in files(tmp_path):
            leaks += found(sink, content)
    assert (tmp_path / "child-environment").exists(), "the key command ran"
    assert leaks == []


async def _crashed(agent: AgentProcess) -> None:
    """A fault that ends the process: its report goes to the log, and no memory goes to a file."""
    pid = agent.process.pid
    limits = await asyncio.to_thread(Path(f"/proc/{pid}/limits").read_text)
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4] == "0"
    os.kill(pid, signal.SIGSEGV)
    await asyncio.wait_for(agent.process.wait(), 30)

    async def reported() -> bool:
        return "Segmentation fault" in agent.said

    await until(reported, 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALLIOPE_METRICS_TOKEN", "canary secret with spaces"),
        ("CALLIOPE_AGENT_TOKEN", "canary-too-short"[:15]),
        ("CALLIOPE_MANAGE_TOKEN", "canary\x7fsecret-0123456789"),
    ],
)
async def test_a_start_that_fails_over_a_secret_does_not_repeat_it(tmp_path: Path, name: str, value: str) -> None:
    done = await command("serve", environ=environment(tmp_path, **{name: value}))
    assert done.returncode == 1
    assert name in done.stderr
    assert "canary" not in done.stdout + done.stderr


def test_this_test_would_find_a_leak() -> None:
    assert list(found("here", f"so: {KEYS['mounted']}"))
    assert list(found("here", f"so: {KEYS['mounted'][:20]}"))
    assert not list(found("here", Redactor().scrub("nothing")))
