"""The event streams of each wire: OpenAI chat, text and FIM completions, OpenAI responses, Anthropic messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.upstream_answers import Failure, Raw, Reasoning, Text, ToolArguments, ToolStart
from tests.upstream_bodies import (
    CREATED,
    STOP_REASONS,
    error_object,
    error_text,
    message_object,
    output_items,
    response_object,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstream_answers import Answer, Framing, Piece
    from tests.upstream_bodies import Call


class Event(NamedTuple):
    """One SSE event before framing. ``content`` says that it carries a piece and so counts in a script."""

    data: dict[str, Any] | str
    name: str | None = None
    content: bool = False
    raw: bytes | None = None


class Frame(NamedTuple):
    data: bytes
    content: bool


def frames(answer: Answer, call: Call) -> Iterator[Frame]:
    """The stream's events, framed; the first carries the byte order mark if one is wanted."""
    events = {"messages": _messages, "responses": _responses}.get(call.wire, _chat)
    first = b"\xef\xbb\xbf" if answer.framing.bom else b""
    for event in events(answer, call):
        yield Frame(first + _framed(event, answer.framing), event.content)
        first = b""


def _framed(event: Event, framing: Framing) -> bytes:
    if event.raw is not None:
        return event.raw
    indent = 1 if framing.multiline and not isinstance(event.data, str) else None
    data = event.data if isinstance(event.data, str) else json.dumps(event.data, ensure_ascii=False, indent=indent)
    colon = ": " if framing.space else ":"
    lines = [": scripted comment", ":", "id: 1", "retry: 3000"] if framing.comments else []
    if event.name:
        lines.append(f"event{colon}{event.name}")
    lines += [f"data{colon}{line}" for line in data.split("\n")]
    return b"".join(line.encode() + framing.newline for line in [*lines, ""])


def _foreign(piece: Raw | Failure, answer: Answer, call: Call) -> Event:
    if isinstance(piece, Raw):
        return Event("", raw=piece.data)
    name = "error" if call.wire in {"messages", "responses"} else None
    return Event(error_object(call, piece.status, error_text(answer, call, piece.message), piece.code), name)


# OpenAI chat and text completions.


def _chunk(answer: Answer, call: Call, choices: list[dict[str, Any]]) -> dict[str, Any]:
    kind = "text_completion" if call.wire == "text" else "chat.completion.chunk"
    model = answer.model or call.model
    return {"id": "chatcmpl-scripted", "object": kind, "created": CREATED, "model": model, "choices": choices}


def _choice(call: Call, delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
    if call.wire == "text":
        return [{"index": 0, "text": delta.get("content", ""), "finish_reason": finish}]
    return [{"index": 0, "delta": delta, "finish_reason": finish}]


def _delta(piece: Piece, tool: int) -> dict[str, Any]:
    match piece:
        case Text(said):
            return {"content": said}
        case Reasoning(said):
            return {"reasoning_content": said}
        case ToolStart(name, call_id):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": tool, "id": call_id, "type": "function", "function": function}]}
        case ToolArguments(fragment):
            return {"tool_calls": [{"index": tool, "function": {"arguments": fragment}}]}
    raise AssertionError(f"no delta for {piece}")


def _chat(answer: Answer, call: Call) -> Iterator[Event]:
    for _ in range(answer.openings):
        yield Event(_chunk(answer, call, _choice(call, {"role": "assistant", "content": ""})))
    tool = -1
    for piece in answer.pieces:
        tool += isinstance(piece, ToolStart)
        if isinstance(piece, Raw | Failure):
            yield _foreign(piece, answer, call)
        else:
            yield Event(_chunk(answer, call, _choice(call, _delta(piece, tool))), content=True)
    for _ in range(answer.finishes):
        yield Event(_chunk(answer, call, _choice(call, {}, answer.finish)))
    if answer.usage and answer.finishes and (call.include_usage or answer.usage_unasked):
        yield Event({**_chunk(answer, call, []), "usage": usage(answer, call)})
    if answer.done:
        yield Event("[DONE]")


# Anthropic messages.


def _named(name: str, *, content: bool = False, **fields: Any) -> Event:
    return Event({"type": name, **fields}, name, content)


def _block(piece: Piece) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content block that a piece belongs to as it starts, and the delta that carries the piece."""
    match piece:
        case Text(said):
            return {"type": "text", "text": ""}, {"type": "text_delta", "text": said}
        case Reasoning(said):
            return {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": said}
        case ToolStart(name, call_id):
            start = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
            return start, {"type": "input_json_delta", "partial_json": ""}
        case ToolArguments(fragment):
            return {"type": "tool_use"}, {"type": "input_json_delta", "partial_json": fragment}
    raise AssertionError(f"no block for {piece}")


def _messages(answer: Answer, call: Call) -> Iterator[Event]:
    if answer.openings:
        yield _named("message_start", message=message_object(answer, call, [], None))
    for _ in range(answer.openings - 1):
        yield _named("ping")
    yield from _blocks(answer, call)
    stop = {"stop_reason": STOP_REASONS.get(answer.finish, answer.finish), "stop_sequence": None}
    for _ in range(answer.finishes):
        yield _named("message_delta", delta=stop, usage=usage(answer, call) or {"output_tokens": 0})
    if answer.done and (answer.finishes or not answer.openings):
        yield _named("message_stop")


def _blocks(answer: Answer, call: Call) -> Iterator[Event]:
    index, kind = -1, ""
    for piece in answer.pieces:
        if isinstance(piece, Raw | Failure):
            yield _foreign(piece, answer, call)
            continue
        start, delta = _block(piece)
        if start["type"] != kind or isinstance(piece, ToolStart):
            if kind:
                yield _named("content_block_stop", index=index)
            index, kind = index + 1, start["type"]
            yield _named("content_block_start", index=index, content_block=start)
        yield _named("content_block_delta", content=True, index=index, delta=delta)
    if kind and answer.finishes:
        yield _named("content_block_stop", index=index)


# OpenAI responses.


def _responses(answer: Answer, call: Call) -> Iterator[Event]:
    number = 0
    for event in _response_events(answer, call):
        if isinstance(event.data, dict) and event.raw is None:
            event.data["sequence_number"] = number
            number += 1
        yield event


def _response_events(answer: Answer, call: Call) -> Iterator[Event]:
    if answer.openings:
        yield _named("response.created", response=response_object(answer, call, "in_progress", []))
    index = -1
    last: type[Piece] | None = None
    for piece in answer.pieces:
        if isinstance(piece, Raw | Failure):
            yield _foreign(piece, answer, call)
            continue
        if not isinstance(piece, ToolArguments) and (type(piece) is not last or isinstance(piece, ToolStart)):
            index += 1
            yield from _response_item(piece, index)
        last = type(piece)
        if not isinstance(piece, ToolStart):
            yield _response_delta(piece, index)
    state = "incomplete" if answer.finish == "length" else "completed"
    items = output_items(answer.pieces) if answer.finishes else []
    for at, item in enumerate(items):
        yield _named("response.output_item.done", output_index=at, item=item)
    for _ in range(answer.finishes):
        yield _named(f"response.{state}", response=response_object(answer, call, state, items))


def _response_item(piece: Text | Reasoning | ToolStart, index: int) -> Iterator[Event]:
    """Opens an output item; a call's opening is content, for it carries the name."""
    item = output_items((piece,))[0]
    if isinstance(piece, Text):
        item["content"] = []
    yield _named("response.output_item.added", content=isinstance(piece, ToolStart), output_index=index, item=item)
    if isinstance(piece, Text):
        part = {"type": "output_text", "text": "", "annotations": []}
        at: dict[str, Any] = {"output_index": index, "content_index": 0}
        yield _named("response.content_part.added", item_id=item["id"], part=part, **at)


def _response_delta(piece: Text | Reasoning | ToolArguments, index: int) -> Event:
    at: dict[str, Any] = {"output_index": index, "item_id": f"item_{index}"}
    match piece:
        case Text(said):
            return _named("response.output_text.delta", content=True, delta=said, content_index=0, **at)
        case Reasoning(said):
            return _named("response.reasoning_summary_text.delta", content=True, delta=said, summary_index=0, **at)
        case ToolArguments(fragment):
            return _named("response.function_call_arguments.delta", content=True, delta=fragment, **at)
