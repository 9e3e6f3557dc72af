"""``calliope-agent doctor``: every setting with its source, what is wrong, and how to mend it."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from calliope_agent import __version__, catalog, paths, settings, tomlfile
from calliope_agent.cli.place import door
from calliope_agent.cli.table import table
from calliope_agent.custody import separation
from calliope_agent.errors import AgentError, ConfigError
from calliope_agent.keys import KeyStore, UserKeys
from calliope_agent.keys.need import OWN_PREFIX
from calliope_agent.paths import Paths
from calliope_agent.provider import need_of
from calliope_agent.secret import Secret
from calliope_agent.settings import Loaded, Settings
from calliope_agent.upstream import weights


@dataclass(slots=True)
class Report:
    """``wrong`` must be mended, ``notes`` are worth knowing."""

    settings: list[tuple[str, str, str]] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 when nothing is wrong, 1 otherwise."""
    report = asyncio.run(examine(environ))
    if args.json:
        print(json.dumps(as_dict(report), indent=2))
    else:
        print(_as_text(report))
    return 1 if report.wrong else 0


async def examine(environ: Mapping[str, str]) -> Report:
    """Everything that can be known without asking a provider."""
    report = Report()
    try:
        loaded = settings.load(environ)
    except ConfigError as exc:
        report.wrong.append(exc.message)
        return report
    place = paths.find(environ, loaded.settings)
    loaded = _with_file(loaded, place, environ, report)
    report.settings = [_line(variable, item.name, loaded) for variable, item in settings.variables().items()]
    report.notes += loaded.warnings
    _look_at_own_address(environ, place, report)
    await _look_at_providers(environ, loaded.settings, place, report)
    _look_at_machine(environ, place, report)
    return report


def _with_file(loaded: Loaded, place: Paths, environ: Mapping[str, str], report: Report) -> Loaded:
    if not place.config_file.exists():
        report.notes.append(f"There is no {place.config_file}; settings come from the environment and the defaults.")
        return loaded
    try:
        loaded = settings.load(environ, tomlfile.read(place.config_file))
    except ConfigError as exc:
        report.wrong.append(exc.message)
    report.wrong += loaded.problems
    return loaded


def _line(variable: str, name: str, loaded: Loaded) -> tuple[str, str, str]:
    value = getattr(loaded.settings, name)
    shown = "-" if value is None or value in ((), {}) else value.label if isinstance(value, Secret) else str(value)
    return variable, shown, loaded.origins[name].where


def _look_at_own_address(environ: Mapping[str, str], place: Paths, report: Report) -> None:
    """A shell of ours has the agent's address as OPENAI_BASE_URL: as a provider's it would be a loop, so it is ignored."""
    for name, value in sorted(environ.items()):
        if name.endswith("_API_KEY") and value.startswith(OWN_PREFIX):
            report.notes.append(f"{name} is this agent's own token, so it is ignored as a provider's key.")
    try:
        door(environ)
    except AgentError:
        report.notes.append(f"No agent runs here ({place.agent_file} names none). Start it: calliope-agent serve")


async def _look_at_providers(environ: Mapping[str, str], found: Settings, place: Paths, report: Report) -> None:
    own = _own_origins(place, found)
    listed = catalog.load(catalog.standard(environ, place.config), environ, own_origins=own)
    report.wrong += listed.problems
    report.notes += listed.notes
    store = KeyStore(environ, place.config, cast("UserKeys", found.user_keys), found.keys_passphrase)
    kept = await store.describe()
    report.notes.append(f"Keys of your own: {kept.why}.")
    report.notes += kept.notes
    present: set[str] = set()
    for provider in listed.providers:
        key = await store.find(need_of(provider))
        if key is not None:
            present.add(provider.name)
            report.keys.append((provider.name, key.label))
        else:
            reasons = (
                line.note for line in await store.sources(need_of(provider)) if line.note and line.state == "broken"
            )
            report.wrong += [f"{provider.name}: {reason}" for reason in reasons]
    usable = listed.usable(lambda name: name in present)
    if all(provider.embedded for provider in usable):
        report.notes.append("No provider has a key, so the local model answers. Set one: calliope-agent keys set NAME")


def _own_origins(place: Paths, found: Settings) -> tuple[str, ...]:
    try:
        told = json.loads(place.agent_file.read_text(encoding="utf-8"))
        return (str(told["url"]),)
    except (OSError, ValueError, KeyError, TypeError):
        return (f"http://127.0.0.1:{found.agent_port}",)


def _look_at_machine(environ: Mapping[str, str], place: Paths, report: Report) -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        report.notes.append(f"The local model's engine is not installed. {weights.how_to_install()}")
    report.notes += separation(environ).reasons
    mounts = Path("/proc/self/mounts")
    if mounts.exists():
        kind = paths.network_file_system(place.config, mounts.read_text(encoding="utf-8", errors="replace"))
        if kind:
            report.notes.append(
                f"{place.config} lies on a network file system ({kind}); state is kept at {place.state}."
            )
    report.notes.append(f"calliope-agent {__version__}, Python {sys.version.split()[0]}, user {os.geteuid()}")


def as_dict(report: Report) -> dict[str, Any]:
    return {
        "settings": [{"variable": name, "value": value, "source": source} for name, value, source in report.settings],
        "keys": [{"provider": name, "key": label} for name, label in report.keys],
        "wrong": report.wrong,
        "notes": report.notes,
    }


def _as_text(report: Report) -> str:
    parts = [table(("setting", "value", "source"), report.settings)] if report.settings else []
    if report.keys:
        parts.append(table(("provider", "key"), report.keys))
    parts.append(
        "\n".join([*(f"wrong: {line}" for line in report.wrong), *(f"note:  {line}" for line in report.notes)])
    )
    parts.append("Nothing is wrong." if not report.wrong else f"{len(report.wrong)} to mend.")
    return "\n\n".join(parts)
