"""``GET /v1/models``: what can be asked now, in OpenAI's shape or in Anthropic's."""

from __future__ import annotations

from typing import Any

from calliope_agent import errors
from calliope_agent.api.exchange import Exchange
from calliope_agent.catalog import Target
from calliope_agent.completion.route import Router

# The catalog keeps no release dates; clients only need the field to be there and to sort stably.
_CREATED = 1_735_689_600
_CREATED_AT = "2025-01-01T00:00:00Z"


async def listed(exchange: Exchange) -> None:
    """Roles first, then every model of the usable providers."""
    router = await exchange.agent.refresh()
    entries = [_entry(name, target, exchange) for name, target in _all(router).items()]
    if "anthropic-version" in exchange.headers:
        ids = [entry["id"] for entry in entries]
        page = {
            "data": entries,
            "has_more": False,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
        }
        await exchange.json(page)
    else:
        await exchange.json({"object": "list", "data": entries})


async def shown(exchange: Exchange) -> None:
    """One model, by role, by ``provider/model`` or by bare name. Raises `UnknownModel` with near names."""
    name = exchange.path["model"]
    router = await exchange.agent.refresh()
    target = _all(router).get(name) or router.plan(name, "chat").targets[0]
    await exchange.json(_entry(name, target, exchange))


def _all(router: Router) -> dict[str, Target]:
    try:
        found = dict(router.roles())
    except errors.ConfigError:
        found = {}
    for provider in router.catalog.usable(router.has_key):
        for model in provider.models:
            target = Target(provider, model)
            found.setdefault(target.name, target)
    return found


def _entry(name: str, target: Target, exchange: Exchange) -> dict[str, Any]:
    model = target.model
    facts = {
        "target": target.name,
        "context_window": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": sorted(model.capabilities),
    }
    if "anthropic-version" in exchange.headers:
        return {
            "type": "model",
            "id": name,
            "display_name": model.title or target.name,
            "created_at": _CREATED_AT,
            "max_input_tokens": model.context_tokens,
            "max_tokens": model.max_output_tokens,
            **facts,
        }
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": target.provider.name, **facts}
