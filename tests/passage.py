"""A stream on its way through whatever stands between a caller and the agent: what no proxy may change about it.

The same three trials serve the launcher's door and the hub's proxy before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.transcripts import last_id, numbered
from tests.upstream import ScriptedProvider, text

CHAT: Mapping[str, Any] = {
    "model": "chat",
    "stream": True,
    "messages": [{"role": "user", "content": "Hello"}],
    "temperature": 1,
}
ACCEPTED = ("*/*", "text/event-stream", "application/json, text/event-stream")
BOUND_S = 10


async def until(answer: aiohttp.ClientResponse, wanted: bytes) -> bytes:
    """What was read up to and with ``wanted``; it must come before the end, and in time."""
    told = b""
    async with asyncio.timeout(BOUND_S):
        while wanted not in told:
            chunk = await answer.content.readany()
            assert chunk, told
            told += chunk
    return told


@dataclass(frozen=True)
class Passage:
    """``root`` is the agent's address as the caller knows it, with its last slash; ``headers`` let the caller in."""

    http: aiohttp.ClientSession
    root: str
    provider: ScriptedProvider
    headers: Mapping[str, str]

    async def brings_each_event_when_it_is_sent(self, accept: str) -> None:
        """The provider sends its second piece only after the first has arrived here."""
        gate = asyncio.Event()
        self.provider.script(text("one", "two").hold(gate, before=1))
        async with self._asked({"accept": accept}) as answer:
            assert answer.status == 200
            assert b'"two"' not in await until(answer, b'"one"')
            gate.set()
            assert b'"two"' in await answer.content.read()

    async def tells_the_provider_of_a_stop(self) -> None:
        self.provider.script(text("word").stall_after(1))
        number = len(self.provider.requests)
        async with self._asked() as answer:
            await until(answer, b'"word"')
        await self.provider.client_gone(number, timeout=2)

    async def lets_a_cut_stream_be_taken_up_again(self) -> None:
        words = [f"word{number}" for number in range(6)]
        gate = asyncio.Event()
        self.provider.script(text(*words).hold(gate, before=3), text(*words))
        calls = self.provider.calls
        resumable = {"x-calliope-resumable": "true"}
        async with self._asked(resumable) as answer:
            stream = answer.headers["x-calliope-stream"]
            kept = numbered(await until(answer, b'"word2"'))
        gate.set()
        lost = {**self.headers, "last-event-id": last_id(kept)}
        async with self.http.get(f"{self.root}v1/streams/{stream}", headers=lost) as rest:
            resumed = numbered(await rest.read())
        async with self._asked(resumable) as answer:
            whole = numbered(await answer.read())
        assert kept + resumed == whole
        assert self.provider.calls - calls == 2

    def _asked(self, more: Mapping[str, str] | None = None) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {**self.headers, **(more or {})}
        return self.http.post(f"{self.root}v1/chat/completions", json=dict(CHAT), headers=headers)
