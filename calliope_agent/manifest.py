"""A provider's file: everything the agent knows of a provider, as data under a closed schema.

Decisions
1. A person's file may not name variables, key files, commands, litellm's routes or link-local addresses
   (`OPERATOR_ONLY`): each could carry the operator's key, or another secret of the environment, to an address the
   person chose. litellm reads the environment by itself, so a person's provider speaks one of the two native wires.
2. ``fim_path`` is a path, not an address: the key that goes with it stays with the origin of ``base_url``.
3. ``patterns`` are the bare names a provider knows beyond its list (``gpt-*``): a model that came out yesterday needs
   no release of ours. They count only where the provider is usable, so that a slip of the pen still gets near names.
"""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import msgspec

from calliope_agent import address, model
from calliope_agent.errors import ConfigError
from calliope_agent.model import Model
from calliope_agent.table import Table, line, word_of
from calliope_agent.tomlfile import TomlFile

Trust = Literal["shipped", "operator", "person"]
Wire = Literal["openai", "anthropic", "litellm"]
Auth = Literal["bearer", "x-api-key", "api-key"]

# What a provider answers, by endpoint; where a file does not say, what its wire has by custom.
OFFERS = {
    "openai": frozenset({"chat", "completions", "embeddings", "models"}),
    "anthropic": frozenset({"messages", "models"}),
    "litellm": frozenset({"chat", "embeddings"}),
}
ALL_OFFERS = frozenset({"chat", "completions", "embeddings", "messages", "models", "responses", "count_tokens"})
OPERATOR_ONLY = ("key_env", "base_url_env", "credentials_env", "model_env", "key_file", "key_command", "litellm",
                 "allow_link_local", "embedded")  # fmt: skip
DEFAULT_RANK = 500

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{1,79}")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_ROUTE = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*")


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds that take the place of the settings of the same name."""

    connect_s: float | None = None
    first_token_s: float | None = None
    idle_s: float | None = None
    deadline_s: float | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A valid file. ``base_url`` is what stands before ``/chat/completions`` or ``/messages``, without a final slash.

    ``drops`` are request parameters the provider refuses and that are left out; ``renames`` pairs a parameter with the
    name the provider wants. ``rank``: lower is asked first when a role or a bare name has several providers.
    """

    name: str
    title: str
    wire: Wire
    trust: Trust
    place: str
    auth: Auth = "bearer"
    base_url: str | None = None
    base_url_env: tuple[str, ...] = ()
    base_path: str | None = None
    base_path_when: address.Completion = "missing"
    key_env: tuple[str, ...] = ()
    key_file: str | None = None
    key_command: tuple[str, ...] = ()
    key_required: bool = True
    credentials_env: tuple[str, ...] = ()
    model_env: tuple[str, ...] = ()
    litellm: str | None = None
    verifies_finish: bool = True
    fim: str = "chat"
    fim_path: str | None = None
    check: str = "chat"
    offers: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    open_models: bool = True
    allow_link_local: bool = False
    embedded: bool = False
    rank: int = DEFAULT_RANK
    drops: frozenset[str] = frozenset()
    renames: tuple[tuple[str, str], ...] = ()
    timeouts: Timeouts = Timeouts()
    models: tuple[Model, ...] = ()


def parse(file: TomlFile, name: str, trust: Trust, place: tuple[str, ...] = ()) -> Manifest:
    """The manifest ``name`` from a file, or from its table at ``place``. Raises `ConfigError` with file and line."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{file.path}: {name[:60]!r} is no provider's name; use small letters, digits and hyphens")
    data: Any = file.data
    for key in place:
        data = data[key]
    if not isinstance(data, dict):
        raise ConfigError(f"{file.where(*place)}: must be a table, [{'.'.join(place)}]")
    table = Table(file, data, place)
    if trust == "person":
        _refuse_operator_keys(table)
    manifest = Manifest(**_facts(table), **_reach(table), name=name, trust=trust, place=file.where(*place))
    table.finish()
    _cross_check(table, manifest)
    return manifest


def _facts(table: Table) -> dict[str, Any]:
    wire = table.text("wire", word_of(OFFERS))
    title = table.text("title", line)
    if wire is None or title is None:
        raise table.error("wire" if wire is None else "title", "is missing; every provider's file needs it")
    offers = frozenset(table.texts("offers", word_of(ALL_OFFERS)))
    rank = table.count("rank")
    return {
        "title": title,
        "wire": wire,
        "litellm": table.text("litellm", _matching(_ROUTE, "be one of litellm's prefixes")),
        "verifies_finish": table.flag("verifies_finish", default=True),
        "fim": table.text("fim", model.fim_mode) or "chat",
        "fim_path": table.text("fim_path", _matching(_PATH, "be a path such as /beta/completions")),
        "check": table.text("check", _check) or "chat",
        "offers": offers or OFFERS[wire],
        "patterns": table.texts("patterns", line),
        "open_models": table.flag("open_models", default=True),
        "rank": DEFAULT_RANK if rank is None else rank,
        "drops": frozenset(table.texts("drops", line)),
        "renames": _renames(table),
        "timeouts": _timeouts(table),
        "models": tuple(model.parse(row) for row in table.tables("models")),
    }


def _reach(table: Table) -> dict[str, Any]:
    variable = _matching(_VARIABLE, "be a variable's name in capitals")
    return {
        "auth": table.text("auth", word_of({"bearer", "x-api-key", "api-key"})) or "bearer",
        "base_url": table.text("base_url", address.checked),
        "base_url_env": table.texts("base_url_env", variable),
        "base_path": table.text("base_path", _matching(_PATH, "be a path such as /v1")),
        "base_path_when": cast("Any", table.text("base_path_when", word_of({"missing", "empty"})) or "missing"),
        "key_env": table.texts("key_env", variable),
        "key_file": table.text("key_file", _absolute),
        "key_command": table.texts("key_command", line),
        "key_required": table.flag("key_required", default=True),
        "credentials_env": table.texts("credentials_env", variable),
        "model_env": table.texts("model_env", variable),
        "allow_link_local": table.flag("allow_link_local", default=False),
        "embedded": table.flag("embedded", default=False),
    }


def _refuse_operator_keys(table: Table) -> None:
    for key in OPERATOR_ONLY:
        if table.has(key):
            raise table.error(
                key,
                "is for the operator's files only; set a key with `calliope-agent keys set` and write base_url here",
            )


def _cross_check(table: Table, manifest: Manifest) -> None:
    if manifest.trust == "person" and manifest.wire == "litellm":
        raise table.error("wire", "must be openai or anthropic in a person's own file")
    if manifest.wire == "litellm" and manifest.litellm is None:
        raise table.error("litellm", 'is missing; with wire = "litellm" it names litellm\'s route')
    reachable = manifest.base_url or manifest.base_url_env or manifest.embedded or manifest.wire == "litellm"
    if not reachable:
        raise table.error("base_url", "is missing; write where the provider answers")
    names: set[str] = set()
    for number, entry in enumerate(manifest.models):
        for name in (entry.name, *entry.aliases):
            if name in names:
                raise ConfigError(f"{table.row('models', number)}: the model {name!r} is there twice; keep one entry")
            names.add(name)


def _timeouts(table: Table) -> Timeouts:
    rows = table.table("timeouts")
    if rows is None:
        return Timeouts()
    timeouts = Timeouts(
        *(rows.amount(key, least=0.01) for key in ("connect_s", "first_token_s", "idle_s", "deadline_s"))
    )
    rows.finish()
    return timeouts


def _renames(table: Table) -> tuple[tuple[str, str], ...]:
    rows = table.table("renames")
    if rows is None:
        return ()
    return tuple(sorted((key, rows.text(key, line) or key) for key in rows.keys()))  # noqa: SIM118  Table is no mapping


def _matching(pattern: re.Pattern[str], wanted: str) -> Any:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must {wanted}, not {text[:60]!r}")
        return text

    return check


def _check(text: str) -> str:
    method, _, path = text.partition(" ")
    if text != "chat" and not (method == "GET" and _PATH.fullmatch(path)):
        raise ValueError(f'must be "chat" or a line such as "GET /models", not {text[:60]!r}')
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be an absolute path")
    return text
