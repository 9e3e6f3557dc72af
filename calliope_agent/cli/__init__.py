"""The ``calliope-agent`` command.

Decisions
1. A command's module is imported when it is named, so that ``--help`` and ``token`` cost no more than they use.
2. Errors are one line on standard error and exit status 1; a wrong usage is argparse's 2; Ctrl-C is 130.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from calliope_agent import __version__
from calliope_agent.errors import AgentError

# name → (module under calliope_agent.cli, one line of help); the order is the order of --help.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("serve", "start the agent server"),
    "launch": ("launch", "start the whole container's stack: IDE, agent and Jupyter on one port"),
    "chat": ("chat", "ask a model and see the answer as it is written"),
    "models": ("models", "list the models that can be asked; `models pull` fetches the local one"),
    "ide": ("ide", "install the IDE, or say where it is"),
    "keys": ("keys", "set, list and remove your own keys"),
    "providers": ("providers", "list, check and add providers of models"),
    "cache": ("cache", "show or empty the cache of answers"),
    "env": ("env", "print the variables that point any tool at the agent"),
    "token": ("token", "print the agent's token, or make new ones"),
    "status": ("status", "say whether the agent runs and what it can do"),
    "why": ("why", "tell why an answer is what it is"),
    "doctor": ("doctor", "show every setting with its source, what is wrong and how to mend it"),
    "support-bundle": ("support_bundle", "write one file for who helps you, without secrets"),
}
EPILOG = """\
A first try:
  calliope-agent models pull         fetch the local model (needs the network once)
  calliope-agent serve &             start the server
  calliope-agent chat "Hello"        ask it
  eval "$(calliope-agent env)"       point the OpenAI and Anthropic SDKs of this shell at it

Keys are read from the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, ...) or kept by `calliope-agent keys set NAME`.
"""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(given)
    args = parser.parse_args(given)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        status: int = _module(args.command).run(args, dict(os.environ) if environ is None else environ)
    except AgentError as exc:
        print(f"calliope-agent: {exc.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error, and Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="calliope-agent",
        description="The backend of an in-IDE AI agent: one local door to every language model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"calliope-agent {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    named = next((word for word in given if not word.startswith("-")), None)
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == named:
            _module(name).configure(command)
    return parser


class Command(Protocol):
    """What a command's module offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, environ: Mapping[str, str]) -> int: ...


def _module(name: str) -> Command:
    return cast("Command", importlib.import_module(f"calliope_agent.cli.{COMMANDS[name][0]}"))
