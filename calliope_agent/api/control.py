"""The small endpoints beside settings and providers: usage, cache, metrics, tokens."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from calliope_agent.agent import Agent
from calliope_agent.api.body import RotateBody, typed
from calliope_agent.api.exchange import Exchange
from calliope_agent.completion.ledger import Row
from calliope_agent.errors import InvalidRequest

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def usage(exchange: Exchange) -> None:
    """Requests, tokens and cost by day and target, of the last two months; a cost is null where it is not known."""
    await exchange.json(spent(exchange.agent))


async def cache_shown(exchange: Exchange) -> None:
    """How the cache of answers is doing."""
    await exchange.json(asdict(await exchange.agent.keeper.cache.stats()))


async def cache_cleared(exchange: Exchange) -> None:
    """Forget every kept answer and every suggestion."""
    agent = exchange.agent
    agent.lane.forget()
    await exchange.json({"cleared": await agent.keeper.cache.clear()})


async def metrics(exchange: Exchange) -> None:
    """Prometheus' text format."""
    agent = exchange.agent
    stats = await agent.keeper.cache.stats()
    gauges = {
        "calliope_streams": ("Answers that are being given now.", float(len(agent.flights))),
        "calliope_cache_entries": ("Answers kept.", float(stats.entries)),
        "calliope_cache_bytes": ("Size of the kept answers.", float(stats.size_bytes)),
        "calliope_cache_hits_total": ("Look-ups that found an answer.", float(stats.hits)),
        "calliope_cache_misses_total": ("Look-ups that found none.", float(stats.misses)),
    }
    headers = {"x-request-id": exchange.id, "cache-control": "no-store", "content-type": PROMETHEUS}
    await exchange.answer(Response(agent.metrics.text(gauges), 200, headers))


async def rotated(exchange: Exchange) -> None:
    """New local tokens, in force at once; they are in the runtime folder, never in an answer."""
    body = typed(await exchange.body(), RotateBody)
    if not body.tokens:
        raise InvalidRequest("tokens must name complete, manage or both.", param="tokens")
    fresh = exchange.tokens.rotate(body.tokens)
    for token in (fresh.complete, fresh.manage):
        exchange.agent.redactor.add(token)
    await exchange.json({"rotated": body.tokens})


def spent(agent: Agent) -> dict[str, Any]:
    """The answer of ``GET /api/usage``."""
    days = agent.ledger.days
    total, by_target = Row(), defaultdict[str, Row](Row)
    for rows in days.values():
        for target, row in rows.items():
            total.add(row)
            by_target[target].add(row)
    return {
        "since": agent.ledger.since.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "total": total.as_dict(),
        "targets": [{"target": target, **row.as_dict()} for target, row in sorted(by_target.items())],
        "days": [
            {"day": day, "target": target, **row.as_dict()}
            for day, rows in sorted(days.items(), reverse=True)
            for target, row in sorted(rows.items())
        ],
    }
