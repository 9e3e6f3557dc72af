"""The lane's way to a model: an inline call becomes an ordinary request on the line, its events become text.

Decisions
1. A call of the target that plays the role is asked as the role, so that the role's fallbacks serve it; any other target is explicit.
2. Wires bound their stop sequences (OpenAI: four); the lane cuts at every one itself, so the last ones may be left out here.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from calliope_agent.completion.reader import Reader
from calliope_agent.completion.wishes import Wishes
from calliope_agent.inline.request import InlineCall
from calliope_agent.upstream.attempt import Call
from calliope_agent.upstream.sse import SseParser

MAX_STOPS = 4
ROLE = "inline"


class Asker:
    """``fly`` serves a call, ``role_target`` names the target that plays the role now, or None."""

    def __init__(
        self, fly: Callable[[Call, str | None, Wishes], Awaitable[Reader]], role_target: Callable[[], str | None]
    ) -> None:
        self._fly = fly
        self._role_target = role_target

    async def __call__(self, call: InlineCall) -> AsyncIterator[str]:
        """The text as it comes; leaving the iterator cancels the upstream call. Raises what the flight raises."""
        asked = ROLE if self._role_target() == call.target else call.target
        reader = await self._fly(_request(call), asked, Wishes(no_cache=not call.reuse, no_store=not call.store))
        reader.join()
        try:
            async for _, frames in reader.frames():
                for piece in map(_text, frames):
                    if piece:
                        yield piece
        finally:
            reader.leave()


def _request(call: InlineCall) -> Call:
    body: dict[str, Any] = {"max_tokens": call.max_tokens, "temperature": call.temperature, "stream": True}
    if call.stop:
        body["stop"] = call.stop[:MAX_STOPS]
    if call.kind == "chat":
        body["messages"] = call.messages
    else:
        body["prompt"] = call.prompt
    if call.suffix is not None:
        body["suffix"] = call.suffix
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}
    return Call(f"inl_{uuid.uuid4().hex}", call.kind, raw, stream=True)


def _text(encoded: bytes) -> str:
    events = SseParser().feed(encoded)
    chunk = msgspec.json.decode(events[0].data) if events else {}
    parts: list[str] = []
    for choice in chunk.get("choices") or []:
        delta = choice.get("delta") or {}
        told = choice.get("text") or delta.get("content")
        if isinstance(told, str):
            parts.append(told)
    return "".join(parts)
