"""The look at the events of the OpenAI Responses API."""

from __future__ import annotations

from typing import Any

import msgspec

from calliope_agent.errors import Truncated
from calliope_agent.upstream.attempt import Seen
from calliope_agent.upstream.look import NOTHING, See, decode, given, malformed
from calliope_agent.upstream.refusal import error_in_stream
from calliope_agent.upstream.sse import DONE, Event


class _RResponse(msgspec.Struct):
    status: str | None = None
    model: str | None = None
    usage: msgspec.Raw = NOTHING
    error: msgspec.Raw = NOTHING


class _REvent(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item: Any = None
    response: _RResponse | None = None
    error: msgspec.Raw = NOTHING


_revent = msgspec.json.Decoder(_REvent).decode
_R_ENDS = frozenset({"response.completed", "response.incomplete"})


class ResponsesLook:
    """OpenAI Responses events. Complete: ``response.completed`` or ``response.incomplete``."""

    __slots__ = ("_ended", "seen")

    def __init__(self, seen: Seen, *, verifies: bool = True) -> None:
        del verifies
        self.seen = seen
        self._ended = False

    @property
    def complete(self) -> bool:
        return self._ended

    def see(self, event: Event) -> See:
        if event.data.strip() == DONE:
            return See.DROP
        try:
            parsed = _revent(event.data)
        except msgspec.DecodeError as exc:
            raise malformed(event.data) from exc
        if parsed.type in ("error", "response.failed") or event.name == b"error":
            raise error_in_stream(_responses_error(parsed, event.data))
        if self._ended:
            return See.DROP
        if parsed.type in _R_ENDS and parsed.response is not None:
            self._finish(parsed.response)
        if parsed.delta or (parsed.type == "response.output_item.added" and _is_call(parsed.item)):
            self.seen.has_content = True
            return See.CONTENT
        return See.FORWARD

    def end(self) -> None:
        if not self._ended:
            raise Truncated("The provider's stream ended without response.completed. Ask again.")

    def _finish(self, response: _RResponse) -> None:
        self._ended = True
        self.seen.finish = response.status or "completed"
        self.seen.model = response.model
        self.seen.usage = given(response.usage)


def _responses_error(parsed: _REvent, data: bytes) -> Any:
    inner = given(parsed.response.error) if parsed.response is not None else None
    return given(parsed.error) or inner or decode(data)


def _is_call(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") not in (None, "message", "reasoning")
