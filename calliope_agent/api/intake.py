"""From an HTTP request to a `Call`: the body read within its bound, parsed, and checked for what a caller may not choose.

Decisions
1. A request names a configured provider, never an address or a key (LiteLLM PYSEC-2026-4070, Portkey CVE-2025-66405). Only the places
   where SDKs and LiteLLM's clients put such fields are looked at; messages, input, tools and schemas are the person's data.
2. Unknown fields pass: a strict schema broke Claude Code more than once (9router#1468).
3. A body is bounded in time twice: by the caller's silence, and as a whole, since a byte a minute is no silence.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.types import Receive

from calliope_agent import errors
from calliope_agent.upstream.attempt import Call, Kind, decoded

FORBIDDEN = frozenset(
    {
        "api_base",
        "base_url",
        "api_key",
        "extra_headers",
        "api_version",
        "custom_llm_provider",
        "organization",
        "default_headers",
    }
)
_NESTED = ("extra_body", "litellm_params")
# Ids must differ, not be hard to guess: nothing is opened by one.
_chance = random.Random()
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PASSED_HEADERS = ("anthropic-beta", "anthropic-version", "openai-beta")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def request_id(headers: Mapping[str, str]) -> str:
    """The caller's own id where it is harmless in logs and headers, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else f"req_{_chance.getrandbits(128):032x}"


class BodyBounds(NamedTuple):
    """``silence_s`` from one piece to the next, ``whole_s`` for all of them."""

    size: int
    silence_s: float
    whole_s: float


async def read_body(receive: Receive, headers: Mapping[str, str], bounds: BodyBounds) -> bytes:
    """Raises `UnsupportedMediaType`, `BodyTooLarge`, `BodyTooSlow`; a caller that goes away in the middle is `InvalidRequest`."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise errors.UnsupportedMediaType("The body must be JSON. Send it with content-type: application/json.")
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bounds.size:
        raise _too_large(bounds)
    now = asyncio.get_running_loop().time
    last = now() + bounds.whole_s
    try:
        async with asyncio.timeout(min(bounds.silence_s, bounds.whole_s)) as waiting:
            chunks: list[bytes] = []
            size, more = 0, True
            while more:
                chunk, more = await _piece(receive)
                size += len(chunk)
                if size > bounds.size:
                    raise _too_large(bounds)
                chunks.append(chunk)
                if more:
                    waiting.reschedule(min(now() + bounds.silence_s, last))
            return b"".join(chunks)
    except TimeoutError as exc:
        raise errors.BodyTooSlow(
            "The request's body did not arrive in time. Send it again in one go.", headers={"connection": "close"}
        ) from exc


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes, and whether more will come."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise errors.InvalidRequest("The connection ended before the body did.")
    return message.get("body", b""), message.get("more_body", False)


def _too_large(bounds: BodyBounds) -> errors.BodyTooLarge:
    return errors.BodyTooLarge(
        f"The body is larger than {bounds.size >> 20} MB. Shorten it or raise CALLIOPE_MAX_BODY_MB."
    )


def parse_body(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields, each still in its own JSON text. Raises `InvalidRequest` with the position."""
    try:
        if not body.isascii():
            body.decode()  # msgspec leaves raw fields unread, and a provider must not get what is not UTF-8
        return _fields(body)
    except msgspec.ValidationError as exc:
        raise errors.InvalidRequest("The body must be a JSON object.") from exc
    except RecursionError as exc:
        raise errors.InvalidRequest("The body is nested too deeply. Send fewer levels.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise errors.InvalidRequest(f"The body is not valid JSON: {_position(exc, body)}.") from exc


def call_of(body: bytes, kind: Kind, headers: Mapping[str, str], identifier: str) -> tuple[Call, str | None]:
    """The call and the model's name as asked. Raises `InvalidRequest` naming the field."""
    fields = parse_body(body)
    _refuse_destinations(fields)
    model = _typed(fields, "model", str)
    stream = _typed(fields, "stream", bool) or False
    if model is not None and (len(model) > 256 or not model.isprintable()):
        raise errors.InvalidRequest("model must be at most 256 printable characters.", param="model")
    _require_content(fields, kind)
    passed = {name: headers[name] for name in _PASSED_HEADERS if name in headers}
    streams = stream and kind not in ("embeddings", "count_tokens")
    return Call(identifier, kind, fields, streams, passed), model or None


_FIRST_BYTES = {b"[": "an array", b'"': "a string"}
_REQUIRED: Mapping[Kind, tuple[str, tuple[bytes, ...]]] = {
    "chat": ("messages", (b"[",)),
    "messages": ("messages", (b"[",)),
    "count_tokens": ("messages", (b"[",)),
    "embeddings": ("input", (b'"', b"[")),
    "responses": ("input", (b'"', b"[")),
    "completions": ("prompt", (b'"', b"[")),
    "fim": ("prompt", (b'"',)),
}


def _require_content(fields: Mapping[str, msgspec.Raw], kind: Kind) -> None:
    name, types = _REQUIRED[kind]
    raw = fields.get(name)
    if raw is None and kind == "responses" and "prompt" in fields:
        return
    if raw is None or not bytes(raw).lstrip().startswith(types):
        wanted = " or ".join(_FIRST_BYTES[one] for one in types)
        raise errors.InvalidRequest(f"{name} must be {wanted}.", param=name)


def _typed(fields: Mapping[str, msgspec.Raw], name: str, kind: type) -> Any:
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return None
    value = decoded(raw, name)
    if not isinstance(value, kind):
        wanted = {str: "a string", bool: "true or false"}[kind]
        raise errors.InvalidRequest(f"{name} must be {wanted}.", param=name)
    return value


def _refuse_destinations(fields: Mapping[str, msgspec.Raw]) -> None:
    for name in fields:
        if name in FORBIDDEN:
            raise _not_yours(name)
    for outer in _NESTED:
        raw = fields.get(outer)
        if raw is None:
            continue
        inner = decoded(raw, outer)
        if isinstance(inner, dict):
            for name in inner:
                if name in FORBIDDEN:
                    raise _not_yours(f"{outer}.{name}")


def _not_yours(name: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(
        f"{name} cannot be chosen by a request. Providers, addresses and keys are configured in the agent.", param=name
    )


def _position(exc: Exception, body: bytes) -> str:
    """msgspec tells the byte; people look for line and column."""
    text = str(exc)
    found = re.search(r"byte (\d+)", text)
    if found is None:
        return text
    before = body[: int(found[1])]
    line = before.count(b"\n") + 1
    column = len(before) - (before.rfind(b"\n") + 1) + 1
    return f"{text}, line {line} column {column}"
