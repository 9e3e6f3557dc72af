"""``calliope-agent launch``: the whole stack on one port, under a hub or alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from calliope_agent.errors import ConfigError
from calliope_agent.launcher.guard import guarded


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Start IDE, agent and Jupyter Server on one port and keep them running until stopped."
        " Every option is passed on to Jupyter Server, as hubs do with c.Spawner.args."
    )
    known = parser.parse_known_args

    def parse(args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        # argparse.REMAINDER takes no leading option, and Jupyter's options are nothing else.
        found, rest = known(args, namespace)
        found.jupyter = rest
        return found, []

    parser.parse_known_args = parse  # type: ignore[method-assign, assignment]


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """The exit code: 0 after a stop that the person asked for, 143 after SIGTERM, 1 for what is to be mended."""
    extra = tuple(word for word in args.jupyter if word != "--")
    return guarded(lambda: _launch(environ, extra))


def _launch(environ: Mapping[str, str], extra: tuple[str, ...]) -> int:
    # Below the guard, so that the guard's own process stays small.
    from calliope_agent.launcher import launch, place, runtime  # noqa: PLC0415

    try:
        where = place.decide(environ, extra)
        claim = runtime.Claim(where.runtime, where.url, port=where.bind[1], tls=where.tls)
        launch.check_ports(where)
    except runtime.AlreadyRunning as exc:
        print(exc.message)  # what was asked for is there: no error, as with `serve`
        return 0
    except ConfigError as exc:
        print(f"calliope-agent: {exc.message}", file=sys.stderr)
        return 1
    for note in where.options.notes:
        print(f"calliope-agent: {note}", file=sys.stderr)
    if where.hub.server_name:
        print(f"Running as named server: {where.hub.server_name} for user: {where.hub.user}", file=sys.stderr)
    if not where.hub.present:
        print(f"Open {where.url}?token={where.token.reveal()}", file=sys.stderr, flush=True)
    try:
        return launch.run(where, environ, extra)
    finally:
        claim.drop()
