"""``calliope-agent cache``: the kept answers, counted or forgotten."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from calliope_agent import paths
from calliope_agent.cli.place import loaded, running
from calliope_agent.completion.cache import open_cache


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = actions.add_parser("stats", help="how many answers are kept, how large they are, how often they served")
    stats.add_argument("--json", action="store_true", help="as JSON")
    actions.add_parser("clear", help="forget every kept answer")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    agent = running(environ)
    method = "DELETE" if args.action == "clear" else "GET"
    told = agent.ask(method, "/api/cache") if agent else asyncio.run(_on_disk(environ, clear=method == "DELETE"))
    if args.action == "clear":
        print(f"{told['cleared']} answers forgotten.")
    elif args.json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(_lines(told)))
    return 0


async def _on_disk(environ: Mapping[str, str], *, clear: bool) -> dict[str, Any]:
    found = loaded(environ).settings
    folder = paths.find(environ, found).state / "cache"
    size = found.cache_max_mb * 1_000_000
    cache = open_cache(found.cache, folder, size, store_content=found.store_content)
    try:
        return {"cleared": await cache.clear()} if clear else asdict(await cache.stats())
    finally:
        await cache.close()


def _lines(told: Mapping[str, Any]) -> list[str]:
    if told["where"] == "off":
        return [f"The cache is off. {told['problem'] or ''}".rstrip()]
    place = told["directory"] or "memory"
    lines = [
        f"{told['entries']} answers, {told['size_bytes'] / 1e6:.1f} of {told['max_bytes'] / 1e6:.0f} MB, in {place}"
    ]
    lines.append(f"{told['hits']} hits, {told['misses']} misses, {told['stored']} stored since the agent's start")
    return [*lines, *([told["problem"]] if told["problem"] else [])]
