"""One running answer: its task, its log, its readers, and how it ends.

Decisions
1. The work runs in a task of its own and readers only read the log. So a wait, a hold, a stop of the server, a join and a resume
   are all the same thing: reading a log that somebody else writes.
2. When the last reader leaves, the task is cancelled, which closes the provider's connection; a resumable flight waits out its
   grace first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from calliope_agent.completion.eventlog import EventLog
from calliope_agent.completion.wishes import Wishes
from calliope_agent.errors import AgentError
from calliope_agent.upstream.attempt import Call, Plain

if TYPE_CHECKING:
    from calliope_agent.completion.record import Record

UNREAD_BYTES = 1 << 20
KEPT_BYTES = 16 << 20


class Flight:
    """``stream_id`` is what it is resumed by. ``settled`` when the first content is there, the answer is whole, or it failed: the
    status is known then, and ``watchers`` are called.
    """

    def __init__(self, call: Call, record: Record, wishes: Wishes | None = None, *, keep: bool = False) -> None:
        self.call = call
        self.stream_id = call.id
        self.record = record
        self.wishes = wishes or Wishes()
        self.log = EventLog(keep=keep, bound=KEPT_BYTES if keep else UNREAD_BYTES)
        self.settled = False
        self.watchers: list[Callable[[], None]] = []
        self.committed = False
        self.error: AgentError | None = None
        self.plain: Plain | None = None
        self.readers = 0
        self.grace_s: float | None = None
        self._stopped_with: AgentError | None = None
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None

    def fly(self, task: asyncio.Task[None]) -> None:
        self._task = task

    @property
    def done(self) -> bool:
        return self._task is None or self._task.done()

    def commit(self, frames: list[bytes]) -> None:
        """The first content is there: from now on nothing is retried."""
        self.committed = True
        self.record.settle()
        if frames:
            self.log.append(frames)
        self._settle()

    def land(self, plain: Plain | None = None) -> None:
        """The whole, verified answer is there."""
        self.plain = plain
        self.log.end()
        self._settle()  # first, so that the caller's turn comes before what the record's end sets off
        self.record.settle()
        self.record.end("complete", 200)

    def fail(self, error: AgentError) -> None:
        self.error = error
        self.record.end("error", error.status, error.code, error.message)
        self.log.end(error)
        self._settle()

    def stop(self, error: AgentError) -> None:
        """End the flight from outside: readers get ``error`` after what was written."""
        if not self.done and self._task is not None:
            self._stopped_with = error
            self._task.cancel()

    def cancelled(self) -> None:
        """What the task does when it was cancelled: by `stop`, or because nobody reads any more."""
        if self._stopped_with is not None:
            self.fail(self._stopped_with)
            return
        self.record.end("cancelled")
        self.log.end()
        self._settle()

    def join(self) -> None:
        """One more reader."""
        self.readers += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def leave(self) -> None:
        """One reader less; the last one's leaving cancels the work."""
        self.readers -= 1
        if self.readers > 0 or self.done:
            return
        if self.grace_s is None:
            self._abandon()
        else:
            self._leaving = asyncio.get_running_loop().call_later(self.grace_s, self._abandon)

    @property
    def size(self) -> int:
        """About the bytes of memory that its answer holds."""
        return self.log.held + (len(self.plain.body) if self.plain is not None else 0)

    async def gone(self) -> None:
        """Wait until the task has ended, its provider's connection closed."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _settle(self) -> None:
        """At once, not through a future, whose callbacks come a turn of the loop later: a caller waits for this."""
        self.settled = True
        watchers, self.watchers = self.watchers, []
        for told in watchers:
            told()

    def _abandon(self) -> None:
        self._leaving = None
        if self.readers == 0 and self._task is not None:
            self._task.cancel()
