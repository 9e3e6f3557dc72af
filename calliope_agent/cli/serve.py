"""``calliope-agent serve``."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping

from calliope_agent.cli.place import loaded


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", help="port on 127.0.0.1; 0 for any (CALLIOPE_AGENT_PORT)")
    parser.add_argument("--log-level", help="DEBUG, INFO, WARNING, ERROR or CRITICAL (LOG_LEVEL)")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    gc.disable()  # imports make nothing that could be collected; the server turns it on again when it is warm
    # Imported here: the server's libraries are half a second that `--help` does not need.
    from calliope_agent import server  # noqa: PLC0415

    named = {"CALLIOPE_AGENT_PORT": args.port, "LOG_LEVEL": args.log_level}
    return server.serve(environ, loaded(environ, {name: value for name, value in named.items() if value is not None}))
