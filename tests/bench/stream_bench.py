"""``python -m tests.bench.stream_bench [--quick]``: how late an answer's events are behind a real hub, its proxy and the
launcher, and how soon a Stop is felt by the provider.

The provider writes the moment of sending into each event; provider and client are one process, so one clock measures. The
agent asked directly is the comparison: what the way adds is the difference. Needs what `make e2e` installs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench import lean_upstream
from tests.bench.lean_upstream import HEAD, TAIL
from tests.e2e import needs
from tests.e2e.hub import Hub
from tests.launcher.stack import FAKE_IDE

RESULTS = Path(__file__).parent / "results" / "streams.json"
ACCEPTS = ("*/*", "text/event-stream", "application/json, text/event-stream")
SERVER = "alice-bench"
GAP_S = 0.02
STOPS = 20
SENT = re.compile(rb'"content":\s*"(\d+)"')


class Provider(lean_upstream.Provider):
    """Events that tell when they were sent; where ``stop`` is asked for, one, and then nothing until the caller leaves."""

    count = 0
    left: asyncio.Queue[float]
    _stopped = False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stopped:
            self.left.put_nowait(time.monotonic())
        super().connection_lost(exc)

    def answer(self, rest: bytes) -> None:
        self._stopped = b"please stop" in rest
        self._transport.write(HEAD)
        self._next(1 if self._stopped else self.count)

    def _next(self, number: int) -> None:
        """``number`` events are left."""
        if number:
            delta = {"content": str(time.monotonic_ns())}
            body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            event = (
                f"data: {json.dumps({**body, 'choices': [{'index': 0, 'delta': delta, 'finish_reason': None}]})}\n\n"
            )
            self._transport.write(f"{len(event):x}\r\n{event}\r\n".encode())
            self._timer = asyncio.get_running_loop().call_later(GAP_S, self._next, number - 1)
        elif not self._stopped:
            self._transport.write(TAIL)


@asynccontextmanager
async def instance(provider: str) -> AsyncIterator[tuple[Hub, str]]:
    """Alice's server behind the hub: the agent is real, the IDE a stand-in."""
    tools = needs.find()
    environment = {
        "WAIIDE_IDE_COMMAND": f"{shlex.join([sys.executable, str(FAKE_IDE)])} $SOCKET",
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": provider,
        "CALLIOPE_CHAT_MODEL": "openai/bench",
        "CALLIOPE_CACHE": "off",
    }
    with tempfile.TemporaryDirectory(prefix="cal-bench-") as folder:
        async with Hub(folder=Path(folder), proxy=tools.proxy, environment=environment) as hub:
            yield hub, await hub.spawn("alice", SERVER)


async def measure(count: int) -> dict[str, Any]:
    """Milliseconds: ``late`` by way and Accept, one figure per event, and ``stop``, one per Stop."""
    Provider.count, Provider.left = count, asyncio.Queue()
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, instance(address) as (hub, root), aiohttp.ClientSession() as session:
        owner = {"Authorization": f"token {await hub.token_of('alice')}"}
        async with session.get(f"{root}api/status", headers=owner) as answer:
            port = (await answer.json())["services"]["agent"]["port"]
        token = (hub.runtime_of(SERVER) / "token").read_text().strip()
        ways = {
            "the agent itself": (f"http://127.0.0.1:{port}/", {"Authorization": f"Bearer {token}"}),
            "hub, proxy, launcher": (f"{root}calliope/", owner),
        }
        late, stop = {}, {}
        for way, (base, headers) in ways.items():
            url = f"{base}v1/chat/completions"
            await _lateness(session, url, headers)  # connections are made, code is warm
            late[way] = {accept: await _lateness(session, url, {**headers, "Accept": accept}) for accept in ACCEPTS}
            stop[way] = [await _stop(session, url, headers) for _ in range(STOPS)]
    return {"late": late, "stop": stop}


async def _lateness(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> list[float]:
    found = []
    async with session.post(url, json=_asked("Speak"), headers=headers) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            now = time.monotonic_ns()
            if sent := SENT.search(line):
                found.append((now - int(sent[1])) / 1e6)
    if len(found) != Provider.count:
        raise RuntimeError(f"{len(found)} events of {Provider.count} came")
    return found


async def _stop(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> float:
    async with session.post(url, json=_asked("please stop"), headers=headers) as answer:
        await answer.content.readuntil(b"\n\n")
        began = time.monotonic()
        answer.close()
        return (await asyncio.wait_for(Provider.left.get(), 10) - began) * 1000


def _asked(question: str) -> dict[str, Any]:
    return {"model": "chat", "stream": True, "messages": [{"role": "user", "content": question}]}


def report(told: Mapping[str, Any]) -> str:
    """A run as the README shows it."""
    load = f"a load of {told['load'][0]} to {told['load'][1]} from other work on the machine"
    first = ", over which it had priority" if told["first"] else ""
    return f"Measured {told['when'][:10]} with {load}{first}; {told['events']} events each.\n\n{table(told['figures'])}"


def table(figures: Mapping[str, Any]) -> str:
    lines = ["| what | way | p50, ms | p99, ms | max, ms |", "|---|---|---:|---:|---:|"]
    for way, by_accept in figures["late"].items():
        for accept, values in by_accept.items():
            lines.append(f"| event after its sending, `Accept: {accept}` | {way} | {_row(values)} |")
    for way, values in figures["stop"].items():
        lines.append(f"| Stop until the provider sees it, {len(values)} times | {way} | {_row(values)} |")
    return "\n".join(lines)


def _row(values: Sequence[float]) -> str:
    ordered = sorted(values)
    p99 = f"{ordered[int(len(ordered) * 0.99)]:.1f}" if len(ordered) >= 100 else "-"
    return f"{statistics.median(ordered):.1f} | {p99} | {ordered[-1]:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stream_bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 events each instead of 500")
    count = 100 if parser.parse_args().quick else 500
    load = os.getloadavg()[0]
    figures = asyncio.run(measure(count))
    told = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "first": os.nice(0) < 0,
        "events": count,
        "figures": figures,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(told) + "\n", encoding="utf-8")
    print(report(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
