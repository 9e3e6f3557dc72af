"""What a scripted provider is told to answer: values without a wire in them.

An ``Answer`` says what happens to one request. Start with a word (``text``, ``tool_call``, ``status``, ``html``, …),
refine by methods, join with ``+``::

    text("Hel", "lo").every(0.01)          two chunks, ten milliseconds apart
    text("a", "b", "c").stall_after(2)     two chunks, then silence until the client leaves
    reasoning("hm") + tool_call("read", '{"path":', '"a"}')
    status(429, headers={"Retry-After": "2"})

Counts (``after``, ``before``) are counts of content pieces, not of events: one script means the same on every wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Reasoning:
    text: str


@dataclass(frozen=True)
class ToolStart:
    """Opens a call; the arguments follow as ``ToolArguments``."""

    name: str
    call_id: str


@dataclass(frozen=True)
class ToolArguments:
    fragment: str


@dataclass(frozen=True)
class Failure:
    """An ``error`` object inside a 200."""

    status: int
    message: str
    code: str | None = None


@dataclass(frozen=True)
class Raw:
    """Bytes put into the stream as they are."""

    data: bytes


Piece = Text | Reasoning | ToolStart | ToolArguments | Failure | Raw

# What the client sees when the answer stops early. "cut": HTTP says the body is complete. "drop": the connection
# closes inside the body. "reset": TCP RST. "stall": silence until the client leaves. "garble": a chunk size that is
# no number.
EndingKind = Literal["cut", "drop", "reset", "stall", "garble"]


@dataclass(frozen=True)
class Ending:
    kind: EndingKind
    after: int | None = None
    at_byte: int | None = None


@dataclass(frozen=True)
class Framing:
    """How events are spelt; every spelling here is legal by the SSE grammar."""

    newline: bytes = b"\n"
    bom: bool = False
    comments: bool = False
    multiline: bool = False
    space: bool = True


@dataclass(frozen=True)
class Answer:
    pieces: tuple[Piece, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    message: str = "scripted failure"
    code: str | None = None
    model: str | None = None
    finish: str = "stop"
    finishes: int = 1
    done: bool = True
    openings: int = 1
    usage: tuple[int, int] | None = (7, 5)
    usage_unasked: bool = False
    echo_key: bool = False
    filler: int = 0
    ending: Ending | None = None
    silent: Literal["hang", "close", "reset"] | None = None
    framing: Framing = field(default_factory=Framing)
    split: int = 0
    interval: float = 0.0
    gates: tuple[tuple[int, asyncio.Event], ...] = ()

    def __add__(self, other: Answer) -> Answer:
        return replace(other, pieces=self.pieces + other.pieces)

    # How it ends.

    def cut_after(self, pieces: int) -> Answer:
        """The body ends as if complete: only a missing finish tells."""
        return replace(self, ending=Ending("cut", after=pieces))

    def cut_at(self, byte: int, kind: EndingKind = "drop") -> Answer:
        """Stops after that many bytes of the body, wherever that is in an event."""
        return replace(self, ending=Ending(kind, at_byte=byte))

    def drop_after(self, pieces: int) -> Answer:
        return replace(self, ending=Ending("drop", after=pieces))

    def reset_after(self, pieces: int) -> Answer:
        return replace(self, ending=Ending("reset", after=pieces))

    def stall_after(self, pieces: int) -> Answer:
        return replace(self, ending=Ending("stall", after=pieces))

    def garble_after(self, pieces: int) -> Answer:
        return replace(self, ending=Ending("garble", after=pieces))

    def then_error(self, status_code: int, message: str = "scripted failure", code: str | None = None) -> Answer:
        """An error object after the pieces so far; no finish, no ``[DONE]``."""
        pieces = (*self.pieces, Failure(status_code, message, code))
        return replace(self, pieces=pieces, finishes=0, done=False)

    def then_raw(self, data: bytes) -> Answer:
        return replace(self, pieces=(*self.pieces, Raw(data)))

    def finish_with(self, reason: str, times: int = 1) -> Answer:
        """``reason`` in OpenAI's words (stop, length, tool_calls, content_filter); ``times=0`` leaves it out."""
        return replace(self, finish=reason, finishes=times)

    def without_finish(self) -> Answer:
        return replace(self, finishes=0)

    def without_done(self) -> Answer:
        return replace(self, done=False)

    # When it comes.

    def every(self, seconds: float) -> Answer:
        """That long before each content piece but the first."""
        return replace(self, interval=seconds)

    def hold(self, gate: asyncio.Event, before: int = 0) -> Answer:
        """Waits for ``gate`` before content piece ``before``, or before what follows the last one."""
        return replace(self, gates=(*self.gates, (before, gate)))

    def hold_headers(self, gate: asyncio.Event) -> Answer:
        """Waits for ``gate`` before the status line."""
        return self.hold(gate, before=-1)

    # How it looks on the wire.

    def framed(self, framing: Framing) -> Answer:
        return replace(self, framing=framing)

    def splitting(self, size: int = 1) -> Answer:
        """One HTTP chunk and one write per ``size`` bytes."""
        return replace(self, split=size)

    def opening(self, times: int) -> Answer:
        """So many role-only chunks (pings on the Anthropic wire) before content."""
        return replace(self, openings=times)

    def counting(self, prompt: int, completion: int, *, unasked: bool = False) -> Answer:
        """Usage; ``unasked`` sends it without ``stream_options.include_usage``."""
        return replace(self, usage=(prompt, completion), usage_unasked=unasked)

    def without_usage(self) -> Answer:
        return replace(self, usage=None)

    def echoing_key(self) -> Answer:
        """Error texts quote the caller's key, as some providers do."""
        return replace(self, echo_key=True)

    def with_headers(self, headers: Mapping[str, str]) -> Answer:
        return replace(self, headers={**self.headers, **headers})

    def answering_as(self, model: str) -> Answer:
        return replace(self, model=model)


def text(*chunks: str) -> Answer:
    return Answer(pieces=tuple(Text(chunk) for chunk in chunks))


def reasoning(*chunks: str) -> Answer:
    return Answer(pieces=tuple(Reasoning(chunk) for chunk in chunks))


def tool_call(name: str, *fragments: str, call_id: str = "call_1") -> Answer:
    """``fragments`` joined are the JSON arguments; broken JSON is sent as it is."""
    pieces: tuple[Piece, ...] = (ToolStart(name, call_id), *(ToolArguments(fragment) for fragment in fragments))
    return Answer(pieces=pieces, finish="tool_calls")


def status(
    code: int,
    *,
    message: str = "scripted failure",
    error_code: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """A failure before any event; the body is the wire's own error shape unless ``body`` is given."""
    return Answer(status=code, message=message, code=error_code, headers=headers or {}, body=body)


def error_event(status_code: int, message: str = "scripted failure", code: str | None = None) -> Answer:
    """A 200 whose first event is an error."""
    return Answer().opening(0).then_error(status_code, message, code)


def raw(body: bytes, content_type: str = "application/json", status_code: int = 200) -> Answer:
    return Answer(status=status_code, headers={"Content-Type": content_type}, body=body)


def html(status_code: int = 200) -> Answer:
    """A captive portal's page where a model was expected."""
    return raw(b"<!DOCTYPE html><html><body>Please log in</body></html>", "text/html; charset=utf-8", status_code)


def malformed() -> Answer:
    """One event that is no JSON, then a proper end."""
    return Answer().then_raw(b'data: {"choices": [{"delta": {"content": "x"\n\n')


def done_only() -> Answer:
    """``[DONE]`` (``message_stop``) and nothing else."""
    return replace(Answer(), openings=0, finishes=0, usage=None)


def nothing() -> Answer:
    """A 200 event stream of no bytes."""
    return replace(done_only(), done=False)


def hang() -> Answer:
    """Takes the request and says nothing until the client leaves."""
    return Answer(silent="hang")


def hang_up() -> Answer:
    """Closes the connection without a status line."""
    return Answer(silent="close")


def reset() -> Answer:
    """Resets the connection without a status line."""
    return Answer(silent="reset")


def huge(size: int) -> Answer:
    """A 200 body of ``size`` bytes of white space, made as it is sent."""
    return replace(raw(b""), filler=size)
