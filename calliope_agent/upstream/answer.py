"""Verification of a whole (not streamed) answer: the provider's word that it is complete, per kind of request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from calliope_agent import errors
from calliope_agent.upstream.attempt import Kind, Seen
from calliope_agent.upstream.look import decode, parses
from calliope_agent.upstream.refusal import error_in_stream


def verify(body: bytes, kind: Kind, seen: Seen, *, verifies: bool = True) -> Mapping[str, Any]:
    """Fill ``seen`` and return the parsed answer. Raises `Malformed`, `NotAModel`, `Truncated`, or the error inside a 200."""
    answer = _object(body)
    error = answer.get("error")
    if error or answer.get("type") == "error" or answer.get("object") == "error":
        raise error_in_stream(error or answer)
    usage = answer.get("usage")
    seen.usage = usage if isinstance(usage, dict) else None
    model = answer.get("model")
    seen.model = model if isinstance(model, str) else None
    _CHECKS[kind](answer, seen, verifies)
    return answer


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = decode(body)
    except msgspec.DecodeError as exc:
        start = body[:64].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<")):
            raise errors.NotAModel("The provider's address answers with a web page. Correct its base URL.") from exc
        if not body.strip():
            raise errors.Truncated("The provider's answer is empty. Ask again.") from exc
        raise errors.Malformed("The provider's answer is not JSON. Ask again.") from exc
    if not isinstance(answer, dict):
        raise errors.Malformed("The provider's answer is JSON but not an object. Check the base URL.")
    return answer


def _chat(answer: Mapping[str, Any], seen: Seen, verifies: bool) -> None:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise errors.Malformed("The provider's answer holds no choices. Ask again.")
    for choice in choices:
        finish = choice.get("finish_reason")
        if verifies and not isinstance(finish, str):
            raise errors.Truncated("The provider's answer has no finish reason, so it is not whole. Ask again.")
        seen.finish = finish
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        calls = message.get("tool_calls") or []
        told = (
            message.get("content"),
            calls,
            message.get("reasoning_content"),
            message.get("refusal"),
            choice.get("text"),
        )
        seen.has_content = seen.has_content or any(told)
        seen.arguments_incomplete = seen.arguments_incomplete or not all(_call_parses(call) for call in calls)


def _call_parses(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return not isinstance(arguments, str) or parses(arguments)


def _embeddings(answer: Mapping[str, Any], seen: Seen, verifies: bool) -> None:
    del verifies
    data = answer.get("data")
    if not isinstance(data, list) or not data:
        raise errors.Malformed("The provider's answer holds no embeddings. Ask again.")
    seen.finish = "stop"
    seen.has_content = True


def _messages(answer: Mapping[str, Any], seen: Seen, verifies: bool) -> None:
    del verifies
    if answer.get("type") != "message" or not isinstance(answer.get("content"), list):
        raise errors.Malformed("The provider's answer is not a message. Check the base URL.")
    if not isinstance(answer.get("stop_reason"), str):
        raise errors.Truncated("The provider's message has no stop reason, so it is not whole. Ask again.")
    seen.finish = answer["stop_reason"]
    seen.has_content = bool(answer["content"])


def _responses(answer: Mapping[str, Any], seen: Seen, verifies: bool) -> None:
    del verifies
    status = answer.get("status")
    if status == "failed":
        raise error_in_stream(answer.get("error") or answer)
    if status not in ("completed", "incomplete", "queued", "in_progress"):
        raise errors.Malformed("The provider's answer is not a response. Check the base URL.")
    seen.finish = status
    seen.has_content = bool(answer.get("output"))


def _count(answer: Mapping[str, Any], seen: Seen, verifies: bool) -> None:
    del verifies
    if not isinstance(answer.get("input_tokens"), int):
        raise errors.Malformed("The provider's answer holds no input_tokens. Check the base URL.")
    seen.finish = "counted"
    seen.has_content = True


_CHECKS = {
    "chat": _chat,
    "completions": _chat,
    "fim": _chat,
    "embeddings": _embeddings,
    "messages": _messages,
    "responses": _responses,
    "count_tokens": _count,
}
