"""``calliope-agent status``: does the agent run, and what can it do?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from calliope_agent.cli.place import door
from calliope_agent.errors import AgentError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the agent's own answer")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 when a chat request could be tried, 3 when the agent runs but no model can answer."""
    found = door(environ)
    answer = found.open("GET", "/api/health")
    told: dict[str, Any] = json.loads(answer.read())
    if answer.status not in (200, 503) or "roles" not in told:
        raise AgentError(f"{found.url} refuses the token. Restart the agent or set CALLIOPE_AGENT_TOKEN.")
    if args.json:
        print(json.dumps(told, indent=2))
    else:
        print(f"{told['status']} at {found.url} (version {told['version']})")
        if told["problem"]:
            print(f"  problem: {told['problem']}")
        for role, target in told["roles"].items():
            print(f"  {role:<7} {target}")
        print(f"  local model: {told['components']['local']['state']}")
        for problem in told["components"]["providers"]["problems"]:
            print(f"  problem: {problem}")
    return 0 if answer.status == 200 else 3
