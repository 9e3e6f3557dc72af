"""The endpoints that ask models: one handler, a kind each."""

from __future__ import annotations

from calliope_agent.api.exchange import Exchange, Handler
from calliope_agent.api.intake import call_of
from calliope_agent.api.reply import reply
from calliope_agent.completion.wishes import Wishes, wishes_of
from calliope_agent.errors import Loop
from calliope_agent.upstream.attempt import Call, Kind


def asking(kind: Kind) -> Handler:
    """The handler of POST for one kind of request."""

    async def handle(exchange: Exchange) -> None:
        guard_loop(exchange)
        wishes = wishes_of(exchange.headers)
        call, asked = call_of(await exchange.body(), kind, exchange.headers, exchange.id)
        await ask(exchange, call, asked, wishes)

    return handle


async def ask(exchange: Exchange, call: Call, asked: str | None, wishes: Wishes) -> None:
    """Have the call served and answer with what comes."""
    reader = await exchange.agent.fly(call, asked, wishes, client_retries=_retries(exchange))
    await reply(reader, exchange.caller, exchange.hold_s)


def guard_loop(exchange: Exchange) -> None:
    """Raises `Loop` for a request that this very agent sent."""
    if exchange.headers.get("x-calliope-hop") == exchange.agent.hop:
        raise Loop("A provider's base URL is this agent itself. Correct it; `calliope-agent doctor` names it.")


def _retries(exchange: Exchange) -> int | None:
    """The SDKs count their own retries: together with ours they would multiply, so the record shows both."""
    given = exchange.headers.get("x-stainless-retry-count", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 4 else None
