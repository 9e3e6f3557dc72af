"""All running suggestions: started here, found again by the keystrokes that type through them, ended here.

Decisions
1. A caller that goes away leaves its call `linger_s` to live: editors drop the old request and send the next
   keystroke's within milliseconds, which then joins. The bound is under the 100 ms in which a client's disconnect must
   have closed the upstream call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from calliope_agent.inline.answer import ChatAnswer, PlainAnswer
from calliope_agent.inline.flight import Flight, Reader
from calliope_agent.inline.memory import Memory
from calliope_agent.inline.place import Key, Place
from calliope_agent.inline.prompt import Way
from calliope_agent.inline.request import Ask, InlineCall
from calliope_agent.inline.rules import rules_of
from calliope_agent.inline.trim import Trimmer


class Flights:
    """At most ``concurrency`` upstream calls at once; what they bring is put into ``memory``."""

    def __init__(
        self, ask: Ask, sleep: Callable[[float], Awaitable[None]], memory: Memory, concurrency: int, linger_s: float
    ) -> None:
        self._ask = ask
        self._sleep = sleep
        self._memory = memory
        self._limit = asyncio.Semaphore(concurrency)
        self._linger_s = linger_s
        self._running: dict[Key, list[Flight]] = {}
        self._lingering: set[asyncio.Task[None]] = set()

    def start(self, call: InlineCall, place: Place, way: Way, *, reach_lines: int, store: bool) -> Flight:
        """Asks for the text at ``place``."""
        answer = ChatAnswer(place.line_before) if way.is_chat else PlainAnswer()
        reach = Trimmer(rules_of(place, "auto", reach_lines, way.stops, scoped=False))
        flight = Flight(place, answer, reach, store=store)
        self._running.setdefault(place.key, []).append(flight)
        flight.start(lambda: self._ask(call), self._limit, self._landed)
        return flight

    def joinable(self, place: Place, tried: Collection[Flight] = ()) -> Flight | None:
        """The newest running call whose text agrees with ``place`` as far as it has come."""
        for flight in reversed(self._running.get(place.key, [])):
            if flight.running and flight not in tried and flight.left_at(place):
                return flight
        return None

    def join(self, flight: Flight, reader: Reader) -> None:
        """The reader waits for the flight, which lives as long as somebody does."""
        flight.readers.add(reader)
        flight.kept = False

    def drop(self, flight: Flight, reader: Reader) -> None:
        """The flight contradicts what the reader has typed; nobody else's call is ended."""
        flight.readers.discard(reader)
        if self._unwanted(flight):
            flight.cancel()

    def leave(self, flight: Flight, reader: Reader) -> None:
        """The reader is served or gone."""
        flight.readers.discard(reader)
        if not reader.superseded and self._unwanted(flight):
            task = asyncio.create_task(self._linger(flight))
            self._lingering.add(task)
            task.add_done_callback(self._lingering.discard)

    async def aclose(self) -> None:
        """Cancels all calls and waits until they are closed."""
        flights = [flight for siblings in self._running.values() for flight in siblings]
        for flight in flights:
            flight.cancel()
        for flight in flights:
            await flight.closed()
        for task in list(self._lingering):
            task.cancel()

    async def _linger(self, flight: Flight) -> None:
        await self._sleep(self._linger_s)
        if self._unwanted(flight):
            flight.cancel()

    @staticmethod
    def _unwanted(flight: Flight) -> bool:
        return flight.running and not flight.kept and not flight.wanted

    def _landed(self, flight: Flight) -> None:
        siblings = self._running.get(flight.place.key, [])
        if flight in siblings:
            siblings.remove(flight)
        if not siblings:
            self._running.pop(flight.place.key, None)
        if flight.complete and flight.store:
            self._memory.put(flight.place, flight.text)
