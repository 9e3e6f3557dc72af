"""``calliope-agent why``: the story of one answer, or a list of the last ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from calliope_agent.cli.place import door
from calliope_agent.cli.table import table
from calliope_agent.log import one_line

LISTED = 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="a request's id (x-request-id); without it the last ones are listed")
    parser.add_argument("--json", action="store_true", help="the agent's own record")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    path = f"/v1/requests/{quote(args.id, safe='')}" if args.id else f"/v1/requests?limit={LISTED}"
    told = door(environ).ask("GET", path)
    if args.json:
        print(json.dumps(told, indent=2))
    elif args.id:
        print("\n".join(one_line(line) for line in story(told)))
    else:
        head = ("id", "when", "asked", "answered by", "outcome", "first token")
        print(table(head, (_row(record) for record in told["data"])))
    return 0


def story(record: Mapping[str, Any]) -> list[str]:
    """One request's record as sentences."""
    lines = [f"{record['id']}: {record['kind']} for {record['asked']!r}, {record['arrived_at']}"]
    for number, attempt in enumerate(record["attempts"], 1):
        outcome = attempt["code"] or "answered"
        status = f", status {attempt['status']}" if attempt["status"] else ""
        key = f", key {attempt['key']}" if attempt["key"] else ""
        took = f", {attempt['ended_ms'] - attempt['started_ms']:.0f} ms" if attempt["ended_ms"] is not None else ""
        lines.append(f"  attempt {number}: {attempt['target']}: {outcome}{status}{took}{key}")
        if attempt["note"]:
            lines.append(f"    {attempt['note']}")
        if attempt["waited_ms"]:
            lines.append(f"    then waited {attempt['waited_ms']:.0f} ms")
    if record["fallback_cause"]:
        lines.append(f"  fell back because of {record['fallback_cause']}")
    lines += [f"  note: {note}" for note in record["notes"]]
    lines.append(f"  outcome: {record['outcome']}{_result(record)}")
    lines.append(
        f"  cache: {record['cache']}; first token {_ms(record['ttft_ms'])}, of which ours {_ms(record['overhead_ms'])}"
    )
    return lines


def _result(record: Mapping[str, Any]) -> str:
    if record["code"]:
        return f", {record['status']} {record['code']}: {record['message']}"
    return f" by {record['target']}, finish {record['finish']}" if record["finish"] else ""


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    outcome = record["code"] or record["outcome"]
    return (
        record["id"],
        record["arrived_at"][11:19],
        record["asked"] or "-",
        record["target"] or "-",
        outcome,
        _ms(record["ttft_ms"]),
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
