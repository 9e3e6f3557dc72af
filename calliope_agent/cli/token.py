"""``calliope-agent token``: the local bearer tokens.

Decisions
1. ``rotate`` asks the running agent, which takes the new token at that moment and refuses the old one from then on. Only where
   none runs are the files written directly; the next start reads them.
2. The settings token is rotated on request only (``--manage``): the launcher's page holds it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from calliope_agent import paths, tokens
from calliope_agent.cli.place import door, loaded, running


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", nargs="?", choices=["show", "rotate"], default="show", help="rotate makes a new token"
    )
    parser.add_argument("--manage", action="store_true", help="the token that may change settings")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if args.action == "rotate":
        _rotate("manage" if args.manage else "complete", environ)
    else:
        print(door(environ, manage=args.manage).token.reveal())
    return 0


def _rotate(name: tokens.Name, environ: Mapping[str, str]) -> None:
    agent = running(environ)
    if agent is not None:
        agent.ask("POST", "/api/tokens/rotate", {"tokens": [name]})
        print("The old token is worth nothing now.", end=" ")
    else:
        found = loaded(environ).settings
        place = paths.find(environ, found)
        paths.private(place.runtime)
        tokens.Kept(place, found).rotate([name])
        print("A new token is in place for the next start.", end=" ")
    print(
        "Show it: calliope-agent token --manage" if name == "manage" else 'In open shells: eval "$(calliope-agent env)"'
    )
