"""A kept answer against an asked one, over HTTP: ``python -m tests.bench.hit_bench [--rounds 300] [--json FILE]``.

A *miss* asks the lean provider for a burst of 200 chunks at temperature 0 and is kept; a *hit* is the same question again. First
byte and whole answer, in milliseconds, rounds of misses and of hits in turn in one run. Memory is the agent's resident size in MiB
when ready and after ten times the cache's bound (8 MB) went through it. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench import peers
from tests.bench.awake import awake
from tests.bench.load import Client, Timing
from tests.bench.peers import Peer

BUDGET_MS = 1.5
FULL_MB = 8
ANSWER_BYTES = 36_000
EACH = 20


def request(peer: Peer, question: str) -> bytes:
    messages = [{"role": "user", "content": question}]
    body = json.dumps({"model": "gpt-burst", "messages": messages, "stream": True, "temperature": 0}).encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {urlsplit(peer.url).netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Authorization: Bearer {peer.token}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


async def measure(peer: Peer, rounds: int) -> dict[str, list[Timing]]:
    """Timings of misses and of hits, each question once as either."""
    client = await Client.open(peer.url)
    found: dict[str, list[Timing]] = {"miss": [], "hit": []}
    for begin in range(0, rounds, EACH):
        questions = [request(peer, f"question {number}") for number in range(begin, begin + EACH)]
        found["miss"] += [await client.ask(question) for question in questions]
        await asyncio.sleep(0.05)  # the answers are written behind the client's back; a hit must not race them
        found["hit"] += [await client.ask(question) for question in questions]
    client.close()
    return found


async def fill(peer: Peer) -> None:
    """Ten times what the cache may hold."""
    client = await Client.open(peer.url)
    for number in range(10 * FULL_MB * 1_000_000 // ANSWER_BYTES):
        await client.ask(request(peer, f"filling {number}"))
    client.close()


def figure(timings: list[Timing], what: str, share: float) -> float:
    ordered: list[float] = sorted(getattr(timing, what) * 1000 for timing in timings)
    return round(ordered[int(share * (len(ordered) - 1))], 3)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hit_bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with awake(), tempfile.TemporaryDirectory() as folder, peers.provider() as upstream:
        more = {"CALLIOPE_CACHE_MAX_MB": str(FULL_MB)}
        with peers.agent(upstream.url, Path(folder), more) as agent:
            before = agent.rss_mib()
            timings = asyncio.run(measure(agent, args.rounds))
            asyncio.run(fill(agent))
            after = agent.rss_mib()
    told = {
        name: {f"{what} {label}": figure(rows, what, share) for what in ("first", "whole") for label, share in
               (("p50", 0.5), ("p99", 0.99))}
        for name, rows in timings.items()
    }  # fmt: skip
    print(f"{'':8}" + "".join(f"{name:>12}" for name in told["hit"]))
    for name, row in told.items():
        print(f"{name:8}" + "".join(f"{value:12.3f}" for value in row.values()))
    verdict = "within" if told["hit"]["first p50"] < BUDGET_MS else "over"
    print(f"hit, first byte p50: {told['hit']['first p50']} ms, {verdict} the budget of {BUDGET_MS} ms")
    print(f"memory: {before:.0f} MiB ready, {after:.0f} MiB with a full cache; load {load:.1f} before it")
    if args.json:
        args.json.write_text(json.dumps({**told, "rss_mib": [before, after]}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
