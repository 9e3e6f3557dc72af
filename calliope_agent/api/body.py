"""Bodies under a closed schema: what is not in it is refused by name, before anything is changed."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec

from calliope_agent.errors import InvalidRequest
from calliope_agent.log import one_line
from calliope_agent.model import Role

T = TypeVar("T")
_FIELD = re.compile(r"field `([^`]{1,60})|at `\$\.?(.{1,80}?)`$|at `(?:key in )?\$(.{0,80}?)`$", re.DOTALL)


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    """Base of the bodies of this API."""


class KeyBody(Closed):
    """The key itself, as the provider issued it."""

    key: str


class ModelBody(Closed):
    """A model of a person's own provider; the names are those of a provider's file."""

    name: str
    title: str | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: list[str] | None = None
    roles: list[Role] | None = None
    fim: str | None = None


class ProviderBody(Closed):
    """A provider of a person's own. What could carry the operator's key elsewhere (variables, files, commands) has no field."""

    base_url: str
    wire: Literal["openai", "anthropic"] | None = None
    title: str | None = None
    auth: Literal["bearer", "x-api-key", "api-key"] | None = None
    key_required: bool | None = None
    check: str | None = None
    models: list[ModelBody] | None = None


class RotateBody(Closed):
    """Which of the local tokens to make anew."""

    tokens: list[Literal["complete", "manage"]]


def typed(raw: bytes, kind: type[T]) -> T:
    """The body as ``kind``. Raises `InvalidRequest` with the field in ``param``."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as exc:
        message = one_line(str(exc))
        raise InvalidRequest(f"{_cut(message)}.", param=_param(message)) from exc
    except RecursionError as exc:
        raise InvalidRequest("The body is nested too deeply. Send fewer levels.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}.") from exc


def fields(raw: bytes) -> dict[str, Any]:
    """The body as an object of any fields. Raises `InvalidRequest`."""
    return typed(raw, dict[str, Any])


def _param(message: str) -> str | None:
    found = _FIELD.search(message)
    return next((group.lstrip(".") for group in found.groups() if group), None) if found else None


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]}… ({len(text)} characters)"
