"""The README's tables, made from what the program says of itself: ``python -m tests.readme --write``.

A table stands between ``<!-- name -->`` and ``<!-- /name -->``. Commands, endpoints, settings and providers are held by
tests/test_readme.py; figures of the bench and of the fault matrix are as old as the last ``--write``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any

from calliope_agent import catalog, settings
from calliope_agent.api.app import ENDPOINTS
from calliope_agent.catalog import Sources
from calliope_agent.cli import COMMANDS
from tests.bench import budget, stream_bench
from tests.bench.__main__ import RESULTS
from tests.bench.agent_bench import Figures

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def commands() -> str:
    return _table(
        ("command", "what it does"), ((f"`calliope-agent {name}`", text) for name, (_, text) in COMMANDS.items())
    )


def endpoints() -> str:
    rows = ((f"`{one.method} {one.path.replace(':path', '')}`", one.scope or "none", one.text) for one in ENDPOINTS)
    return _table(("endpoint", "token", "what"), rows)


def agent_settings() -> str:
    rows = ((f"`{variable}`", _default(item), item.metadata["help"]) for variable, item in settings.variables().items())
    return _table(("variable", "default", "meaning"), rows)


def providers() -> str:
    nowhere = Path("/nonexistent")
    sources = Sources(catalog.shipped_dir(), nowhere, nowhere, nowhere)
    found = sorted(catalog.load(sources, {}).providers, key=lambda provider: provider.name)
    rows = (
        (
            f"`{one.name}`",
            one.title,
            one.wire,
            _names(one.key_env or one.credentials_env),
            _names(one.base_url_env),
        )
        for one in found
    )
    return _table(("name", "provider", "reached by", "key", "address"), rows)


def bench() -> str | None:
    """The last run's figures, if there was one on this machine."""
    if not RESULTS.exists():
        return None
    told = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = told["machine"]
    return (
        f"Measured {machine['when'][:10]} on {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, with a load of "
        f"{machine['load']} before it.\n\n"
        f"{budget.table(budget.rows(Figures(**told['figures'])))}"
    )


def streams() -> str | None:
    """The last run of the streams' bench, if there was one on this machine."""
    if not stream_bench.RESULTS.exists():
        return None
    return stream_bench.report(json.loads(stream_bench.RESULTS.read_text(encoding="utf-8")))


def faults() -> str | None:
    """What the fault matrix says of itself."""
    if not (ROOT / "tests" / "faults" / "__main__.py").exists():
        return None
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--table"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


HELD: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "endpoints": endpoints,
    "settings": agent_settings,
    "providers": providers,
}
AS_MEASURED: Mapping[str, Callable[[], str | None]] = {"bench": bench, "streams": streams, "faults": faults}


def section(text: str, name: str) -> str:
    """What stands between the markers. Raises `LookupError` where they are missing."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    if found is None:
        raise LookupError(f"README.md has no markers <!-- {name} --> and <!-- /{name} -->")
    return found[1].rstrip("\n")


def written(text: str) -> str:
    """The README with its tables as they are now."""
    for name, make in {**HELD, **AS_MEASURED}.items():
        fresh = make()
        if fresh is not None:
            section(text, name)
            head, opening, rest = text.partition(f"<!-- {name} -->\n")
            text = f"{head}{opening}{fresh}\n<!-- /{name} -->{rest.partition(f'<!-- /{name} -->')[2]}"
    return text


def _default(item: Field[Any]) -> str:
    value = item.default if item.default is not MISSING else ()
    if value is None or value in ("", ()):
        return "-"
    shown = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    return f"{shown:g}" if isinstance(shown, float) else f"{shown}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.readme", description=__doc__)
    parser.add_argument("--write", action="store_true", required=True, help="bring README.md up to date")
    parser.parse_args()
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
