"""One running answer's events: written once, read by one or by many, bounded in bytes.

Decisions
1. A log that nobody may join (``keep=False``) forgets what its reader has read, and its writer waits while the reader is behind:
   the provider feels the client's pace, as TCP meant it.
2. A log that may be joined or resumed never waits: the slow reader must not slow the others. It holds ``bound`` bytes; a reader
   that falls out of that window ends with `ReaderTooSlow` instead of losing events silently.
3. The single reader of a log that nobody may join leaves its sink here once it has caught up, and the writer then calls it itself:
   waking another task for every chunk costs a turn of the event loop, and that is a system call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from calliope_agent.errors import AgentError, ReaderTooSlow

Sink = Callable[[int, list[bytes]], Awaitable[None]]
FRAME_BYTES = 48  # what CPython adds to a bytes object and its place in the queue


class EventLog:
    """Frames numbered from 0. Not thread-safe: one event loop's."""

    def __init__(self, *, keep: bool, bound: int) -> None:
        self.keep = keep
        self._bound = bound
        self._frames: list[bytes] = []
        self._first = 0
        self._size = 0
        self._ended = False
        self._error: AgentError | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._room: asyncio.Future[None] | None = None
        self._sink: Sink | None = None

    @property
    def next_number(self) -> int:
        return self._first + len(self._frames)

    @property
    def held(self) -> int:
        """About the bytes of memory that the frames hold."""
        return self._size + FRAME_BYTES * len(self._frames)

    @property
    def whole(self) -> bool:
        """Whether every frame from 0 on is still here."""
        return self._first == 0

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def error(self) -> AgentError | None:
        return self._error

    def append(self, frames: list[bytes]) -> None:
        self._frames.extend(frames)
        self._size += sum(map(len, frames))
        if self.keep and self._size > self._bound:
            self._forget()
        self._wake()

    async def write(self, frames: list[bytes]) -> None:
        """Append, at the single reader's pace where there is only one."""
        if self._sink is not None:
            number, self._first = self._first, self._first + len(frames)
            await self._sink(number, frames)
            return
        self.append(frames)
        while not self.keep and self._size > self._bound and not self._ended:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def pour(self, number: int, sink: Sink) -> None:
        """Every frame from ``number`` on goes through ``sink(number of the first, frames)``. Raises as `read` does, at the end."""
        while frames := await self.read(number):
            await sink(number, frames)
            number += len(frames)
            if not self.keep and not self._frames and not self._ended:
                self._sink = sink
                try:
                    await self._change()
                finally:
                    self._sink = None
                number = self._first

    def end(self, error: AgentError | None = None) -> None:
        """No more frames; readers get what is there, then the end or ``error``."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()
            self._free_writer()

    async def read(self, number: int) -> list[bytes]:
        """Frames from ``number`` on, waiting for at least one; an empty list at the end. Raises the log's error, `ReaderTooSlow`."""
        while number >= self.next_number and not self._ended:
            await self._change()
        if number < self._first:
            raise ReaderTooSlow("This reader fell further behind than the stream's log holds. Ask again.")
        if number >= self.next_number:
            if self._error is not None:
                raise self._error
            return []
        if self.keep:
            return self._frames[number - self._first :]
        return self._take()

    def frames(self) -> list[bytes]:
        """All frames that are held, for the recorder."""
        return list(self._frames)

    def _take(self) -> list[bytes]:
        frames, self._frames = self._frames, []
        self._first += len(frames)
        self._size = 0
        self._free_writer()
        return frames

    def _free_writer(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _forget(self) -> None:
        """Let go of the oldest frames until the rest fits; the newest one stays whatever its size."""
        gone = 0
        while self._size > self._bound and gone < len(self._frames) - 1:
            self._size -= len(self._frames[gone])
            gone += 1
        del self._frames[:gone]
        self._first += gone

    async def _change(self) -> None:
        """Wait for frames that nobody took, or for the end."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
