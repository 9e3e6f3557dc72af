"""``/api/settings``: every setting with its value, where that came from, and whether it can be changed here.

Decisions
1. A change is checked as a whole before a byte is written: the types of JSON, the parsers of the environment, and for names of
   models the catalog, so that a slip of the pen does not leave a role without a model.
2. What the environment or a flag sets is refused, not written and shadowed: a saved value that does not count is a riddle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from calliope_agent import parse, settings
from calliope_agent.agent import Agent
from calliope_agent.api.body import fields
from calliope_agent.api.exchange import Exchange
from calliope_agent.completion.route import Router
from calliope_agent.configfile import ConfigFile
from calliope_agent.errors import ConfigError, Conflict, InvalidRequest, UnknownModel
from calliope_agent.log import one_line
from calliope_agent.secret import Secret
from calliope_agent.settings import Loaded, file_key
from calliope_agent.tomlfile import near

MAX_TEXT = 4096
MAX_ENTRIES = 256
AT_START = frozenset({"agent_port", "preload", "local_model", "resume_grace_s"})

# Parser → the JSON schema of what config.toml may hold for it.
_STRING: Mapping[str, Any] = {"type": "string", "maxLength": MAX_TEXT}
_LIST: Mapping[str, Any] = {"type": "array", "items": _STRING, "maxItems": MAX_ENTRIES}
_SCHEMAS: Mapping[Any, Mapping[str, Any]] = {
    parse.flag: {"type": "boolean"},
    parse.count: {"type": "integer", "minimum": 1},
    parse.port: {"type": "integer", "minimum": 0, "maximum": 65535},
    parse.seconds: {"type": "number", "exclusiveMinimum": 0},
    parse.log_level: {**_STRING, "enum": list(parse.LOG_LEVELS)},
    parse.models: _LIST,
    parse.aliases: {"type": "object", "additionalProperties": _STRING, "maxProperties": MAX_ENTRIES},
    parse.model_fallbacks: {"type": "object", "additionalProperties": _LIST, "maxProperties": MAX_ENTRIES},
}
_PYTHON = {"boolean": bool, "integer": int, "string": str, "array": list, "object": dict}
_WANTED = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "a string",
           "array": "a list of strings", "object": "an object"}  # fmt: skip


async def shown(exchange: Exchange) -> None:
    """Every setting. A secret's value is never in it."""
    await exchange.agent.refresh(now=True)
    await exchange.json(described(exchange.agent))


async def changed(exchange: Exchange) -> None:
    """Set the given ones in config.toml; null takes one out of it. Raises `InvalidRequest`, `Conflict` with the field."""
    agent = exchange.agent
    wanted = fields(await exchange.body())
    await change(agent, wanted)
    await exchange.json(described(agent))


async def change(agent: Agent, wanted: Mapping[str, Any]) -> None:
    """All of it or nothing. Raises `InvalidRequest`, `Conflict`, `ConfigError`."""
    router = await agent.refresh(now=True)
    for name, value in wanted.items():
        item = _changeable(name, agent.loaded)
        if value is not None:
            _check(name, value, item, router)
    file = ConfigFile(agent.paths.config_file)
    await asyncio.to_thread(file.change, {(name,): value for name, value in wanted.items()})
    await agent.refresh(now=True)


def described(agent: Agent) -> dict[str, Any]:
    """The answer of ``GET /api/settings``."""
    loaded = agent.loaded
    file = ConfigFile(agent.paths.config_file)
    problem = file.problem()
    return {
        "settings": [_row(variable, item, loaded, problem) for variable, item in settings.variables().items()],
        "config_file": str(file.path),
        "problems": [*loaded.problems, *([problem] if problem else [])],
        "warnings": list(loaded.warnings),
    }


def schema() -> dict[str, Any]:
    """The JSON schema of a PATCH's body."""
    rows = {
        file_key(variable): {"description": item.metadata["help"], "anyOf": [schema_of(item), {"type": "null"}]}
        for variable, item in settings.variables().items()
        if item.metadata["in_file"]
    }
    return {"type": "object", "additionalProperties": False, "properties": rows}


def schema_of(item: Field[Any]) -> Mapping[str, Any]:
    """The JSON schema of one setting's value."""
    parser = item.metadata["parser"]
    if isinstance(parser, parse.OneOf):
        return {**_STRING, "enum": list(parser.allowed)}
    return _SCHEMAS.get(parser, _STRING)


def _row(variable: str, item: Field[Any], loaded: Loaded, problem: str | None) -> dict[str, Any]:
    value = getattr(loaded.settings, item.name)
    origin = loaded.origins[item.name]
    why_not = _why_not(item, loaded) or problem
    secret = item.metadata["secret"]
    return {
        "name": file_key(variable),
        "variable": variable,
        "help": item.metadata["help"],
        "schema": dict(schema_of(item)),
        "value": None if secret else _plain(value),
        "set": value is not None,
        "secret": secret,
        "default": None if secret else _plain(settings.default_of(item)),
        "source": {"kind": origin.kind, "where": origin.where},
        "changeable": why_not is None,
        "why_not": why_not,
        "needs_restart": item.name in AT_START,
    }


def _why_not(item: Field[Any], loaded: Loaded) -> str | None:
    variable, origin = item.metadata["variable"], loaded.origins[item.name]
    if not item.metadata["in_file"]:
        return f"Only who runs this server sets it, in the environment variable {variable}."
    if origin.kind == "environment":
        return f"The environment variable {variable} sets it, and that comes before config.toml."
    if origin.kind == "flag":
        return "The command line that started the agent sets it, and that comes before config.toml."
    return None


def _changeable(name: str, loaded: Loaded) -> Field[Any]:
    known = {file_key(variable): item for variable, item in settings.variables().items()}
    item = known.get(name)
    if item is None:
        shown = one_line(name[:60])
        raise InvalidRequest(f"There is no setting {shown!r}.{near(shown, known)}", param=shown)
    why_not = _why_not(item, loaded)
    if why_not is not None:
        raise Conflict(f"{name} cannot be changed here. {why_not}", param=name)
    return item


def _check(name: str, value: Any, item: Field[Any], router: Router) -> None:
    schema = schema_of(item)
    _check_type(name, value, schema)
    for text in _texts(value):
        if len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidRequest(f"{name} must be at most {MAX_TEXT} printable characters.", param=name)
    if schema["type"] in ("array", "object"):
        _check_entries(name, value)
    try:
        settings.check(item, value)
    except ConfigError as exc:
        raise InvalidRequest(f"{exc.message}.", param=name) from exc
    _check_models(name, value, item, router)


def _check_type(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    kind = schema["type"]
    fits = type(value) in (int, float) if kind == "number" else type(value) is _PYTHON[kind]
    if fits and kind == "array":
        fits = all(type(one) is str for one in value)
    if fits and kind == "object":
        inner = schema["additionalProperties"]["type"]
        fits = all(type(one) is _PYTHON[inner] for one in value.values()) and all(
            type(part) is str for one in value.values() if type(one) is list for part in one
        )
    if not fits:
        raise InvalidRequest(f"{name} must be {_WANTED[kind]}.", param=name)


def _check_entries(name: str, value: Any) -> None:
    """Commas, equals and plus signs divide the environment's spelling of the same value, so no entry may hold one."""
    if len(value) > MAX_ENTRIES:
        raise InvalidRequest(f"{name} must have at most {MAX_ENTRIES} entries.", param=name)
    for text in _texts(value):
        if not text.strip() or any(char in text for char in ",=+"):
            raise InvalidRequest(f"{name}: {one_line(text[:60])!r} is no model's name.", param=name)


def _check_models(name: str, value: Any, item: Field[Any], router: Router) -> None:
    parser = item.metadata["parser"]
    if parser is parse.model:
        named: Iterable[str] = (value,)
    elif parser is parse.models:
        named = value
    elif parser is parse.model_fallbacks:
        named = (*value, *(one for chain in value.values() for one in chain))
    else:
        return
    for one in named:
        try:
            router.catalog.resolve(one, router.has_key)
        except UnknownModel as exc:
            raise InvalidRequest(f"{name}: {exc.message}", param=name) from exc


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield key
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
