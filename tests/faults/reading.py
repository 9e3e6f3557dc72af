"""What a caller reads: the answer's bytes, taken apart by rules written a second time, and every promise of the stream checked.

Nothing of the package is used here: a parser that shares the encoder's mistake would not see it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

FINISHES = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "completed": "stop",
    "incomplete": "length",
}


@dataclass
class Reading:
    """``wrong`` lists the broken promises, in words."""

    status: int
    headers: Mapping[str, str]
    raw: str
    said: str = ""
    finish: str | None = None
    code: str | None = None
    message: str = ""
    event_status: int | None = None
    flagged: bool = False
    wrong: list[str] = field(default_factory=list)


def read(client: str, *, stream: bool, status: int, headers: Mapping[str, str], raw: str) -> Reading:
    """Takes one answer apart."""
    reading = Reading(status, headers, raw)
    if status != 200:
        _failure(reading, client)
    elif not stream:
        _expect(reading, headers["content-type"] == "application/json", "a plain answer is JSON")
        _PLAIN[client](reading, json.loads(raw))
    else:
        _expect(reading, headers["content-type"].startswith("text/event-stream"), "a stream is SSE")
        _expect(reading, headers.get("x-accel-buffering") == "no", "no proxy may hold the stream back")
        _expect(reading, headers.get("cache-control") == "no-cache, no-transform", "no proxy may rewrite the stream")
        _STREAMS[client](reading, list(_events(raw)))
    reading.flagged = "arguments_incomplete" in (headers.get("x-calliope-note", "") + raw)
    return reading


def _expect(reading: Reading, held: bool, promise: str) -> None:
    if not held:
        reading.wrong.append(f"not so: {promise}")


def _failure(reading: Reading, client: str) -> None:
    _expect(reading, reading.headers["content-type"] == "application/json", "an error is JSON")
    _expect(reading, reading.headers.get("x-should-retry") == "false", "the SDKs are told not to multiply")
    _error(reading, client, json.loads(reading.raw))


def _error(reading: Reading, client: str, told: dict[str, Any]) -> None:
    error = told["error"]
    if client == "messages":
        _expect(reading, told.get("type") == "error", "an error of the Anthropic wire has type error")
        identifier = told.get("request_id")
    else:
        _expect(reading, set(told) == {"error"}, "an error of the OpenAI wire is one object")
        identifier = error.get("request_id")
        reading.event_status = error.get("status")
    _expect(reading, identifier == reading.headers["x-request-id"], "the error names its request")
    _expect(reading, isinstance(error.get("type"), str), "the error has a type")
    reading.code, reading.message = error["code"], error["message"]


def _events(raw: str) -> Iterator[tuple[str, str]]:
    """Name and data of each event; our own encoder ends lines by LF only."""
    for block in raw.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name = "".join(line.removeprefix("event: ") for line in lines if line.startswith("event: "))
            yield name, "\n".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))


def _told_calls(calls: Mapping[int, list[str]]) -> str:
    """Each call's name and the arguments as far as they came."""
    return "".join(f"{name}({''.join(arguments)})" for name, *arguments in calls.values())


def _chat_stream(reading: Reading, events: list[tuple[str, str]]) -> None:
    calls: dict[int, list[str]] = {}
    done = [at for at, (_, data) in enumerate(events) if data == "[DONE]"]
    for at, (_, data) in enumerate(events):
        if data == "[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            _error(reading, "chat", chunk)
            _expect(reading, at == len(events) - 1, "an error event is the last one")
            continue
        for choice in chunk["choices"]:
            _chat_choice(reading, choice, calls)
    reading.said += _told_calls(calls)
    whole = reading.code is None
    _expect(reading, done == ([len(events) - 1] if whole else []), "[DONE] ends whole streams, and only those")


def _chat_choice(reading: Reading, choice: dict[str, Any], calls: dict[int, list[str]]) -> None:
    delta = choice.get("delta") or {}
    reading.said += delta.get("content") or choice.get("text") or ""
    for call in delta.get("tool_calls") or []:
        parts = calls.setdefault(call["index"], [])
        parts += [text for key in ("name", "arguments") if (text := call["function"].get(key))]
    if choice.get("finish_reason"):
        _expect(reading, reading.finish is None, "one finish a stream")
        reading.finish = choice["finish_reason"]


def _message_stream(reading: Reading, events: list[tuple[str, str]]) -> None:
    calls: dict[int, list[str]] = {}
    names = [name for name, _ in events]
    for at, (name, data) in enumerate(events):
        event = json.loads(data)
        _expect(reading, event["type"] == name, "an event's name is its type")
        if name == "error":
            _error(reading, "messages", event)
            _expect(reading, at == len(events) - 1, "an error event is the last one")
        _message_event(reading, event, calls)
    reading.said += _told_calls(calls)
    whole = reading.code is None
    stops = [at for at, name in enumerate(names) if name == "message_stop"]
    _expect(reading, stops == ([len(events) - 1] if whole else []), "message_stop ends whole streams, and only those")
    _expect(reading, names.count("message_start") <= 1, "one message_start a stream")


def _message_event(reading: Reading, event: dict[str, Any], calls: dict[int, list[str]]) -> None:
    delta = event.get("delta") or {}
    block = event.get("content_block") or {}
    reading.said += delta.get("text", "") + block.get("text", "")
    if block.get("type") == "tool_use":
        calls[event["index"]] = [block["name"]]
    if "partial_json" in delta:
        calls[event["index"]].append(delta["partial_json"])
    if delta.get("stop_reason"):
        _expect(reading, reading.finish is None, "one finish a stream")
        reading.finish = FINISHES.get(delta["stop_reason"], delta["stop_reason"])


def _response_stream(reading: Reading, events: list[tuple[str, str]]) -> None:
    ends = []
    for at, (name, data) in enumerate(events):
        event = json.loads(data)
        _expect(reading, event["type"] == name, "an event's name is its type")
        if name == "error":
            reading.code, reading.message = event["code"], event["message"]
            _expect(reading, set(event) == {"type", "code", "message", "param"}, "an error event is flat")
            _expect(reading, at == len(events) - 1, "an error event is the last one")
        if name == "response.output_text.delta":
            reading.said += event["delta"]
        if name in ("response.completed", "response.incomplete"):
            ends.append(at)
            reading.finish = FINISHES[event["response"]["status"]]
    whole = reading.code is None
    _expect(reading, ends == ([len(events) - 1] if whole else []), "its end ends whole streams, and only those")


def _plain_chat(reading: Reading, answer: dict[str, Any]) -> None:
    (choice,) = answer["choices"]
    message = choice.get("message") or {"content": choice["text"]}
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
    reading.said = (message.get("content") or "") + "".join(f"{name}({arguments})" for name, arguments in calls)
    reading.finish = choice["finish_reason"]


def _plain_message(reading: Reading, answer: dict[str, Any]) -> None:
    for block in answer["content"]:
        if block["type"] == "text":
            reading.said += block["text"]
        elif block["type"] == "tool_use":
            reading.said += f"{block['name']}({json.dumps(block['input'])})"
    reading.finish = FINISHES.get(answer["stop_reason"], answer["stop_reason"])


def _plain_response(reading: Reading, answer: dict[str, Any]) -> None:
    parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    reading.said = "".join(part["text"] for part in parts)
    reading.finish = FINISHES[answer["status"]]


_PLAIN = {
    "chat": _plain_chat,
    "completions": _plain_chat,
    "messages": _plain_message,
    "responses": _plain_response,
}
_STREAMS = {
    "chat": _chat_stream,
    "completions": _chat_stream,
    "messages": _message_stream,
    "responses": _response_stream,
}
