"""One cheap real call that tells whether a provider can be used: by its manifest's ``check``, through its own door.

Decisions
1. Nothing is remembered: who asks again has changed something.
2. A refused test question (a plain 400) means that address and key are right: the provider read the question.
3. A rate limit and a failing provider are verdicts of their own: neither says that the key is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec

from calliope_agent import errors
from calliope_agent.catalog import Target
from calliope_agent.model import Model, model_name
from calliope_agent.provider import Provider
from calliope_agent.upstream.attempt import Attempt, Call, Door, Kind

State = Literal["valid", "no_key", "rejected", "out_of_quota", "rate_limited", "failing", "unreachable", "not_a_model"]
TIMEOUT_S = 20.0
MAX_MODELS = 2000
_STATES: Final[tuple[tuple[type[errors.UpstreamError], State], ...]] = (
    (errors.KeyMissing, "no_key"),
    (errors.KeyRejected, "rejected"),
    (errors.QuotaExhausted, "out_of_quota"),
    (errors.RateLimited, "rate_limited"),
    (errors.Overloaded, "failing"),
    (errors.NotAModel, "not_a_model"),
    (errors.Malformed, "not_a_model"),
    (errors.Truncated, "not_a_model"),
    (errors.AnswerTooLarge, "not_a_model"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``message`` says what to do next; ``models`` is None where the provider was not asked for a list."""

    state: State
    message: str
    models: tuple[str, ...] | None = None


class Getter(Protocol):
    """A door that can also fetch a path."""

    async def get(self, attempt: Attempt, path: str) -> bytes: ...


async def check(
    attempt: Attempt, getter: Getter, door_for: Callable[[Call, Target], Door], timeout_s: float = TIMEOUT_S
) -> Verdict:
    """Ask the attempt's provider. ``attempt.call`` is `question`'s; ``getter`` is the native door of its wire."""
    method, _, path = attempt.target.provider.check.partition(" ")
    try:
        async with asyncio.timeout(timeout_s):
            if method == "GET":
                return _listed(await getter.get(attempt, path), path)
            await door_for(attempt.call, attempt.target).plain(attempt)
    except TimeoutError:
        return Verdict("unreachable", f"No answer came within {timeout_s:g} s. Check the address and the network.")
    except errors.UpstreamError as exc:
        return _judged(exc, asked=method != "GET")
    return Verdict("valid", "The provider answered a test question of one token.")


def tested(provider: Provider) -> Target:
    """Its first model that chats, else the first; a word of ours where it lists none."""
    chatting = [model for model in provider.models if "chat" in model.roles or "chat" in model.capabilities]
    return Target(provider, next(iter((*chatting, *provider.models)), Model("check", listed=False)))


def question(identifier: str, target: Target) -> Call:
    """The smallest call in the provider's own wire: one word in, one token out."""
    kind: Kind = "messages" if target.provider.wire == "anthropic" else "chat"
    body = {"model": target.model.name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    return Call(
        identifier, kind, {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}, False
    )


def _judged(error: errors.UpstreamError, *, asked: bool) -> Verdict:
    if isinstance(error, errors.UpstreamRefused | errors.ModelGone):
        if asked:
            return Verdict("valid", f"The provider takes the key but not the test question. {error.message}")
        return Verdict("not_a_model", f"The address answers, but not as a provider does. {error.message}")
    state: State = next((state for kind, state in _STATES if isinstance(error, kind)), "unreachable")
    return Verdict(state, error.message)


def _listed(body: bytes, path: str) -> Verdict:
    try:
        told = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return Verdict("not_a_model", "The address answers, but not with JSON. Correct the base URL.")
    entries = _entries(told)
    if entries is None and path.endswith("/models"):
        return Verdict("not_a_model", f"The address answers, but {path} is no list of models. Correct the base URL.")
    if entries is None:
        return Verdict("valid", "The provider answers as it should.")
    names = dict.fromkeys(name for entry in entries[:MAX_MODELS] if (name := _name(entry)))
    count = "one model" if len(names) == 1 else f"{len(names)} models"
    return Verdict("valid", f"The provider answers as it should and lists {count}.", tuple(names))


def _entries(told: Any) -> list[Any] | None:
    """OpenAI and Anthropic answer ``{data: [...]}``, some servers ``{models: [...]}`` or the list alone."""
    found = told.get("data", told.get("models")) if isinstance(told, dict) else told
    return found if isinstance(found, list) else None


def _name(entry: Any) -> str | None:
    given = entry.get("id") or entry.get("name") if isinstance(entry, dict) else entry
    try:
        return model_name(given).removeprefix("models/") if isinstance(given, str) else None
    except ValueError:
        return None
