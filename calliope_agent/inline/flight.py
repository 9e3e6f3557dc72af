"""A running suggestion: one upstream call, read by every keystroke that its text still agrees with.

Decisions
1. The text kept here is the model's, cut only where the document after the cursor begins or after `reach` lines: what a
   keystroke sees is trimmed for that keystroke, what lies further answers the next ones.
2. A flight that failed or was cancelled leaves nothing behind: only text that ended by the model's word or by our own
   bound is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from calliope_agent.errors import ServerStopping
from calliope_agent.inline.answer import Answer
from calliope_agent.inline.place import Place
from calliope_agent.inline.trim import Trimmer
from calliope_agent.inline.typed_through import Left, left_of, may_follow, typed_since

Open = Literal["open"]


@dataclass(eq=False, slots=True)
class Reader:
    """One waiting keystroke: its place, and what wakes it."""

    place: Place
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    superseded: bool = False

    def supersede(self) -> None:
        self.superseded = True
        self.wake.set()


class Flight:
    """``kept``: a reader was served and the rest may fill the memory. ``complete``: all text is there."""

    def __init__(self, place: Place, answer: Answer, reach: Trimmer, *, store: bool) -> None:
        self.place = place
        self.store = store
        self.text = ""
        self.complete = False
        self.kept = False
        self.error: BaseException | None = None
        self.readers: set[Reader] = set()
        self._answer = answer
        self._reach = reach
        self._task: asyncio.Task[None] | None = None

    def start(
        self,
        pieces: Callable[[], AsyncIterator[str]],
        limit: asyncio.Semaphore,
        landed: Callable[[Flight], None],
    ) -> None:
        """Calls upstream when ``limit`` allows; ``landed`` is told once, when the text is complete or never will be."""
        self._task = asyncio.create_task(self._run(pieces, limit, landed))
        self._task.add_done_callback(lambda task: self._ended(task, landed))

    @property
    def running(self) -> bool:
        return not self.complete and self.error is None

    @property
    def wanted(self) -> bool:
        """A keystroke that still counts reads it."""
        return any(not reader.superseded for reader in self.readers)

    def cancel(self) -> None:
        """Ends the upstream call; readers, if any, learn that the lane closes."""
        if self._task and not self._task.done():
            self._task.cancel()
            self.error = self.error or ServerStopping("the inline lane is closing; ask again in a moment")

    async def closed(self) -> None:
        """Until the upstream call is over."""
        if self._task:
            await asyncio.wait({self._task})

    def left_at(self, place: Place) -> Left | Open | None:
        """What is left of the text at ``place``; "open" where the text may still grow into it; none where it cannot."""
        typed = typed_since(self.place, place)
        if typed is None:
            return None
        left = left_of(self.text, typed)
        if left is None and not self.complete and may_follow(self.text, typed):
            return "open"
        return left

    async def _run(
        self,
        pieces: Callable[[], AsyncIterator[str]],
        limit: asyncio.Semaphore,
        landed: Callable[[Flight], None],
    ) -> None:
        async with limit:
            iterator = pieces()
            try:
                async for piece in iterator:
                    self._grow(self._reach.feed(self._answer.feed(piece)))
                    if self._reach.finished:
                        break
                self._grow(self._reach.feed(self._answer.end()) + self._reach.end())
                self.complete = True
                landed(self)
                self._wake()
            finally:
                await _close(iterator)

    def _grow(self, text: str) -> None:
        if text:
            self.text += text
            self._wake()

    def _wake(self) -> None:
        for reader in self.readers:
            reader.wake.set()

    def _ended(self, task: asyncio.Task[None], landed: Callable[[Flight], None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if self.complete:
            return
        self.error = failure or self.error or ServerStopping("the inline lane is closing; ask again in a moment")
        landed(self)
        self._wake()


async def _close(iterator: AsyncIterator[str]) -> None:
    """Async generators end their upstream call when closed; an iterator without ``aclose`` ends it by itself."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
