"""What the cache costs: ``python -m tests.bench.cache_bench [--full-mb 64] [--json FILE]``.

Latencies are in milliseconds, seen from the event loop while it does nothing else; a *hit* is the whole way from the
request's body to its first frame (key, look-up, decoding). *full* is the same on a store at its size bound. Memory is
the process's resident size in MiB, before the store is opened and after it is full. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from calliope_agent.completion import cachekey, entry
from calliope_agent.completion.cache import Cache, DiskCache, MemoryCache

ROUNDS = 300
CHUNKS = (20, 200, 2000)
PLACE = cachekey.Place("chat", "openai", "bench", "https://bench.example/v1", "model", "key 1")


def body_of(number: int) -> dict[str, msgspec.Raw]:
    messages = [{"role": "user", "content": f"question {number} " + "with some context " * 200}]
    return {"messages": msgspec.Raw(json.dumps(messages).encode()), "temperature": msgspec.Raw(b"0")}


def answer_of(chunks: int) -> bytes:
    frame = (
        b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%d word "}}]}\n\n'
    )
    frames = tuple(frame % number for number in range(chunks))
    kept = entry.Entry(wire="openai", kind="stream", target="bench/model", stored_at=0.0, frames=frames, finish="stop")
    return entry.encode(kept)


def key_of(number: int) -> bytes:
    key = cachekey.key_of(PLACE, body_of(number))
    assert key is not None
    return key


async def hit(store: Cache, number: int) -> bytes:
    found = await store.get(key_of(number))
    assert found is not None
    kept = entry.decode(found)
    assert kept is not None
    return kept.frames[0]


async def timed(act: Callable[[int], Awaitable[object]], rounds: int = ROUNDS) -> dict[str, float]:
    taken: list[float] = []
    for number in range(rounds):
        began = time.perf_counter()
        await act(number)
        taken.append((time.perf_counter() - began) * 1000)
    taken.sort()
    return {"p50": round(taken[rounds // 2], 3), "p99": round(taken[rounds * 99 // 100], 3)}


async def measure(store: Cache) -> dict[str, Any]:
    found: dict[str, Any] = {"open": await timed(lambda number: store.get(key_of(number)), 1)}
    for chunks in CHUNKS:
        value = answer_of(chunks)
        found[f"{chunks} chunks, {len(value) // 1000} kB"] = {
            "put": await timed(lambda number, value=value: store.put(key_of(number), value, 3600)),  # type: ignore[misc]
            "hit": await timed(lambda number: hit(store, number)),
            "miss": await timed(lambda number: store.get(key_of(-1 - number))),
        }
    return found


async def fill(store: Cache, room: int) -> dict[str, Any]:
    value = answer_of(200)
    count = room * 5 // 4 // len(value)
    for number in range(count):
        # A copy each time, as every answer is its own; shared bytes would cost a memory store nothing.
        await store.put(number.to_bytes(32, "big"), bytes(bytearray(value)), 3600)
    return {
        "put": await timed(lambda number: store.put(key_of(number), value, 3600)),
        "hit": await timed(lambda number: hit(store, number)),
        "stats": msgspec.to_builtins(await store.stats()),
    }


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


async def bench(full_mb: int) -> dict[str, Any]:
    room = full_mb << 20
    found: dict[str, Any] = {"memory MiB": {"before": resident_mib()}}
    with tempfile.TemporaryDirectory() as folder:
        disk = DiskCache(Path(folder) / "cache", room)
        found["disk"] = await measure(disk)
        found["memory MiB"]["disk open"] = resident_mib()
        found["disk, full"] = await fill(disk, room)
        found["memory MiB"]["disk full"] = resident_mib()
        await disk.close()
        again = DiskCache(Path(folder) / "cache", room)
        found["disk, full, opened again"] = await timed(lambda _: again.get(key_of(0)), 1)
        await again.close()
    memory = MemoryCache(room)
    found["memory"] = await measure(memory)
    found["memory, full"] = await fill(memory, room)
    found["memory MiB"]["memory full"] = resident_mib()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What the cache costs.")
    parser.add_argument("--full-mb", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = asyncio.run(bench(options.full_mb))
    text = json.dumps(found, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
