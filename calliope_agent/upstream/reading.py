"""One stream as it is read: parsed, looked at, bounded; a part per read.

Decisions
1. What came before an error in the same read is given out first, as no content: a client that already has the beginning gets the rest
   of it, and one that has nothing yet can still be served by a retry. That is also why the first content of a read waits for the
   look at all of it.
2. A class with a method per read, and no generator inside the door's own: one turn of a generator more costs every chunk.
"""

from __future__ import annotations

import contextlib

from calliope_agent import errors
from calliope_agent.upstream.attempt import Part
from calliope_agent.upstream.look import Look, See
from calliope_agent.upstream.sse import Event, SseParser, frame


class Reading:
    """``bound`` is the most bytes of an answer. ``broken`` is the error that ends the stream after the part just taken."""

    __slots__ = ("_bound", "_look", "_parser", "_total", "broken")

    def __init__(self, look: Look, bound: int) -> None:
        self._look = look
        self._parser = SseParser()
        self._bound = bound
        self._total = 0
        self.broken: errors.UpstreamError | None = None

    def take(self, chunk: bytes) -> Part:
        """What one read gives the client; no frames for a read without an event. Raises `AnswerTooLarge`."""
        self._total += len(chunk)
        if self._total > self._bound:
            raise errors.AnswerTooLarge(f"The answer is larger than {self._bound} bytes. Ask for a shorter one.")
        frames: list[bytes] = []
        try:
            content = self._look_at(self._parser.feed(chunk), frames)
        except errors.UpstreamError as exc:
            self.broken = exc
            content = False
        return Part(frames, content)

    def rest(self) -> Part:
        """What the end of the stream left unfinished, where the answer still wants it."""
        frames: list[bytes] = []
        content = False
        if rest := [event for event in self._parser.flush() if not self._look.complete]:
            with contextlib.suppress(errors.Malformed):  # half an event is what a cut looks like: `Look.end` says so
                content = self._look_at(rest, frames)
        return Part(frames, content)

    def _look_at(self, events: list[Event], frames: list[bytes]) -> bool:
        """Append what the client gets to ``frames``; whether there is content in it. Raises as the look does."""
        content = False
        see, drop, telling = self._look.see, See.DROP, See.CONTENT
        for event in events:
            seen = see(event)
            if seen is drop:
                continue
            if seen is telling:
                content = True
            frames.append(frame(event.data, event.name))
        return content
