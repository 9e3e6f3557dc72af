"""The look at Anthropic-wire events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from calliope_agent.errors import Malformed, Truncated
from calliope_agent.upstream.attempt import Seen
from calliope_agent.upstream.look import NOTHING, See, decode, given, malformed, parses
from calliope_agent.upstream.refusal import error_in_stream
from calliope_agent.upstream.sse import Event


class _Block(msgspec.Struct):
    type: str = ""
    text: Any = None


class _ADelta(msgspec.Struct):
    type: str = ""
    text: Any = None
    partial_json: Any = None
    thinking: Any = None
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    usage: msgspec.Raw = NOTHING


class _AEvent(msgspec.Struct):
    type: str = ""
    index: int = 0
    delta: _ADelta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: msgspec.Raw = NOTHING
    error: msgspec.Raw = NOTHING


_aevent = msgspec.json.Decoder(_AEvent).decode


class AnthropicLook:
    """Messages events. Complete: ``message_stop`` after a stop reason."""

    __slots__ = ("_json", "_stopped", "seen")

    def __init__(self, seen: Seen, *, verifies: bool = True) -> None:
        del verifies  # the wire has an end of its own: there is nothing a manifest could excuse
        self.seen = seen
        self._stopped = False
        self._json: dict[int, list[str]] = {}

    @property
    def complete(self) -> bool:
        return self._stopped

    def see(self, event: Event) -> See:
        try:
            parsed = _aevent(event.data)
        except msgspec.DecodeError as exc:
            raise malformed(event.data) from exc
        if parsed.type == "error" or event.name == b"error":
            raise error_in_stream(given(parsed.error) or decode(event.data))
        if self._stopped:
            return self._after_the_end(parsed)
        step = self._steps.get(parsed.type)
        return step(self, parsed) if step is not None else See.FORWARD

    def end(self) -> None:
        if not self.complete:
            raise Truncated("The provider's stream ended without message_stop, so the answer is not whole. Ask again.")
        self.seen.arguments_incomplete = any(not parses("".join(parts)) for parts in self._json.values() if parts)

    def _start(self, parsed: _AEvent) -> See:
        if parsed.message is not None:
            self.seen.model = parsed.message.model
            self.seen.usage = given(parsed.message.usage)
        return See.FORWARD

    def _delta(self, parsed: _AEvent) -> See:
        delta = parsed.delta
        if delta is None:
            return See.FORWARD
        if isinstance(delta.partial_json, str):
            self._json.setdefault(parsed.index, []).append(delta.partial_json)
        return self._content(bool(delta.text or delta.partial_json or delta.thinking))

    def _block(self, parsed: _AEvent) -> See:
        block = parsed.content_block
        return self._content(block is not None and (bool(block.text) or block.type not in ("text", "thinking")))

    def _message_delta(self, parsed: _AEvent) -> See:
        if parsed.delta is not None and parsed.delta.stop_reason is not None:
            if self.seen.finish is not None:
                return See.DROP
            self.seen.finish = parsed.delta.stop_reason
        if (usage := given(parsed.usage)) is not None:
            self.seen.usage = {**(self.seen.usage or {}), **usage}
        return See.FORWARD

    def _stop(self, parsed: _AEvent) -> See:
        del parsed
        if self.seen.finish is None:
            raise Truncated("The provider ended its message without a stop reason. Ask again.")
        self._stopped = True
        return See.FORWARD

    def _ping(self, parsed: _AEvent) -> See:
        """The server sends its own pings; a provider's would reach the client twice."""
        del parsed
        return See.DROP

    def _content(self, content: bool) -> See:
        if not content:
            return See.FORWARD
        self.seen.has_content = True
        return See.CONTENT

    @staticmethod
    def _after_the_end(parsed: _AEvent) -> See:
        if parsed.type.startswith("content_block"):
            raise Malformed("The provider sent content after message_stop. Ask again, or try another model.")
        return See.DROP

    _steps: ClassVar[Mapping[str, Callable[[AnthropicLook, _AEvent], See]]] = {
        "message_start": _start,
        "content_block_start": _block,
        "content_block_delta": _delta,
        "message_delta": _message_delta,
        "message_stop": _stop,
        "ping": _ping,
    }
