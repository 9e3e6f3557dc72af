"""``calliope-agent providers``: who can be asked, one real call to find out, and providers of one's own.

Decisions
1. With a running agent that agent is asked: it may have keys that this shell's user must not have. Where none runs the same
   functions work on this user's files.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from calliope_agent import paths
from calliope_agent.cli.place import loaded, running
from calliope_agent.cli.table import table
from calliope_agent.errors import InvalidRequest, NotFound
from calliope_agent.log import one_line
from calliope_agent.tomlfile import near

WORDS = {"ready": "ready", "needs_key": "needs a key", "needs_address": "needs an address", "not_set_up": "not set up"}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every provider and its state")
    listing.add_argument("--json", action="store_true", help="as JSON")
    showing = actions.add_parser("show", help="one provider: address, key sources, models")
    showing.add_argument("name", help="the provider")
    showing.add_argument("--json", action="store_true", help="as JSON")
    checking = actions.add_parser("check", help="make one real call and say what came of it")
    checking.add_argument("name", help="the provider")
    adding = actions.add_parser("add", help="add a server that speaks OpenAI's or Anthropic's wire, or change it")
    adding.add_argument("name", help="a name of your choice: small letters, digits, hyphens")
    adding.add_argument("--base-url", required=True, help="what stands before /chat/completions or /messages")
    adding.add_argument("--wire", choices=["openai", "anthropic"], help="the API it speaks (openai)")
    adding.add_argument("--title", help="how it is shown")
    adding.add_argument("--no-key", action="store_true", help="it needs no key")
    adding.add_argument("--model", action="append", help="a model it offers; may be repeated")
    removing = actions.add_parser("rm", help="remove a provider that you added, and its key")
    removing.add_argument("name", help="the provider")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0, or for ``check`` 1 when the provider cannot be used."""
    status: int = _ACTIONS[args.action](args, environ)
    return status


def _list(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    told = _listed(environ)
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    print(table(("provider", "title", "state", "key", "address"), (_row(each) for each in told["providers"])))
    for problem in told["problems"]:
        print(f"problem: {one_line(problem)}")
    return 0


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    key = each["key"]
    shown = f"{key['label']} ({key['source']})" if key else "missing" if each["key_required"] else "-"
    return each["name"], each["title"], WORDS[each["state"]], shown, each["base_url"] or "-"


def _show(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    providers = {each["name"]: each for each in _listed(environ)["providers"]}
    each = providers.get(args.name)
    if each is None:
        raise NotFound(f"There is no provider {one_line(args.name[:64])!r}.{near(args.name[:64], providers)}")
    print(json.dumps(each, indent=2) if args.json else "\n".join(one_line(line) for line in _story(each)))
    return 0


def _story(each: Mapping[str, Any]) -> list[str]:
    source = each["base_url_source"]
    lines = [
        f"{each['title']} ({each['name']}): {WORDS[each['state']]}. {each['text']}",
        f"  address: {each['base_url'] or '-'} ({source['kind']}: {source['where']})",
        f"  wire: {each['wire']}, file: {each['place']} ({each['trust']})",
    ]
    lines += [
        f"  key: {line['source']}: {line['state']} {line['label'] or ''} {line['note']}".rstrip()
        for line in each["key_sources"]
    ]
    for model in each["models"]:
        plays = f" plays {', '.join(model['plays'])}" if model["plays"] else ""
        lines.append(f"  model: {model['name']}{plays}")
    return lines


def _check(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from calliope_agent.api import providers  # noqa: PLC0415  as in `_here`

    agent = running(environ)
    if agent is not None:
        told = agent.ask("POST", f"{_path(args.name)}/check", {})
    else:
        told = _here(environ, lambda here: providers.check_by_name(here, args.name))
    print(one_line(f"{args.name}: {told['state'].replace('_', ' ')}. {told['message']}"))
    for name in told["models"]:
        print(f"  {one_line(name)}")
    return 0 if told["state"] == "valid" else 1


def _add(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from calliope_agent.api import body, providers  # noqa: PLC0415  as in `_here`

    given: dict[str, Any] = {"base_url": args.base_url, "wire": args.wire, "title": args.title}
    given["key_required"] = False if args.no_key else None
    given["models"] = [{"name": name} for name in args.model] if args.model else None
    given = {name: value for name, value in given.items() if value is not None}
    agent = running(environ)
    if agent is not None:
        agent.ask("PUT", _path(args.name), given)
    else:
        fields = msgspec.convert(given, body.ProviderBody)
        _here(environ, lambda here: providers.store(here, args.name, fields))
    print(f"{one_line(args.name)}: written to config.toml.", end=" ")
    print("" if args.no_key else f"Set its key: calliope-agent keys set {one_line(args.name)}")
    return 0


def _remove(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from calliope_agent.api import providers  # noqa: PLC0415  as in `_here`

    agent = running(environ)
    if agent is not None:
        agent.ask("DELETE", _path(args.name))
    else:
        _here(environ, lambda here: providers.remove(here, args.name))
    print(f"{one_line(args.name)}: removed")
    return 0


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Mapping[str, str]], int]] = {
    "list": _list,
    "show": _show,
    "check": _check,
    "add": _add,
    "rm": _remove,
}


def _listed(environ: Mapping[str, str]) -> Any:
    from calliope_agent.api import provider_view  # noqa: PLC0415  as in `_here`

    agent = running(environ)
    return agent.ask("GET", "/api/providers") if agent is not None else _here(environ, provider_view.described)


def _here(environ: Mapping[str, str], act: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do it with an agent of this process, on this user's files."""
    # Imported here: the agent's libraries are half a second that a question to a running one does not need.
    from calliope_agent.agent import Agent  # noqa: PLC0415

    async def doing() -> Any:
        found = loaded(environ)
        agent = Agent(environ, found, paths.find(environ, found.settings))
        try:
            return await act(agent)
        finally:
            await agent.close()

    return asyncio.run(doing())


def _path(name: str) -> str:
    if not name or len(name) > 64:
        raise InvalidRequest("A provider's name has 1 to 64 characters.")
    return f"/api/providers/{quote(name, safe='')}"
