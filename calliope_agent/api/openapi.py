"""``GET /openapi.json``: the API as its table of endpoints has it, so that nothing can be served that is not described.

Decisions
1. Bodies of the OpenAI and Anthropic wires are open objects with the fields we read ourselves: providers define the rest, and a
   closed schema broke real clients.
2. Answers of our own API are described by their content type and their errors only; their fields are in the README.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from calliope_agent import __version__
from calliope_agent.api import settings
from calliope_agent.api.body import Closed

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_REF = "#/components/schemas/{name}"
_WIRES: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("messages",),
    "/v1/completions": ("prompt",),
    "/v1/fim/completions": ("prompt",),
    "/v1/embeddings": ("input",),
    "/v1/responses": (),
    "/v1/messages": ("messages",),
    "/v1/messages/count_tokens": ("messages",),
}
_ERROR: Mapping[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string", "description": "what to do next"},
                "type": {"type": "string"},
                "code": {"type": "string", "description": "stable and machine-readable"},
                "param": {"type": ["string", "null"], "description": "the field that is wrong"},
                "status": {"type": "integer"},
                "request_id": {"type": "string"},
            },
        }
    },
}


class Row(Protocol):
    """What is read of an endpoint."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def scope(self) -> str | None: ...

    @property
    def text(self) -> str: ...

    @property
    def body(self) -> type[Closed] | str | None: ...


def document(rows: Iterable[Row]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the endpoints."""
    rows = tuple(rows)
    kinds = sorted({row.body for row in rows if isinstance(row.body, type)}, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(_PARAMETER.sub(r"{\1}", row.path), {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {"title": "calliope-agent", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR, "SettingsBody": settings.schema()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(row: Row) -> dict[str, Any]:
    named = _PARAMETER.sub(r"\1", row.path)
    told: dict[str, Any] = {
        "summary": row.text,
        "operationId": re.sub(r"\W+", "_", f"{row.method.lower()}{named}").strip("_"),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(row.path)
        ],
        "responses": {
            "200": {"description": "what was asked for"},
            "default": {"description": "what is wrong", "content": _json({"$ref": _REF.format(name="Error")})},
        },
        "security": [] if row.scope is None else [{"token": []}],
    }
    if row.scope is not None:
        told["description"] = f"Needs a token with the scope {row.scope!r}."
    body = _body(row)
    if body is not None:
        told["requestBody"] = {"required": True, "content": _json(body)}
    return told


def _body(row: Row) -> dict[str, Any] | None:
    if isinstance(row.body, str):
        return {"$ref": _REF.format(name=row.body)}
    if row.body is not None:
        return {"$ref": _REF.format(name=row.body.__name__)}
    if row.method != "POST" or row.path not in _WIRES:
        return None
    properties = {"model": {"type": "string"}, "stream": {"type": "boolean"}}
    return {
        "type": "object",
        "required": list(_WIRES[row.path]),
        "properties": {**properties, **{name: {} for name in _WIRES[row.path]}},
        "additionalProperties": True,
    }


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
