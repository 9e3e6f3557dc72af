"""``GET /v1/requests``: why the last answers are what they are."""

from __future__ import annotations

from calliope_agent.api.exchange import Exchange
from calliope_agent.completion.record import KEPT
from calliope_agent.errors import InvalidRequest, NotFound


async def listed(exchange: Exchange) -> None:
    """Newest first; ``?limit=N`` for fewer."""
    given = dict(
        part.partition("=")[::2] for part in exchange.asgi.get("query_string", b"").decode("latin-1").split("&")
    )
    limit = given.get("limit", str(KEPT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= KEPT):
        raise InvalidRequest(f"limit must be a whole number from 1 to {KEPT}.", param="limit")
    records = exchange.agent.records.newest(int(limit))
    await exchange.json({"object": "list", "data": [record.as_dict() for record in records]})


async def shown(exchange: Exchange) -> None:
    """One record. Raises `NotFound` for an id that is not among the kept ones."""
    record = exchange.agent.records.get(exchange.path["id"])
    if record is None:
        raise NotFound(f"There is no such request among the last {KEPT}. `calliope-agent why` lists them.")
    await exchange.json(record.as_dict())
