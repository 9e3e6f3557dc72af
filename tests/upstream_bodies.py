"""The plain JSON bodies of each wire, and the error shapes that streams share with them."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.upstream_answers import Failure, Reasoning, Text, ToolArguments, ToolStart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstream_answers import Answer, Piece

ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
CREATED = 1_790_000_000


@dataclass(frozen=True)
class Call:
    """What a wire needs to know of the request."""

    wire: str
    model: str
    stream: bool = False
    include_usage: bool = False
    inputs: int = 1
    key: str = ""
    models: tuple[str, ...] = ()


def wire_of(path: str) -> str:
    """The wire a path speaks: its last words decide, so any base URL works."""
    path = path.partition("?")[0].rstrip("/")
    ends = {
        "/fim/completions": "chat",
        "/chat/completions": "chat",
        "/completions": "text",
        "/embeddings": "embeddings",
        "/responses": "responses",
        "/messages/count_tokens": "count",
        "/messages": "messages",
        "/models": "models",
    }
    return next((wire for end, wire in ends.items() if path.endswith(end)), "unknown")


def error_body(answer: Answer, call: Call) -> bytes:
    return json.dumps(error_object(call, answer.status, error_text(answer, call), answer.code)).encode()


def error_text(answer: Answer, call: Call, message: str | None = None) -> str:
    said = answer.message if message is None else message
    return f"{said}: Incorrect API key provided: {call.key}" if answer.echo_key else said


def error_object(call: Call, status: int, message: str, code: str | None) -> dict[str, Any]:
    if call.wire in {"messages", "count"}:
        kind = code or ANTHROPIC_ERRORS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}
    return {"error": {"message": message, "type": "scripted_error", "param": None, "code": code or status}}


def usage(answer: Answer, call: Call) -> dict[str, int] | None:
    if answer.usage is None:
        return None
    prompt, completion = answer.usage
    if call.wire in {"messages", "responses"}:
        return {"input_tokens": prompt, "output_tokens": completion}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def message_object(answer: Answer, call: Call, content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    spent = usage(answer, call) or {"input_tokens": 0, "output_tokens": 0}
    head = {"id": "msg_scripted", "type": "message", "role": "assistant", "model": answer.model or call.model}
    return {**head, "content": content, "stop_reason": stop, "stop_sequence": None, "usage": spent}


def response_object(answer: Answer, call: Call, state: str | None, output: list[dict[str, Any]]) -> dict[str, Any]:
    head = {"id": "resp_scripted", "object": "response", "created_at": CREATED, "model": answer.model or call.model}
    return {**head, "status": state, "output": output, "usage": usage(answer, call)}


def output_items(pieces: tuple[Piece, ...]) -> list[dict[str, Any]]:
    """The Responses API's ``output``: a reasoning item, a message, one item for each call."""
    kinds = {type(piece) for piece in pieces}
    items: list[dict[str, Any]] = []
    if Reasoning in kinds:
        summary = {"type": "summary_text", "text": _joined(pieces, Reasoning)}
        items.append({"id": "rs_1", "type": "reasoning", "summary": [summary]})
    if Text in kinds:
        said = _joined(pieces, Text)
        part = {"type": "output_text", "text": said, "annotations": []}
        items.append({"id": "item_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    for name, call_id, arguments in _tools(pieces):
        item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
        items.append({"id": f"fc_{call_id}", "status": "completed", **item})
    return items


def _joined(pieces: tuple[Piece, ...], kind: type[Text | Reasoning]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, kind))


def _tools(pieces: tuple[Piece, ...]) -> Iterator[tuple[str, str, str]]:
    """Name, id and joined arguments of each call."""
    starts = [at for at, piece in enumerate(pieces) if isinstance(piece, ToolStart)]
    for at, end in itertools.pairwise([*starts, len(pieces)]):
        start = pieces[at]
        assert isinstance(start, ToolStart)
        arguments = "".join(piece.fragment for piece in pieces[at:end] if isinstance(piece, ToolArguments))
        yield start.name, start.call_id, arguments


def plain_body(answer: Answer, call: Call) -> bytes:
    """The whole answer as one JSON object; an error object where the script has one."""
    failure = next((piece for piece in answer.pieces if isinstance(piece, Failure)), None)
    if failure is not None:
        said = error_text(answer, call, failure.message)
        return json.dumps(error_object(call, failure.status, said, failure.code)).encode()
    return json.dumps(_PLAIN.get(call.wire, _unknown)(answer, call)).encode()


def _chat(answer: Answer, call: Call) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _joined(answer.pieces, Text)}
    if thought := _joined(answer.pieces, Reasoning):
        message["reasoning_content"] = thought
    if calls := list(_tools(answer.pieces)):
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for name, call_id, arguments in calls
        ]
    return _completion(answer, call, "chat.completion", {"message": message})


def _text(answer: Answer, call: Call) -> dict[str, Any]:
    return _completion(answer, call, "text_completion", {"text": _joined(answer.pieces, Text), "logprobs": None})


def _completion(answer: Answer, call: Call, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    finish = answer.finish if answer.finishes else None
    head = {"id": "chatcmpl-scripted", "object": kind, "created": CREATED, "model": answer.model or call.model}
    return {**head, "choices": [{"index": 0, **choice, "finish_reason": finish}], "usage": usage(answer, call)}


def _messages(answer: Answer, call: Call) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if thought := _joined(answer.pieces, Reasoning):
        content.append({"type": "thinking", "thinking": thought, "signature": "scripted"})
    if said := _joined(answer.pieces, Text):
        content.append({"type": "text", "text": said})
    for name, call_id, arguments in _tools(answer.pieces):
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": _object(arguments)})
    stop = STOP_REASONS.get(answer.finish, answer.finish) if answer.finishes else None
    return message_object(answer, call, content, stop)


def _object(arguments: str) -> Any:
    """A whole message holds an object, whatever was broken on the way."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return {}


def _responses(answer: Answer, call: Call) -> dict[str, Any]:
    state = "incomplete" if answer.finish == "length" else "completed"
    return response_object(answer, call, state if answer.finishes else None, output_items(answer.pieces))


def _embeddings(answer: Answer, call: Call) -> dict[str, Any]:
    data = [{"object": "embedding", "index": at, "embedding": [float(at), 0.5, -0.5]} for at in range(call.inputs)]
    prompt = (answer.usage or (0, 0))[0]
    spent = {"prompt_tokens": prompt, "total_tokens": prompt}
    return {"object": "list", "model": answer.model or call.model, "data": data, "usage": spent}


def _count(answer: Answer, call: Call) -> dict[str, Any]:
    return {"input_tokens": (answer.usage or (0, 0))[0]}


def _models(answer: Answer, call: Call) -> dict[str, Any]:
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"} for name in call.models]
    return {"object": "list", "data": data}


def _unknown(answer: Answer, call: Call) -> dict[str, Any]:
    return {"ok": True}


_PLAIN = {
    "chat": _chat,
    "text": _text,
    "messages": _messages,
    "responses": _responses,
    "embeddings": _embeddings,
    "count": _count,
    "models": _models,
}
