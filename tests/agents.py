"""A real agent on a real socket, inside the test's own event loop."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from calliope_agent import paths, settings
from calliope_agent.agent import Agent
from calliope_agent.server import Service
from tests.upstream import ScriptedProvider

OPENAI_KEY = "sk-canary-openai-7d1f0a9b3c"
ANTHROPIC_KEY = "sk-ant-canary-anthropic-5e2c8b"

# Short enough for tests, long enough for a busy machine.
QUICK = {
    "CALLIOPE_CONNECT_TIMEOUT_S": "2",
    "CALLIOPE_FIRST_TOKEN_TIMEOUT_S": "20",
    "CALLIOPE_IDLE_TIMEOUT_S": "10",
    "CALLIOPE_DRAIN_S": "0.2",
    # Never the tester's own keyring, nor a stand-in that another test left registered in this process.
    "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
}


class ServedAgent:
    """An async context manager. Folders lie under ``folder``; the environment is exactly ``environ`` and what `QUICK` says."""

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.environ = {
            "HOME": str(folder / "home"),
            "CALLIOPE_RUNTIME_DIR": str(folder / "run"),
            "CALLIOPE_STATE_DIR": str(folder / "state"),
            "CALLIOPE_PROVIDERS_DIR": str(folder / "operator"),
            **QUICK,
            **(environ or {}),
        }
        self.folder = folder

    async def __aenter__(self) -> Self:
        loaded = settings.load(self.environ)
        place = paths.find(self.environ, loaded.settings)
        paths.private(place.runtime)
        bound = socket.socket(proto=socket.IPPROTO_TCP)  # without it asyncio leaves Nagle on: 40 ms an answer
        bound.bind(("127.0.0.1", 0))
        self.service = Service(self.environ, loaded, place, bound)
        await self.service.start()
        self.http = aiohttp.ClientSession(base_url=self.service.url, headers=self.authorization())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()
        await self.service.stop()

    @property
    def agent(self) -> Agent:
        return self.service.agent

    @property
    def url(self) -> str:
        return self.service.url

    @property
    def token(self) -> str:
        return self.service.tokens.complete.reveal()

    def authorization(self, *, manage: bool = False) -> dict[str, str]:
        shown = self.service.tokens.manage if manage else self.service.tokens.complete
        return {"authorization": f"Bearer {shown.reveal()}"}

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, str, Mapping[str, str]]:
        """Status, whole text and headers of one POST."""
        async with self.http.post(path, json=body, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.http.get(path, headers=headers) as answer:
            return answer.status, await answer.json()


def pointed_at(provider: ScriptedProvider, **more: str) -> dict[str, str]:
    """The environment of an operator whose OpenAI and Anthropic are the scripted provider."""
    return {
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API_KEY": OPENAI_KEY,
        "ANTHROPIC_BASE_URL": provider.origin,
        "ANTHROPIC_API_KEY": ANTHROPIC_KEY,
        **more,
    }


def chat(stream: bool = False, model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}


def message(stream: bool = False, model: str = "claude-sonnet-4-5", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}
