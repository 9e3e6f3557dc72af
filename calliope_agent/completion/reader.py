"""One caller's place at a flight: its own id and record, and the frame it reads from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from calliope_agent.completion.eventlog import Sink
from calliope_agent.completion.flight import Flight
from calliope_agent.completion.record import Record


@dataclass(slots=True)
class Reader:
    """``record`` is the flight's own for the caller that started it, another for who joined."""

    id: str
    flight: Flight
    record: Record
    start: int = 0

    def join(self) -> None:
        self.flight.join()

    def leave(self) -> None:
        """The caller has all it wanted, or has gone."""
        self.flight.leave()
        self.told()

    def told(self) -> None:
        """Take over what the flight's own record says by now."""
        mine, flights = self.record, self.flight.record
        if mine is flights:
            return
        mine.target, mine.finish, mine.usage = flights.target, flights.finish, flights.usage
        mine.fallback_cause = flights.fallback_cause
        mine.settle()
        if flights.outcome != "running":
            mine.end(flights.outcome, flights.status, flights.code, flights.message)

    async def frames(self) -> AsyncIterator[tuple[int, list[bytes]]]:
        """The number of the first frame, and the frames, per write. Raises as `pour` does."""
        number = self.start
        while frames := await self.flight.log.read(number):
            yield number, frames
            number += len(frames)

    async def pour(self, sink: Sink) -> None:
        """Every frame through ``sink(number of the first, frames)``. Raises the flight's error at its place in the stream."""
        await self.flight.log.pour(self.start, sink)
