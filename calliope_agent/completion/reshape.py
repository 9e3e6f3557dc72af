"""A kept answer in the other form: a recorded stream as one body, a kept body as a stream.

Decisions
1. The same form is given back byte by byte; the other form holds the same facts and invents none: no usage that was not told, no
   finish that was not given.
2. A form that cannot be made (Responses events, a usage chunk asked for where the provider told no usage) is a miss, not a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from calliope_agent.completion.entry import Entry
from calliope_agent.upstream.attempt import Call
from calliope_agent.upstream.sse import SseParser, frame

JSON = "application/json"
_JOINED = ("content", "reasoning_content", "reasoning", "refusal")


def fitted(entry: Entry, call: Call) -> Entry | None:
    """The entry in the form that ``call`` asks for, or None."""
    if call.kind == "responses":
        return entry if (entry.kind == "stream") == call.stream else None
    if not call.stream:
        return entry if entry.kind == "plain" else _as_plain(entry, call)
    if call.wire == "anthropic":
        return entry if entry.kind == "stream" else _with_frames(entry, _message_frames(_decoded(entry)))
    wants_usage = _wants_usage(call)
    if wants_usage and entry.usage is None:
        return None
    frames = list(entry.frames) if entry.kind == "stream" else _chunk_frames(_decoded(entry), call)
    told = [item for item in frames if b'"usage"' not in item or not _is_usage_alone(item)]
    if wants_usage and len(told) == len(frames):
        return _with_frames(entry, [*frames, _usage_frame(entry, frames)])
    return _with_frames(entry, frames if wants_usage else told)


def _with_frames(entry: Entry, frames: list[bytes]) -> Entry:
    return msgspec.structs.replace(entry, kind="stream", frames=tuple(frames), body=None)


def _as_plain(entry: Entry, call: Call) -> Entry | None:
    events = [msgspec.json.decode(event.data) for event in SseParser().feed(b"".join(entry.frames))]
    whole = _whole_message(events) if call.wire == "anthropic" else _whole_completion(events, entry)
    if whole is None:
        return None
    return msgspec.structs.replace(entry, kind="plain", body=msgspec.json.encode(whole), content_type=JSON, frames=())


def _decoded(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(entry.body or b"{}")
    return found


def _wants_usage(call: Call) -> bool:
    options = call.field("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _is_usage_alone(encoded: bytes) -> bool:
    chunk = msgspec.json.decode(SseParser().feed(encoded)[0].data)
    return chunk.get("choices") == [] and chunk.get("usage") is not None


def _usage_frame(entry: Entry, frames: list[bytes]) -> bytes:
    head = msgspec.json.decode(SseParser().feed(frames[0])[0].data)
    chunk = {name: head[name] for name in ("id", "object", "created", "model") if name in head}
    return frame(msgspec.json.encode({**chunk, "choices": [], "usage": entry.usage}))


def _whole_completion(events: list[dict[str, Any]], entry: Entry) -> dict[str, Any] | None:
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in event.get("choices") or []:
            _add_choice(choices.setdefault(choice.get("index", 0), {}), choice)
    if not choices or not events:
        return None
    head = events[0]
    kind = "text_completion" if head.get("object") == "text_completion" else "chat.completion"
    whole = {"id": head.get("id"), "object": kind, "created": head.get("created"), "model": head.get("model")}
    whole["choices"] = [_whole_choice(index, choices[index]) for index in sorted(choices)]
    return {**whole, "usage": entry.usage}


def _add_choice(into: dict[str, Any], choice: Mapping[str, Any]) -> None:
    delta = choice.get("delta") or {}
    for name in _JOINED:
        if isinstance(delta.get(name), str):
            into[name] = into.get(name, "") + delta[name]
    if isinstance(choice.get("text"), str):
        into["text"] = into.get("text", "") + choice["text"]
    for call in delta.get("tool_calls") or []:
        _add_call(into.setdefault("tool_calls", {}).setdefault(call.get("index", 0), {}), call)
    if choice.get("finish_reason"):
        into["finish_reason"] = choice["finish_reason"]


def _add_call(into: dict[str, Any], call: Mapping[str, Any]) -> None:
    function = call.get("function") or {}
    known = into.setdefault("function", {"name": "", "arguments": ""})
    into["id"] = into.get("id") or call.get("id")
    into["type"] = into.get("type") or call.get("type") or "function"
    known["name"] = known["name"] or function.get("name") or ""
    known["arguments"] += function.get("arguments") or ""


def _whole_choice(index: int, parts: Mapping[str, Any]) -> dict[str, Any]:
    finish = {"index": index, "finish_reason": parts.get("finish_reason"), "logprobs": None}
    if "text" in parts:
        return {**finish, "text": parts["text"]}
    message: dict[str, Any] = {"role": "assistant", "content": parts.get("content")}
    message |= {name: parts[name] for name in _JOINED[1:] if name in parts}
    if "tool_calls" in parts:
        message["tool_calls"] = [parts["tool_calls"][number] for number in sorted(parts["tool_calls"])]
    return {**finish, "message": message}


def _chunk_frames(body: Mapping[str, Any], call: Call) -> list[bytes]:
    kind = "text_completion" if call.kind == "completions" else "chat.completion.chunk"
    head = {"id": body.get("id"), "object": kind, "created": body.get("created"), "model": body.get("model")}
    frames: list[bytes] = []
    for choice in body.get("choices") or []:
        index, finish = choice.get("index", 0), choice.get("finish_reason")
        parts: list[dict[str, Any]] = []
        if "text" in choice:
            parts.append({"index": index, "text": choice["text"], "finish_reason": finish})
        else:
            parts.append({"index": index, "delta": _delta_of(choice.get("message") or {}), "finish_reason": None})
            parts.append({"index": index, "delta": {}, "finish_reason": finish})
        frames += [frame(msgspec.json.encode({**head, "choices": [part]})) for part in parts]
    return frames


def _delta_of(message: Mapping[str, Any]) -> dict[str, Any]:
    delta = {name: value for name, value in message.items() if value is not None}
    if delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(delta["tool_calls"])]
    return delta


def _whole_message(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        if event.get("type") == "message_start":
            message = dict(event.get("message") or {})
        elif event.get("type") == "content_block_start":
            blocks[event.get("index", 0)] = dict(event.get("content_block") or {})
        elif event.get("type") == "content_block_delta":
            _add_to_block(blocks.setdefault(event.get("index", 0), {}), event.get("delta") or {})
        elif event.get("type") == "message_delta" and message is not None:
            message |= event.get("delta") or {}
            message["usage"] = {**(message.get("usage") or {}), **(event.get("usage") or {})}
    if message is None:
        return None
    return {**message, "content": [_whole_block(blocks[index]) for index in sorted(blocks)]}


_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def _add_to_block(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    kind = delta.get("type", "")
    if kind in _DELTAS:
        name = _DELTAS[kind]
        block[name] = block.get(name, "") + (delta.get(name) or "")
    elif kind == "input_json_delta":
        block["_json"] = block.get("_json", "") + (delta.get("partial_json") or "")
    elif kind == "citations_delta":
        block.setdefault("citations", []).append(delta.get("citation"))


def _whole_block(block: dict[str, Any]) -> dict[str, Any]:
    arguments = block.pop("_json", None)
    if arguments:
        block["input"] = msgspec.json.decode(arguments)
    return block


def _message_frames(message: dict[str, Any]) -> list[bytes]:
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message.get("content") or []):
        events += _block_events(index, block)
    delta = {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")}
    events.append({"type": "message_delta", "delta": delta, "usage": message.get("usage") or {}})
    events.append({"type": "message_stop"})
    return [frame(msgspec.json.encode(event), event["type"].encode()) for event in events]


def _block_events(index: int, block: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Text and arguments come as deltas, as clients expect; everything else is whole in its start."""
    opened, deltas = dict(block), []
    for kind, name in _DELTAS.items():
        if isinstance(block.get(name), str):
            opened[name] = ""
            deltas.append({"type": kind, name: block[name]})
    if "input" in block:
        opened["input"] = {}
        deltas.append({"type": "input_json_delta", "partial_json": msgspec.json.encode(block["input"]).decode()})
    start = {"type": "content_block_start", "index": index, "content_block": opened}
    middle = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [start, *middle, {"type": "content_block_stop", "index": index}]
