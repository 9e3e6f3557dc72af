"""One stream as it is read: parsed, looked at, bounded; a part per read, or several where a read is long.

Decisions
1. What came before an error in the same part is given out first, as no content: a client that already has the beginning gets the rest
   of it, and one that has nothing yet can still be served by a retry. That is also why the first content of a part waits for the
   look at all of it.
2. A long read is taken in slices, and in between the event loop does what else there is to do: first of all write the beginning, the
   other streams' too. Looked at as a whole, eight bursts of 200 chunks at once waited for each other, 16 ms instead of 5. The first
   slice is short, since somebody waits for it, and long enough for the errors that come with a stream's first words.
3. A class with a method per part, and no generator inside the door's own: one turn of a generator more costs every chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from calliope_agent import errors
from calliope_agent.upstream.attempt import Part
from calliope_agent.upstream.look import Look, See
from calliope_agent.upstream.response import Response
from calliope_agent.upstream.sse import Event, SseParser, frame

FIRST_BYTES: Final = 2 << 10
LATER_BYTES: Final = 16 << 10
# The reader of the answer writes in the loop's next turn, every other stream's by the end of it.
TURNS: Final = 2


class Reading:
    """``bound`` is the most bytes of an answer. ``broken`` is the error that ends the stream after the part just taken."""

    __slots__ = ("_bound", "_look", "_parser", "_pending", "_response", "_slice", "_total", "broken")

    def __init__(self, look: Look, response: Response, bound: int) -> None:
        self._look = look
        self._response = response
        self._parser = SseParser()
        self._bound = bound
        self._total = 0
        self._pending = b""
        self._slice = FIRST_BYTES
        self.broken: errors.UpstreamError | None = None

    async def more(self) -> bool:
        """Wait until there is something to `take`; False at the stream's end. Raises as `Response.read` does."""
        if self._pending:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            return True
        self._pending = await self._response.read()
        self._total += len(self._pending)
        return bool(self._pending)

    def take(self) -> Part:
        """What one read, or a slice of it, gives the client; no frames where no event is whole. Raises `AnswerTooLarge`."""
        if self._total > self._bound:
            raise errors.AnswerTooLarge(f"The answer is larger than {self._bound} bytes. Ask for a shorter one.")
        chunk = self._next_slice()
        frames: list[bytes] = []
        try:
            content = self._look_at(self._parser.feed(chunk), frames)
        except errors.UpstreamError as exc:
            self.broken = exc
            content = False
        return Part(frames, content)

    def _next_slice(self) -> bytes:
        pending, most = self._pending, self._slice
        self._slice = LATER_BYTES
        if len(pending) <= most:
            self._pending = b""
            return pending
        end = pending.rfind(b"\n\n", 0, most) + 2  # an event that is cut takes a slower way through the parser
        cut = end if end > 1 else most
        self._pending = pending[cut:]
        return pending[:cut]

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
