"""What a provider's failure means: its status, headers and body become one of our errors, once, here.

Decisions
1. A provider's own words reach the client only where they are about the request itself (400, 404, 413, 422), scrubbed and cut:
   a person needs to know which field is wrong. For keys, quota, limits, overload and errors inside a stream our own sentence
   stands with the provider's ``code``, since those texts echo keys, account names and internals (facts: litellm#15799, and a
   canary in a stream's error text reached LiteLLM's clients).
2. Classes are found by status first, then by words in the body: "rate limit" inside a 400 and "insufficient_quota" inside a 429
   are both real (OmniRoute#4986; OpenAI's error guide).
3. 403 means the key may not do this. 404 without JSON is a wrong address, not a missing model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from calliope_agent import errors

MAX_TEXT = 600
_PROXY = 407
_SAFE_CODE = re.compile(r"[^A-Za-z0-9_.\-]")
_QUOTA = re.compile(
    r"insufficient_quota|billing|credit balance|quota.{0,40}exceeded.{0,40}plan|payment|out of credits", re.IGNORECASE
)
_RATE = re.compile(r"rate.?limit|too many requests|resource.?exhausted|tokens per min|requests per min", re.IGNORECASE)
_CONTEXT = re.compile(
    r"context.?length|context.?window|maximum context|prompt is too long|too many tokens|input is too long|"
    r"reduce the length|exceeds? the (?:available )?context|max(?:imum)? (?:input )?tokens? .{0,20}exceed",
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"content.?policy|content.?filter|responsible.?ai|safety (?:system|filter|reasons)|prohibited.?content|moderation|"
    r"usage polic",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"model.{0,60}(?:not.?found|does not exist|not exist|unknown|deprecated|decommissioned)|model_not_found",
    re.IGNORECASE,
)
_KEY = re.compile(r"invalid.{0,12}api.?key|incorrect api key|authentication|unauthori[sz]ed|permission", re.IGNORECASE)


class Told(NamedTuple):
    """What an error object says: ``text`` is the provider's words, ``code`` its machine-readable part."""

    text: str
    code: str
    status: int | None


def of_status(
    status: int, headers: Mapping[str, str], body: bytes, scrub: Callable[[str], str]
) -> errors.UpstreamError:
    """The error of an answer whose status is not 200. ``headers`` must look names up without regard to case."""
    told = _told_of(body)
    error = _of_words(status, told, scrub, looks_like_json=told is not None) if status != _PROXY else _of_proxy()
    error.provider_status = status
    error.retry_after_s = retry_after(headers, datetime.now(UTC))
    return error


def _of_proxy() -> errors.Unreachable:
    return errors.Unreachable(
        f"The HTTP proxy wants a user and a password (status {_PROXY}). Put them into HTTP_PROXY: http://user:password@proxy:3128"
    )


def error_in_stream(payload: Any) -> errors.UpstreamError:
    """The error of an ``error`` object inside a 200 answer. Its words are not passed on."""
    told = _told(payload)
    status = told.status or _status_of_code(told.code)
    error = _of_words(status, told, _say_nothing, looks_like_json=True)
    error.provider_status = told.status
    return error


def error_in_body(body: bytes) -> errors.UpstreamError | None:
    """The error that a 200 answer's JSON body is; None where it is none."""
    try:
        payload = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    if not isinstance(payload, dict) or not (payload.get("error") or payload.get("type") == "error"):
        return None
    return error_in_stream(payload)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait: ``retry-after-ms``, or Retry-After in either form of RFC 9110 §10.2.3. None where it is absent or no time."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and (value := _number(milliseconds)) is not None:
        return value / 1000
    given = headers.get("retry-after")
    if given is None:
        return None
    if (value := _number(given)) is not None:
        return value
    try:
        when = parsedate_to_datetime(given)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _told_of(body: bytes) -> Told | None:
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return _told(payload)


def _told(payload: Any) -> Told:
    """Error objects come as {error: {...}}, {error: "text"}, {type: error, error: {...}}, {message}, {detail} or [{error}]."""
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if isinstance(payload, str):
        return Told(payload, "", None)
    if not isinstance(payload, dict):
        return Told("", "", None)
    inner = payload.get("error", payload)
    if isinstance(inner, str):
        return Told(inner, "", _status(payload.get("code")))
    if not isinstance(inner, dict):
        return Told("", "", None)
    text = inner.get("message") or inner.get("detail") or inner.get("msg") or ""
    words = [inner.get("code"), inner.get("type"), inner.get("status")]
    code = next((word for word in words if isinstance(word, str) and word not in ("error", "")), "")
    status = next((found for word in words if (found := _status(word)) is not None), None)
    return Told(text if isinstance(text, str) else msgspec.json.encode(text).decode(), code, status)


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


_CODES: Mapping[str, int] = {
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "service_unavailable": 503,
    "unavailable": 503,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "insufficient_quota": 429,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
}


def _status_of_code(code: str) -> int:
    return _CODES.get(code.lower(), 500)


def _of_words(
    status: int, told: Told | None, scrub: Callable[[str], str], *, looks_like_json: bool
) -> errors.UpstreamError:
    words = f"{told.code} {told.text}" if told else ""
    code = _SAFE_CODE.sub("", told.code)[:64] if told else ""
    said = f" (the provider's code: {code})" if code else ""
    if status == 402 or (status in (400, 403, 429) and _QUOTA.search(words)):
        return errors.QuotaExhausted(
            f"The provider says the account's quota or money is used up{said}. Top it up there."
        )
    if status == 429 or (status in (400, 403) and _RATE.search(words)):
        return errors.RateLimited(f"The provider limits how often it is asked{said}. Wait, or ask another model.")
    if status in (401, 403) or (status == 400 and "api" in words.lower() and _KEY.search(words)):
        return errors.KeyRejected(f"The provider does not accept the key (status {status}{said}). Set another one.")
    if status in (400, 404, 405, 409, 413, 415, 422):
        return _of_request(status, words, _quoted(told, scrub), looks_like_json=looks_like_json)
    if status == 421 or 300 <= status < 400:
        return errors.NotAModel(f"The provider's address sends us elsewhere (status {status}). Correct its base URL.")
    return errors.Overloaded(f"The provider fails or is overloaded (status {status}{said}). Ask again in a moment.")


def _of_request(status: int, words: str, quoted: str, *, looks_like_json: bool) -> errors.UpstreamError:
    if status == 404 and not looks_like_json:
        return errors.NotAModel("Nothing at the provider's address knows this path (status 404). Correct its base URL.")
    if status == 404 or _MODEL.search(words):
        return errors.ModelGone(f"The provider does not offer this model (any more).{quoted} Choose another one.")
    if _CONTEXT.search(words):
        return errors.ContextTooLong(f"The prompt does not fit the model's window.{quoted} Shorten it.")
    if _POLICY.search(words):
        return errors.ContentRefused(f"The provider's policy refuses this request.{quoted}")
    if status == 409:
        return errors.Overloaded("The provider reports a conflict (status 409). Ask again in a moment.")
    return errors.UpstreamRefused(f"The provider finds the request wrong (status {status}).{quoted}")


def _quoted(told: Told | None, scrub: Callable[[str], str]) -> str:
    if told is None or not told.text:
        return ""
    text = scrub(" ".join(told.text.split())[: MAX_TEXT * 2])[:MAX_TEXT]
    return f" It says: {text}" if text else ""


def _say_nothing(text: str) -> str:
    del text
    return ""
