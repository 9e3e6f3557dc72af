"""``calliope-agent models``: what can be asked, by whom it is played, and with which key; ``models pull`` fetches the local one."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

from calliope_agent import catalog, paths
from calliope_agent.catalog import Target
from calliope_agent.cli import models_pull
from calliope_agent.cli.place import loaded
from calliope_agent.cli.table import table
from calliope_agent.completion.route import Router
from calliope_agent.errors import ConfigError
from calliope_agent.keys import KeyStore, UserKeys
from calliope_agent.model import ROLES
from calliope_agent.provider import need_of


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    models_pull.configure(actions.add_parser("pull", help="fetch the local model's weights, hash-checked"))
    parser.add_argument("--all", action="store_true", help="providers without a key too")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if args.action == "pull":
        return models_pull.run(args, environ)
    rows = asyncio.run(_rows(environ, every=args.all))
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    head = ("provider", "model", "window", "key", "roles")
    print(
        table(
            head,
            (
                [row["provider"], row["model"], _tokens(row["window"]), row["key"], ", ".join(row["roles"])]
                for row in rows
            ),
        )
    )
    if not args.all:
        print("\nProviders without a key are left out; `calliope-agent models --all` shows them.")
    return 0


async def _rows(environ: Mapping[str, str], *, every: bool) -> list[dict[str, Any]]:
    found = loaded(environ)
    place = paths.find(environ, found.settings)
    store = KeyStore(environ, place.config, cast("UserKeys", found.settings.user_keys), found.settings.keys_passphrase)
    listed = catalog.load(catalog.standard(environ, place.config), environ)
    keys = {provider.name: await store.find(need_of(provider)) for provider in listed.providers}
    router = Router(listed, found.settings, lambda name: keys.get(name) is not None)
    roles = _roles(router)
    providers = listed.providers if every else listed.usable(router.has_key)
    return [
        {
            "provider": provider.name,
            "model": model.name,
            "window": model.context_tokens,
            "key": _key(keys[provider.name], needed=provider.key_required),
            "roles": roles.get(Target(provider, model).name, []),
        }
        for provider in providers
        for model in provider.models
    ]


def _roles(router: Router) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        playing = router.roles()
    except ConfigError:
        return found
    for role in ROLES:
        if role in playing:
            found.setdefault(playing[role].name, []).append(role)
    return found


def _key(key: Any, *, needed: bool) -> str:
    if key is not None:
        return str(key.label)
    return "missing" if needed else "not needed"


def _tokens(count: int | None) -> str:
    return "-" if count is None else f"{count // 1000}k" if count >= 1000 else str(count)
