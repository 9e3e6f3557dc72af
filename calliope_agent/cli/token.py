"""``calliope-agent token``: the local bearer token."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from calliope_agent import paths, tokens
from calliope_agent.cli.place import door, loaded


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=["show", "rotate"], default="show", help="rotate makes new tokens")
    parser.add_argument("--manage", action="store_true", help="the token that may change settings")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if args.action == "rotate":
        place = paths.find(environ, loaded(environ).settings)
        paths.private(place.runtime)
        tokens.rotate(place)
        print('New tokens are in place. Restart the agent, and run `eval "$(calliope-agent env)"` in open shells.')
        return 0
    print(door(environ, manage=args.manage).token.reveal())
    return 0
