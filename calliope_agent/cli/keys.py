"""``calliope-agent keys``: a person's own keys, set without echo, listed by label and source.

Decisions
1. A key is never an argument: arguments are in the shell's history and in everybody's ``ps``.
2. With CALLIOPE_AGENT_URL the running agent stores it (PUT, DELETE /api/providers/{name}/key), since that agent may
   keep its keys elsewhere than this shell's user would; without it the store of this user is written, which a running
   agent sees at once.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from calliope_agent import catalog, paths
from calliope_agent.catalog import Catalog, Provider
from calliope_agent.cli.place import door, loaded
from calliope_agent.cli.table import table
from calliope_agent.errors import ConfigError, Forbidden, NotFound
from calliope_agent.keys import KeyStore, Provenance, UserKeys
from calliope_agent.keys.need import MAX_VALUE
from calliope_agent.log import one_line
from calliope_agent.provider import need_of
from calliope_agent.tomlfile import near


@dataclass(frozen=True, slots=True)
class Here:
    """The catalog and the key store of this user."""

    catalog: Catalog
    store: KeyStore


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    setting = actions.add_parser("set", help="store a key; it is asked for without echo, or read from standard input")
    setting.add_argument("name", help="the provider, as `calliope-agent models --all` names it")
    listing = actions.add_parser("list", help="every provider with a key: its label and where it comes from")
    listing.add_argument("--json", action="store_true", help="as JSON")
    removing = actions.add_parser("rm", help="forget a key that you set")
    removing.add_argument("name", help="the provider")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    remote = loaded(environ).settings.agent_url is not None
    if args.action == "set":
        _print_lines(_set_remote(args.name, environ) if remote else asyncio.run(_set(args.name, environ)))
    elif args.action == "rm":
        _print_lines(_remove_remote(args.name, environ) if remote else asyncio.run(_remove(args.name, environ)))
    else:
        rows = _list_remote(environ) if remote else asyncio.run(_list(environ))
        print(json.dumps(rows, indent=2) if args.json else _shown(rows))
    return 0


async def _set(name: str, environ: Mapping[str, str]) -> list[str]:
    here = _here(environ)
    provider = _provider(here.catalog, name)
    if here.store.policy == "deny":
        raise Forbidden("Keys of your own are switched off here (CALLIOPE_USER_KEYS=deny). Ask who runs this server.")
    if provider.missing:
        raise ConfigError(f"{provider.title} {provider.missing}. A key is kept for one address, so that comes first.")
    need = need_of(provider)
    key = await here.store.set(name, need.origin, _asked_for(provider.title))
    lines = [f"{name}: {key.label}"]
    report = await here.store.describe()
    if report.backend == "encrypted file":
        lines.append(f"{report.why}.")
    used = await here.store.find(need)
    if used is not None and used.value != key.value:
        lines.append(f"It is kept but not used: {used.label} comes first (CALLIOPE_USER_KEYS={here.store.policy}).")
    return lines


async def _remove(name: str, environ: Mapping[str, str]) -> list[str]:
    here = _here(environ)
    # A name that the catalog does not know is no error: the key of a provider whose file is gone must be removable.
    if not await here.store.remove(name):
        raise NotFound(f"You have set no key for {one_line(name)}. `calliope-agent keys list` shows what there is.")
    provider = here.catalog.provider(name)
    left = await here.store.find(need_of(provider)) if provider else None
    return [f"{name}: removed", *([f"{left.label} is used from now on."] if left else [])]


async def _list(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    here = _here(environ)
    rows = []
    for provider in here.catalog.providers:
        sources = [line for line in await here.store.sources(need_of(provider)) if line.state != "unset"]
        if sources:
            rows.append({"provider": provider.name, "sources": [_source(line) for line in sources]})
    return rows


def _source(line: Provenance) -> dict[str, Any]:
    return {"source": line.source, "state": line.state, "label": line.label, "note": line.note}


def _shown(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No keys. Set one: calliope-agent keys set NAME"
    cells = [
        (row["provider"], line["label"] or "-", line["source"], line["state"], line["note"])
        for row in rows
        for line in row["sources"]
    ]
    return table(("provider", "key", "source", "state", ""), cells)


def _set_remote(name: str, environ: Mapping[str, str]) -> list[str]:
    agent = door(environ, manage=True)
    told = agent.ask("PUT", _path(name), {"key": _asked_for(name)})
    return [f"{name}: {told['label']}", *([told["note"]] if told.get("note") else [])]


def _remove_remote(name: str, environ: Mapping[str, str]) -> list[str]:
    door(environ, manage=True).ask("DELETE", _path(name))
    return [f"{name}: removed"]


def _list_remote(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    told = door(environ).ask("GET", "/api/providers")
    rows = told["providers"] if isinstance(told, dict) else told
    return [
        {"provider": row["name"], "sources": row["key_sources"]}
        for row in rows
        if isinstance(row, dict) and row.get("key_sources")
    ]


def _path(name: str) -> str:
    return f"/api/providers/{quote(name, safe='')}/key"


def _asked_for(title: str) -> str:
    """From the terminal without echo, else one line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Key for {one_line(title)} (it is not shown): ")
    return sys.stdin.readline(MAX_VALUE + 2).rstrip("\r\n")


def _here(environ: Mapping[str, str]) -> Here:
    found = loaded(environ)
    place = paths.find(environ, found.settings)
    store = KeyStore(environ, place.config, cast("UserKeys", found.settings.user_keys), found.settings.keys_passphrase)
    return Here(catalog.load(catalog.standard(environ, place.config), environ), store)


def _provider(listed: Catalog, name: str) -> Provider:
    provider = listed.provider(name)
    if provider is None:
        known = [each.name for each in listed.providers]
        raise NotFound(
            f"There is no provider {one_line(name[:64])!r}.{near(name[:64], known)} "
            "`calliope-agent models --all` lists them."
        )
    return provider


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        print(one_line(line))
