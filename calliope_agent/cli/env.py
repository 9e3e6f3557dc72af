"""``calliope-agent env``: the variables that point a shell's tools at the agent."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping

from calliope_agent.cli.place import door


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as a JSON object instead of shell lines")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    found = door(environ)
    variables = tool_environment(found.url, found.token.reveal())
    if args.json:
        print(json.dumps(variables, indent=2))
    else:
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def tool_environment(url: str, token: str) -> dict[str, str]:
    """Variables of the OpenAI and Anthropic SDKs and of tools that follow them; the token is no provider's key."""
    return {
        "CALLIOPE_AGENT_URL": url,
        "CALLIOPE_AGENT_TOKEN": token,
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_BASE": f"{url}/v1",
        "OPENAI_API_KEY": token,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": token,
    }
