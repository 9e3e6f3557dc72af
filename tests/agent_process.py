"""``calliope-agent serve`` as a process of its own, and the other commands beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.doors.processes import until

START_S = 60  # a bound for failures: a busy machine takes seconds
STOP_S = 9
ROOT = Path(__file__).parents[1]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Nothing of the tester's own: every folder lies under ``folder``."""
    (folder / "home").mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "CALLIOPE_CONFIG_DIR": str(folder / "config"),
        "CALLIOPE_RUNTIME_DIR": str(folder / "run"),
        "CALLIOPE_STATE_DIR": str(folder / "state"),
        "CALLIOPE_DATA_DIR": str(folder / "data"),
        "CALLIOPE_PROVIDERS_DIR": str(folder / "operator"),
        "CALLIOPE_AGENT_PORT": "0",
        "CALLIOPE_DRAIN_S": "0.3",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",  # never the tester's own
        **more,
    }


async def command(
    *words: str, environ: Mapping[str, str], given: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """``calliope-agent WORDS``, run to its end."""
    argv = [sys.executable, "-m", "calliope_agent", *words]
    return await asyncio.to_thread(
        subprocess.run, argv, env=dict(environ), input=given, cwd=cwd, capture_output=True, text=True, timeout=START_S
    )


async def program(argv: Sequence[str], *, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Any program, run to its end."""
    return await asyncio.to_thread(
        subprocess.run, argv, env=dict(environ), capture_output=True, text=True, timeout=2 * START_S
    )


class AgentProcess:
    """An async context manager; what the process wrote to standard error is in ``said`` after it was stopped."""

    def __init__(self, environ: Mapping[str, str], *, cwd: Path | None = None) -> None:
        self.environ = dict(environ)
        self._cwd = cwd
        self.said = ""
        self.process: asyncio.subprocess.Process

    @property
    def file(self) -> Path:
        return Path(self.environ["CALLIOPE_RUNTIME_DIR"], "agent.json")

    async def __aenter__(self) -> Self:
        argv = [sys.executable, "-m", "calliope_agent", "serve"]
        self.process = await asyncio.create_subprocess_exec(
            *argv, env=self.environ, cwd=self._cwd, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        self._reading = asyncio.create_task(self._read())

        async def ready() -> bool:
            assert self.process.returncode is None, f"it ended: {self.said}"
            return self.file.exists()

        await until(ready, START_S)
        self.url: str = json.loads(self.file.read_text())["url"]
        token = self.environ.get("CALLIOPE_AGENT_TOKEN") or self.file.with_name("token").read_text().strip()
        self.http = aiohttp.ClientSession(base_url=self.url, headers={"authorization": f"Bearer {token}"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()
        if self.process.returncode is None:
            await self.stop()

    async def stop(self) -> int:
        """SIGTERM; the exit status. Raises `TimeoutError` when it takes longer than `STOP_S`, and kills it then."""
        self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                return await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            await self._reading

    async def health(self) -> dict[str, Any]:
        async with self.http.get("/api/health") as answer:
            told: dict[str, Any] = await answer.json()
            return told

    async def chat(self, model: str = "chat", **more: Any) -> tuple[int, dict[str, Any]]:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        async with self.http.post("/v1/chat/completions", json=body) as answer:
            return answer.status, await answer.json()

    async def lines(self, model: str = "chat", **more: Any) -> AsyncIterator[bytes]:
        """The stream's lines that are not empty, as they come."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True, **more}
        async with self.http.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.strip():
                    yield line.strip()

    def children(self) -> list[int]:
        """Its child processes now."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in found.split()]

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said += line.decode(errors="replace")
