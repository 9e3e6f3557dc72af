"""Errors in the caller's own wire: as a JSON answer, and as an event inside a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from calliope_agent.errors import AgentError, KeyMissing, KeyRejected, Superseded
from calliope_agent.upstream.attempt import Kind
from calliope_agent.upstream.sse import frame

Shape = Literal["openai", "anthropic", "responses"]

# The SDKs choose their exception by status; the type is for people and for clients that look.
_OPENAI_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    424: "authentication_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    424: "authentication_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def shape_of(path: str, headers: Mapping[str, str]) -> Shape:
    """By path, and for the shared paths by the header that only Anthropic's clients send."""
    if path.startswith("/v1/messages") or (path.startswith("/v1/models") and "anthropic-version" in headers):
        return "anthropic"
    return "openai"


def shape_of_kind(kind: Kind) -> Shape:
    if kind in ("messages", "count_tokens"):
        return "anthropic"
    return "responses" if kind == "responses" else "openai"


def body_of(error: AgentError, shape: Shape, request_id: str) -> dict[str, Any]:
    """The error object, without the HTTP around it."""
    if shape == "anthropic":
        kind = _type(error, _ANTHROPIC_TYPES, "api_error")
        inner = {"type": kind, "message": error.message, "code": error.code}
        return {"type": "error", "error": inner, "request_id": request_id}
    kind = _type(error, _OPENAI_TYPES, "server_error")
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.code,
            "status": error.status,
            "request_id": request_id,
        }
    }


def _type(error: AgentError, types: Mapping[int, str], other: str) -> str:
    """424 speaks of authentication only where a key is what failed."""
    if error.status == 424 and not isinstance(error, KeyMissing | KeyRejected):
        return other
    return types.get(error.status, other)


def answer(error: AgentError, shape: Shape, request_id: str) -> Response:
    """The JSON answer with the error's true status."""
    headers = {**error.headers, "x-request-id": request_id, "cache-control": "no-store"}
    if isinstance(error, Superseded):
        headers["x-should-retry"] = "false"  # the SDKs retry every other 409
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body_of(error, shape, request_id)), error.status, headers, "application/json")


def event(error: AgentError, shape: Shape, request_id: str) -> bytes:
    """The error as the last event of a stream: no ``[DONE]`` and no ``message_stop`` follow it."""
    body = body_of(error, shape, request_id)
    if shape == "anthropic":
        return frame(msgspec.json.encode(body), b"error")
    if shape == "responses":
        inner = body["error"]
        flat = {"type": "error", "code": inner["code"], "message": inner["message"], "param": inner["param"]}
        return frame(msgspec.json.encode(flat), b"error")
    return frame(msgspec.json.encode(body))
