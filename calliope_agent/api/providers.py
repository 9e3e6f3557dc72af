"""``/api/providers``: a person's own providers and keys, and the check of any.

Decisions
1. A name is checked before anything is looked up by it, and the path takes any text there, so that ``../`` and ten megabytes are a
   400 that names the field and not a route that happens not to match.
2. With a provider goes its key: what is left behind would wait for the next provider of that name.
3. A person's provider never takes a shipped or an operator's name (issue: theft by shadowing), and its table has no field that
   could name a variable, a file or a command.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from calliope_agent import address, manifest
from calliope_agent.agent import Agent
from calliope_agent.api import provider_view as view
from calliope_agent.api.body import KeyBody, ProviderBody, typed
from calliope_agent.api.exchange import Exchange
from calliope_agent.configfile import ConfigFile, Place
from calliope_agent.errors import ConfigError, Conflict, Forbidden, InvalidRequest, NotFound
from calliope_agent.keys.need import NAME
from calliope_agent.provider import Provider, need_of
from calliope_agent.tomlfile import TomlFile, near

BODY = "the body"
DEFAULT_CHECK = "GET /models"


async def listed(exchange: Exchange) -> None:
    """Every provider, its state, and where each value comes from."""
    await exchange.json(await view.described(exchange.agent))


async def shown(exchange: Exchange) -> None:
    """One provider. Raises `InvalidRequest`, `NotFound`."""
    agent = exchange.agent
    await agent.refresh(now=True)
    await exchange.json(await _row(agent, _provider(agent, _name(exchange))))


async def put(exchange: Exchange) -> None:
    """Add a provider of one's own, or change it: a field that is left out stays as it is."""
    agent, name = exchange.agent, _name(exchange)
    body = typed(await exchange.body(), ProviderBody)
    await store(agent, name, body)
    await exchange.json(await _row(agent, _provider(agent, name)))


async def deleted(exchange: Exchange) -> None:
    """Take one's own provider out of config.toml, its key too."""
    await remove(exchange.agent, name := _name(exchange))
    await exchange.json({"name": name, "removed": True})


async def key_put(exchange: Exchange) -> None:
    """Set or replace one's own key; it counts from the next request on."""
    agent, name = exchange.agent, _name(exchange)
    body = typed(await exchange.body(), KeyBody)
    await exchange.json(await set_key(agent, name, body.key))


async def key_deleted(exchange: Exchange) -> None:
    """Forget one's own key; new requests do not get it any more, running streams keep theirs."""
    agent, name = exchange.agent, _name(exchange)
    await exchange.json(await remove_key(agent, name))


async def checked(exchange: Exchange) -> None:
    """One real call to the provider: its verdict, what to do, and the models that may be used."""
    await exchange.json(await check_by_name(exchange.agent, _name(exchange)))


async def store(agent: Agent, name: str, body: ProviderBody) -> None:
    """Raises `InvalidRequest` with the field, `Conflict` for a name that is taken."""
    await agent.refresh(now=True)
    known = agent.catalog.provider(_checked_name(name))
    if known is not None and not view.is_own(agent, known):
        raise Conflict(f"The name {name!r} is taken: {known.title} ({known.place}). Choose another name.", param="name")
    file = ConfigFile(agent.paths.config_file)
    before = file.table("providers", name)
    table = {"title": name, "wire": "openai", "check": DEFAULT_CHECK} | before | _given(body)
    _check_table(name, table)
    if address.is_one_of(body.base_url, agent.own_origins):
        raise InvalidRequest("base_url is this agent itself. Write where the provider answers.", param="base_url")
    # Field by field where the table is there already: its comments stay, and what only its owner writes by hand.
    edits: dict[Place, Any] = {("providers", name): table}
    if before:
        edits = {("providers", name, key): value for key, value in table.items() if before.get(key) != value}
    await asyncio.to_thread(file.change, edits)
    await agent.refresh(now=True)
    agent.changed(name)


async def remove(agent: Agent, name: str) -> None:
    """Raises `NotFound`, `Conflict` for a provider that is not the person's."""
    await agent.refresh(now=True)
    provider = _provider(agent, name)
    if not view.is_own(agent, provider):
        raise Conflict(f"{provider.title} is not yours to remove: {provider.place}.", param="name")
    await asyncio.to_thread(ConfigFile(agent.paths.config_file).change, {("providers", name): None})
    if agent.keys.policy != "deny":
        await agent.keys.remove(name)
    await agent.refresh(now=True)
    agent.changed(name)


async def set_key(agent: Agent, name: str, value: str) -> dict[str, Any]:
    """Label and source of the key in place, and a note where another one counts. Raises `Forbidden`, `InvalidRequest`."""
    if agent.keys.policy == "deny":
        raise Forbidden("Keys of your own are switched off here (CALLIOPE_USER_KEYS=deny). Ask who runs this server.")
    await agent.refresh(now=True)
    provider = _provider(agent, name)
    if provider.embedded or provider.missing:
        why = "needs no key" if provider.embedded else provider.missing
        raise Conflict(f"{provider.title} {why}.", param="name")
    need = need_of(provider)
    key = await agent.keys.set(name, need.origin, value)
    await agent.refresh(now=True)
    agent.changed(name)
    used = await agent.keys.find(need)
    shadowed = used is not None and used.value != key.value
    note = f"It is kept but not used: {used.label} comes first." if shadowed and used is not None else ""
    return {"provider": name, "label": key.label, "source": key.source, "used": not shadowed, "note": note}


async def remove_key(agent: Agent, name: str) -> dict[str, Any]:
    """Raises `NotFound` where the person has set none."""
    # A name that the catalog does not know is no error: the key of a provider whose file is gone must be removable.
    if not await agent.keys.remove(name):
        raise NotFound(f"You have set no key for {name}. `calliope-agent keys list` shows what there is.", param="name")
    await agent.refresh(now=True)
    agent.changed(name)
    provider = agent.catalog.provider(name)
    left = await agent.keys.find(need_of(provider)) if provider else None
    return {"provider": name, "removed": True, "left": left.label if left else None}


async def check_by_name(agent: Agent, name: str) -> dict[str, Any]:
    """As `check`. Raises `InvalidRequest`, `NotFound`."""
    await agent.refresh(now=True)
    return await check(agent, _provider(agent, _checked_name(name)))


async def check(agent: Agent, provider: Provider) -> dict[str, Any]:
    """The answer of a check."""
    verdict = await agent.check(provider)
    known = [model.name for model in provider.models]
    return {
        "provider": provider.name,
        "state": verdict.state,
        "message": verdict.message,
        "how": provider.check,
        "models": list(verdict.models) if verdict.models is not None else known if verdict.state == "valid" else [],
        "listed_by_provider": verdict.models is not None,
    }


def _name(exchange: Exchange) -> str:
    return _checked_name(exchange.path["name"])


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            "name must be a provider's name: small letters, digits, hyphens, at most 64 characters.", param="name"
        )
    return name


def _provider(agent: Agent, name: str) -> Provider:
    provider = agent.catalog.provider(name)
    if provider is None:
        known = [each.name for each in agent.catalog.providers]
        raise NotFound(f"There is no provider {name!r}.{near(name, known)}", param="name")
    return provider


async def _row(agent: Agent, provider: Provider) -> dict[str, Any]:
    router = await agent.refresh()
    playing = {role: target.name for role, target in router.roles().items()}
    return await view.row(agent, router, provider, playing)


def _given(body: ProviderBody) -> dict[str, Any]:
    """The fields that were given, as the table has them."""
    plain = msgspec.to_builtins(body)
    plain["models"] = [
        {key: value for key, value in model.items() if value is not None} for model in plain["models"] or []
    ]
    return {key: value for key, value in plain.items() if value is not None and value != []}


def _check_table(name: str, table: dict[str, Any]) -> None:
    """By the parser that will read it. Raises `InvalidRequest` with the field."""
    try:
        manifest.parse(TomlFile(BODY, "", {"providers": {name: table}}), name, "person", ("providers", name))
    except ConfigError as exc:
        message = exc.message.removeprefix(f"{BODY}: ")
        field = message.partition(" ")[0]
        otherwise = "models" if message.startswith("the model") else "name"
        raise InvalidRequest(f"{message}.", param=field if field in table else otherwise) from exc
