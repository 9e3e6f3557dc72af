"""What an answer says, read from any wire and either form: for comparing two that should say the same."""

from __future__ import annotations

import json
from typing import Any


def facts(body: str) -> dict[str, Any]:
    """Text, reasoning, tool calls, finish and usage of a stream's or a plain answer's whole body."""
    found: dict[str, Any] = {"text": "", "reasoning": "", "calls": {}, "finish": None}
    if body.lstrip().startswith("{"):
        _whole(json.loads(body), found)
    else:
        for line in body.splitlines():
            if line.startswith("data: {"):
                _event(json.loads(line[6:]), found)
    found["calls"] = [(name, json.loads(arguments or "{}")) for name, arguments in found["calls"].values()]
    return found


def _whole(answer: dict[str, Any], found: dict[str, Any]) -> None:
    for choice in answer.get("choices", []):
        _parts(choice.get("message") or {"content": choice.get("text")}, found)
        found["finish"] = choice["finish_reason"]
    for number, block in enumerate(answer.get("content", [])):
        _block(number, block, found)
    found["finish"] = answer.get("stop_reason", found["finish"])


def _event(event: dict[str, Any], found: dict[str, Any]) -> None:
    for choice in event.get("choices", []):
        _parts(choice.get("delta") or {"content": choice.get("text")}, found)
        found["finish"] = choice.get("finish_reason") or found["finish"]
    delta = event.get("delta") or {}
    if event.get("type") == "content_block_start":
        _block(event["index"], event["content_block"], found)
    if event.get("type") == "content_block_delta":
        found["text"] += delta.get("text", "")
        found["reasoning"] += delta.get("thinking", "")
        if "partial_json" in delta:
            found["calls"][event["index"]][1] += delta["partial_json"]
    found["finish"] = delta.get("stop_reason") or found["finish"]


def _parts(delta: dict[str, Any], found: dict[str, Any]) -> None:
    found["text"] += delta.get("content") or ""
    found["reasoning"] += delta.get("reasoning_content") or ""
    for number, call in enumerate(delta.get("tool_calls") or []):
        known = found["calls"].setdefault(call.get("index", number), ["", ""])
        known[0] += call["function"].get("name") or ""
        known[1] += call["function"].get("arguments") or ""


def _block(number: int, block: dict[str, Any], found: dict[str, Any]) -> None:
    found["text"] += block.get("text", "")
    found["reasoning"] += block.get("thinking", "")
    if block["type"] == "tool_use":
        found["calls"][number] = [block["name"], json.dumps(block["input"]) if block["input"] else ""]


def numbered(body: bytes) -> list[bytes]:
    """The events of a resumable stream, whole ones only."""
    return [block for block in body.split(b"\n\n")[:-1] if block.startswith(b"id: ")]


def last_id(events: list[bytes]) -> str:
    """The id of the last one."""
    return events[-1].split(b"\n")[0].removeprefix(b"id: ").decode()
