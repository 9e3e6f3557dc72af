"""Many requests, random faults: ``python -m tests.faults.soak [--requests 10000] [--at-once 20] [--seed 1]``.

Each request must end in exactly one of {verified answer, typed error}. Afterwards no task, no socket and no file descriptor is
left, and the memory is what it was after the warm-up (a tenth of the requests), give or take 10 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.agents import ServedAgent, chat, message, pointed_at
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
    reasoning,
    reset,
    status,
    text,
    tool_call,
)

HELLO = text("Hel", "lo", " you")
FAULTS: tuple[Answer, ...] = (
    HELLO,
    HELLO,
    HELLO,
    reasoning("hm") + HELLO,
    tool_call("read", '{"path":', '"a"}'),
    tool_call("read", '{"path":'),
    HELLO.cut_after(1),
    HELLO.drop_after(2),
    HELLO.reset_after(1),
    HELLO.garble_after(1),
    HELLO.without_finish(),
    HELLO.then_error(503),
    HELLO.finish_with("stop", times=2),
    HELLO.splitting(7),
    done_only(),
    nothing(),
    html(),
    malformed(),
    error_event(529),
    hang_up(),
    reset(),
    status(400),
    status(401),
    status(404),
    status(429, headers={"Retry-After": "0"}),
    status(500),
    status(529),
)
LEAVES = 0.05


@dataclass(slots=True)
class Result:
    """Outcomes by name, and what was left over."""

    outcomes: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    tasks: tuple[int, int] = (0, 0)
    descriptors: tuple[int, int] = (0, 0)
    memory_mib: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0


def verdict(path: str, stream: bool, code: int, body: str) -> str:
    """The outcome's name; begins with "strange" where it is neither a verified answer nor a typed error."""
    if code != 200:
        return _typed(json.loads(body).get("error"), "error")
    if not stream:
        told = json.loads(body)
        finish = told.get("stop_reason") if "messages" in path else told["choices"][0]["finish_reason"]
        return "verified" if finish else "strange: plain without a finish"
    events = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
    last = events[-1] if events else ""
    ended = last == "[DONE]" if "chat" in path else '"message_stop"' in last
    failed = '"error"' in last
    if ended and not failed and any('"finish_reason":"' in one or '"stop_reason":"' in one for one in _tight(events)):
        return "verified"
    return _typed(json.loads(last).get("error"), "error event") if failed else f"strange end: {last[:80]}"


def _tight(events: list[str]) -> list[str]:
    return [one.replace('": "', '":"') for one in events]


def _typed(error: Any, where: str) -> str:
    return f"{where} {error['code']}" if isinstance(error, dict) and error.get("code") else f"strange {where}"


async def soak(folder: Path, requests: int, at_once: int, seed: int) -> Result:
    """Play it in this process, agent and provider included. Tasks and descriptors are counted around both, memory inside."""
    chance = random.Random(seed)
    found = Result()
    tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
    async with ScriptedProvider() as provider:
        provider.respond(lambda request: _chosen(request, chance))
        environ = pointed_at(provider, CALLIOPE_CACHE="off", CALLIOPE_MAX_ATTEMPTS="2", LOG_LEVEL="CRITICAL")
        async with ServedAgent(folder, environ) as agent:
            agent.agent.breaker.failed = lambda *_: None  # type: ignore[method-assign]  # every request is to meet a fault
            await _run(agent, provider, max(500, requests // 10), (at_once, chance), Result())
            before = await _memory(agent)
            began = time.monotonic()
            await _run(agent, provider, requests, (at_once, chance), found)
            found.seconds = time.monotonic() - began
            found.memory_mib = before, await _memory(agent)
    with contextlib.suppress(TimeoutError):  # closed sockets leave the loop a tick or two later
        async with asyncio.timeout(5):
            while _descriptors() > descriptors:
                gc.collect()
                await asyncio.sleep(0.02)
    found.tasks = tasks, len(asyncio.all_tasks())
    found.descriptors = descriptors, _descriptors()
    return found


def _chosen(request: Request, chance: random.Random) -> Answer:
    del request
    return chance.choice(FAULTS)


async def _run(
    agent: ServedAgent, provider: ScriptedProvider, requests: int, how: tuple[int, random.Random], into: Result
) -> None:
    at_once, chance = how
    numbers = iter(range(requests))

    async def worker() -> None:
        for number in numbers:
            into.outcomes[await _one(agent, number, chance)] += 1
            if number % 500 == 0:
                provider.requests.clear()

    await asyncio.gather(*(worker() for _ in range(at_once)))
    provider.requests.clear()
    into.strange += [name for name in into.outcomes if name.startswith("strange")]


async def _one(agent: ServedAgent, number: int, chance: random.Random) -> str:
    stream, wire = chance.random() < 0.6, chance.random() < 0.5
    path, body = ("/v1/chat/completions", chat(stream)) if wire else ("/v1/messages", message(stream))
    body["messages"][0]["content"] = f"question {number}"
    async with agent.http.post(path, json=body) as answer:
        if chance.random() < LEAVES:
            return "left"
        return verdict(path, stream, answer.status, await answer.text())


async def _memory(agent: ServedAgent) -> float:
    """Resident MiB when the last flight has landed."""
    async with asyncio.timeout(30):
        while len(agent.agent.flights):  # noqa: ASYNC110  nothing signals that the last flight has landed
            await asyncio.sleep(0.01)
    gc.collect()
    return _resident_mib()


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(soak(Path(folder), args.requests, args.at_once, args.seed))
    for name, count in found.outcomes.most_common():
        print(f"{count:7} {name}")
    print(f"{sum(found.outcomes.values())} requests in {found.seconds:.0f} s; strange: {found.strange or 'none'}")
    print(f"tasks {found.tasks}, descriptors {found.descriptors}, MiB {found.memory_mib}")
    left = found.tasks[1] > found.tasks[0] or found.descriptors[1] > found.descriptors[0]
    grown = found.memory_mib[1] > 1.1 * found.memory_mib[0]
    return 1 if found.strange or left or grown else 0


if __name__ == "__main__":
    sys.exit(main())
