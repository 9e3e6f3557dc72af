"""What a person sees of the providers: their state in words, where key and address come from, what may be changed and why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from calliope_agent import errors
from calliope_agent.agent import Agent
from calliope_agent.completion.route import Router
from calliope_agent.keys import Provenance
from calliope_agent.model import ROLES, Model
from calliope_agent.provider import Provider, need_of

State = Literal["ready", "needs_key", "needs_address", "not_set_up"]
STORED = frozenset({"keyring", "encrypted file"})


async def described(agent: Agent) -> dict[str, Any]:
    """The answer of ``GET /api/providers``."""
    router = await agent.refresh(now=True)
    playing = _roles(router)
    store = await agent.keys.describe()
    return {
        "providers": [await row(agent, router, provider, playing) for provider in router.catalog.providers],
        "roles": {role: _role(agent, router, role) for role in ROLES},
        "problems": list(router.catalog.problems),
        "notes": list(router.catalog.notes),
        "keys": {"policy": store.policy, "backend": store.backend, "why": store.why, "notes": list(store.notes)},
        "local": {"state": agent.local.state},
    }


async def row(agent: Agent, router: Router, provider: Provider, playing: Mapping[str, str]) -> dict[str, Any]:
    """One provider."""
    sources = await agent.keys.sources(need_of(provider))
    used = next((line for line in sources if line.state == "used"), None)
    state, text = _state(provider, router, sources)
    if provider.embedded and (absent := not_yet(agent, router, provider)):
        state, text = "not_set_up", absent
    return {
        "name": provider.name,
        "title": provider.title,
        "wire": provider.wire,
        "trust": provider.trust,
        "place": provider.place,
        "state": state,
        "text": text,
        "key_required": provider.key_required,
        "key": {"label": used.label, "source": used.source} if used else None,
        "key_sources": [
            {"source": line.source, "state": line.state, "label": line.label, "note": line.note} for line in sources
        ],
        "credentials": provider.credentials,
        "base_url": provider.base_url,
        "base_url_source": {"kind": provider.base_url_source.kind, "where": provider.base_url_source.where},
        "check": provider.check,
        "models": [_model(provider, model, playing) for model in provider.models],
        "may": _may(agent, provider, sources),
    }


def stored(sources: list[Provenance]) -> bool:
    """Whether the person has a key of their own there, used or not."""
    return any(line.source in STORED for line in sources)


def is_own(agent: Agent, provider: Provider) -> bool:
    """Whether it stands in the person's config.toml, which is what this API writes."""
    return provider.trust == "person" and Path(provider.place.partition(" line ")[0]) == agent.paths.config_file


def _roles(router: Router) -> dict[str, str]:
    try:
        return {role: target.name for role, target in router.roles().items()}
    except errors.ConfigError:
        return {}


def _role(agent: Agent, router: Router, role: str) -> dict[str, Any]:
    """Who plays the role, who is asked after it, and what is wrong with either."""
    told: dict[str, Any] = {"target": None, "chain": [], "problem": None}
    try:
        target = router.catalog.role(role, router.has_key, getattr(router.settings, f"{role}_model"))
        told |= {"target": target.name, "problem": not_yet(agent, router, target.provider)}
        told["chain"] = [one.name for one in router.plan(role, _KIND_OF[role]).targets]
    except errors.AgentError as exc:
        told["problem"] = exc.message
    return told


def not_yet(agent: Agent, router: Router, provider: Provider) -> str | None:
    """A model that a setting names plays its role even where nobody could ask it yet."""
    if provider.embedded and agent.local.state.startswith("absent"):
        return f"The local model is {agent.local.state}. {agent.local.remedy}"
    return None if provider.usable(router.has_key(provider.name)) else f"{provider.title} needs a key first."


_KIND_OF: Mapping[str, Any] = {"chat": "chat", "fast": "chat", "inline": "fim", "embed": "embeddings"}


def _state(provider: Provider, router: Router, sources: list[Provenance]) -> tuple[State, str]:
    broken = next((line.note for line in sources if line.state == "broken"), None)
    if provider.missing:
        return "needs_address", f"It {provider.missing}."
    if provider.usable(router.has_key(provider.name)):
        return "ready", broken or "It can be asked."
    if provider.key_required:
        stale = next((line.note for line in sources if line.state == "ignored" and line.source in STORED), None)
        return "needs_key", broken or stale or "It needs a key."
    return "not_set_up", f"Nobody has set it up: {_how(provider)}."


def _how(provider: Provider) -> str:
    return f"set {' or '.join(provider.base_url_env)}" if provider.base_url_env else f"see {provider.place}"


def _model(provider: Provider, model: Model, playing: Mapping[str, str]) -> dict[str, Any]:
    target = f"{provider.name}/{model.name}"
    return {
        "name": model.name,
        "target": target,
        "title": model.title,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": sorted(model.capabilities),
        "suits": list(model.roles),
        "plays": [role for role, name in playing.items() if name == target],
        "prices": msgspec.structs.asdict(model.prices),
    }


def _may(agent: Agent, provider: Provider, sources: list[Provenance]) -> dict[str, Any]:
    """Each change: None where it is allowed, else why not, as a sentence."""
    return {
        "set_key": _no_set_key(agent, provider, sources),
        "remove_key": None if stored(sources) else "You have set no key of your own here.",
        "change": _no_change(agent, provider),
        "check": provider.missing and f"It {provider.missing}.",
    }


def _no_set_key(agent: Agent, provider: Provider, sources: list[Provenance]) -> str | None:
    if provider.embedded:
        return "The local model needs no key."
    if agent.keys.policy == "deny":
        return "Keys of your own are switched off here (CALLIOPE_USER_KEYS=deny). Ask who runs this server."
    if provider.missing:
        return f"It {provider.missing}. A key is kept for one address, so that comes first."
    operators = next((line for line in sources if line.state in ("used", "broken") and line.source not in STORED), None)
    if agent.keys.policy == "allow" and operators is not None and operators.source != "stored key":
        return f"Set by who runs this server ({operators.source}); a key of yours would not be used."
    return None


def _no_change(agent: Agent, provider: Provider) -> str | None:
    if provider.trust == "shipped":
        return "It comes with calliope-agent."
    if provider.trust == "operator":
        return f"Who runs this server has set it up ({provider.place})."
    return None if is_own(agent, provider) else f"It stands in a file of its own; change {provider.place}."
