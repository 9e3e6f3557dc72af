"""The look at OpenAI-wire chunks: chat completions, text completions, and both shapes of fill-in-the-middle."""

from __future__ import annotations

from typing import Any

import msgspec

from calliope_agent.errors import Malformed, Truncated
from calliope_agent.upstream.attempt import Seen
from calliope_agent.upstream.look import NOTHING, See, decode, given, malformed, parses
from calliope_agent.upstream.refusal import error_in_stream
from calliope_agent.upstream.sse import DONE, Event


class _Function(msgspec.Struct, gc=False):
    name: Any = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    refusal: Any = None
    audio: Any = None
    images: Any = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: Any = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = NOTHING
    error: msgspec.Raw = NOTHING
    object: Any = None
    model: str | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode


class OpenAILook:
    """Chat and text completion chunks. Complete: every choice seen has a finish reason."""

    __slots__ = ("_arguments", "_finished", "_open", "_verifies", "seen")

    def __init__(self, seen: Seen, *, verifies: bool = True) -> None:
        self.seen = seen
        self._verifies = verifies
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._arguments: dict[tuple[int, int], list[str]] = {}

    @property
    def complete(self) -> bool:
        if not self._verifies:
            return self.seen.has_content or bool(self._finished)
        return bool(self._finished) and not self._open

    def see(self, event: Event) -> See:
        data = event.data
        if not data.startswith(b"{") and data.strip() == DONE:
            return See.DROP
        try:
            chunk = _chunk(data)
        except msgspec.DecodeError as exc:
            raise malformed(data) from exc
        if chunk.error is not NOTHING and (error := given(chunk.error)) is not None:
            raise error_in_stream(error)
        if event.name == b"error" or (chunk.choices is None and chunk.object == "error"):
            raise error_in_stream(decode(data))
        if chunk.usage is not NOTHING or self.seen.model is None:
            self._note(chunk)
        if not chunk.choices:
            return See.FORWARD
        if len(chunk.choices) == 1:
            return self._choice(chunk.choices[0])
        return max(self._choice(choice) for choice in chunk.choices)

    def _note(self, chunk: _Chunk) -> None:
        if (usage := given(chunk.usage)) is not None:
            self.seen.usage = usage
        if chunk.model and self.seen.model is None:
            self.seen.model = chunk.model

    def end(self) -> None:
        if not self.complete:
            raise Truncated(
                "The provider's stream ended without a finish reason, so the answer is not whole. Ask again."
            )
        self.seen.arguments_incomplete = any(not parses("".join(parts)) for parts in self._arguments.values())

    def _choice(self, choice: _Choice) -> See:
        index, delta = choice.index, choice.delta
        if delta and delta.content and not (choice.finish_reason or delta.tool_calls) and index in self._open:
            self.seen.has_content = True  # the usual chunk: one more word of an answer
            return See.CONTENT
        content = _has_content(choice)
        if index in self._finished:
            if content:
                raise Malformed("The provider sent content after its finish reason. Ask again, or try another model.")
            return See.DROP if choice.finish_reason else See.FORWARD
        if delta is not None and delta.tool_calls:
            self._collect(index, delta.tool_calls)
        if choice.finish_reason:
            self._finished.add(index)
            self._open.discard(index)
            self.seen.finish = choice.finish_reason
        else:
            self._open.add(index)
        if content:
            self.seen.has_content = True
            return See.CONTENT
        return See.FORWARD

    def _collect(self, choice: int, calls: list[_ToolCall]) -> None:
        for call in calls:
            parts = self._arguments.setdefault((choice, call.index or 0), [])
            if call.function is not None and isinstance(call.function.arguments, str):
                parts.append(call.function.arguments)


def _has_content(choice: _Choice) -> bool:
    if choice.text:
        return True
    delta = choice.delta
    return delta is not None and bool(
        delta.content
        or delta.tool_calls
        or delta.reasoning_content
        or delta.reasoning
        or delta.reasoning_details
        or delta.refusal
        or delta.audio
        or delta.images
        or delta.function_call
    )
