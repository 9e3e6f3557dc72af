"""Liveness without a token, readiness per component with one."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from calliope_agent import __version__, errors
from calliope_agent.agent import Agent
from calliope_agent.api.exchange import Exchange
from calliope_agent.api.provider_view import not_yet


async def live(exchange: Exchange) -> None:
    """The process answers. Nothing is looked up for it: a slow keyring must not make a container look dead."""
    status = "stopping" if exchange.agent.stopping else "healthy"
    await exchange.json({"status": status, "timestamp": _now(), "version": __version__})


async def root(exchange: Exchange) -> None:
    """``HEAD /``: Claude Code asks it before anything else."""
    await exchange.answer(Response(status_code=200, headers={"x-request-id": exchange.id}))


async def ready(exchange: Exchange) -> None:
    """200 when a chat request could be tried, else 503; the components say why."""
    agent = exchange.agent
    router = await agent.refresh()
    try:
        targets = router.roles()
        roles = {role: target.name for role, target in targets.items()}
        problem = (
            not_yet(agent, router, targets["chat"].provider) if "chat" in targets else "no model plays the role chat"
        )
    except errors.ConfigError as exc:
        roles, problem = {}, exc.message
    body = {
        "status": "stopping" if agent.stopping else "ready" if problem is None else "degraded",
        "timestamp": _now(),
        "version": __version__,
        "problem": problem,
        "roles": roles,
        "streams": len(agent.flights),
        "components": _components(agent),
    }
    await exchange.json(body, 200 if problem is None and not agent.stopping else 503)


def _components(agent: Agent) -> dict[str, Any]:
    usable = [provider.name for provider in agent.router.catalog.usable(agent.router.has_key)]
    return {
        "providers": {"usable": usable, "problems": list(agent.catalog.problems)},
        "local": {"state": agent.local.state},
        "litellm": {"state": _litellm(agent)},
    }


def _litellm(agent: Agent) -> str:
    if agent.doors.litellm.loaded:
        return "loaded"
    return "loading" if "litellm" in sys.modules else "not needed yet"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
