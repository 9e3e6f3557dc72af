"""The inline lane: every keystroke's question, answered from memory, from a running call, or by a new one.

In this order: supersede the editor's older keystroke, look into the memory, join a running call that the typed text
agrees with, ask the model.

Decisions
1. A keystroke that is typed while a call runs joins it even before its first character: cancelling at every key, as a
   debounce would, pays for calls whose answers nobody sees, and shows nothing before the person pauses. If the text
   turns out to contradict what was typed, the newest keystroke asks anew at once.
2. More lines are asked for than are shown (`LaneSettings.reach_lines`): typing on is then answered from memory.
3. A deletion waits `LaneSettings.deletion_pause_s` before it asks: deletions come in rows, and each but the last one
   would pay for a call. What is in memory is answered at once.
4. The more calls a line has had of which nothing was typed, the longer the next one waits for a pause in the typing
   (`LaneSettings.vain_pauses_s`, by number of such calls). On the typing trace this takes 45 % of the calls off a model
   that is wrong for whole lines and nothing off the share answered.
5. Asking ahead, while the last `LaneSettings.prefetch_chars` of a suggestion are typed, is off: on the trace it shows
   text on 1 % more keystrokes for 2 to 9 % more calls. A free local model may turn it on. Such a call is cancelled
   when the typing leads elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from calliope_agent.errors import Superseded
from calliope_agent.inline.flight import Flight, Reader
from calliope_agent.inline.flights import Flights
from calliope_agent.inline.memory import Match, Memory
from calliope_agent.inline.place import Place, Window, place_of
from calliope_agent.inline.prompt import Way, call_of, way_of
from calliope_agent.inline.request import Ask, Finish, InlineRequest, Suggestion
from calliope_agent.inline.rules import rules_of
from calliope_agent.inline.stream import SuggestionStream
from calliope_agent.inline.supersede import Seat, Seats
from calliope_agent.inline.template import Templates, shipped
from calliope_agent.inline.trim import Trimmer
from calliope_agent.inline.typed_through import Left


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """``reach_lines`` and ``max_tokens`` bound what one call may bring, ``window`` what it may see."""

    concurrency: int = 4
    window: Window = field(default_factory=Window)
    max_tokens: int = 160
    reach_lines: int = 8
    memory_bytes: int = 8 << 20
    ttl_s: float = 900
    linger_s: float = 0.08
    deletion_pause_s: float = 0.25
    vain_pauses_s: tuple[float, ...] = (0, 0, 0, 0.15, 0.3, 0.6)
    prefetch_chars: int = 0


@dataclass(frozen=True, slots=True)
class _Question:
    """A request with all that is derived from it; ``until`` is the clock's time at which its budget ends."""

    request: InlineRequest
    reader: Reader
    seat: Seat
    way: Way
    until: float | None
    deletes: bool

    @property
    def place(self) -> Place:
        return self.reader.place

    def trimmer(self) -> Trimmer:
        return Trimmer(rules_of(self.place, self.request.mode, self.request.max_lines, self.way.stops))


@dataclass(frozen=True, slots=True)
class _Known:
    """A remembered suggestion as trimmed for a question."""

    match: Match
    text: str
    finish: Finish


class Lane:
    """``ask`` makes one upstream call. ``counts``: answers by source, "call", "ahead", "superseded"."""

    def __init__(
        self,
        ask: Ask,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        settings: LaneSettings | None = None,
        templates: Templates | None = None,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._settings = chosen = settings or LaneSettings()
        self._templates = templates or shipped()
        self._memory = Memory(chosen.memory_bytes, chosen.ttl_s, clock)
        self._flights = Flights(ask, sleep, self._memory, chosen.concurrency, chosen.linger_s)
        self._seats = Seats()
        self.counts: Counter[str] = Counter()

    async def suggest(self, request: InlineRequest) -> Suggestion:
        """One suggestion. Raises `Superseded` (409), `ConfigError` for an unknown template, and what ``ask`` raises."""
        async with aclosing(SuggestionStream(lambda stream: self._answer(request, stream, whole=True))) as stream:
            async for _ in stream:
                pass
            return stream.suggestion()

    def stream(self, request: InlineRequest) -> SuggestionStream:
        """The same in pieces. A budget ends with the first piece here, with the last one in `suggest`."""
        return SuggestionStream(lambda stream: self._answer(request, stream, whole=False))

    def forget(self) -> None:
        """Empties the memory."""
        self._memory.clear()

    async def aclose(self) -> None:
        """Cancels all calls; waiting callers get `ServerStopping`."""
        await self._flights.aclose()

    async def _answer(
        self, request: InlineRequest, stream: SuggestionStream, *, whole: bool
    ) -> AsyncGenerator[str, None]:
        question = self._question(request)
        try:
            known = self._recall(question)
            question.seat.sweep(question.place, known.match.left.text if known else "")
            if known:
                if known.match.typed.text:
                    question.seat.vain = 0
                self._ask_ahead(question, known.match)
                stream.source = "typed-through" if known.match.typed.text else "cache"
                stream.finish = known.finish
                yield known.text
            else:
                await self._pause(question)
                async with aclosing(self._from_flights(question, stream, whole=whole)) as pieces:
                    async for piece in pieces:
                        yield piece
            self.counts[stream.source] += 1
        finally:
            question.seat.leave(question.reader)

    def _question(self, request: InlineRequest) -> _Question:
        way = way_of(request, self._templates)
        seat = self._seats.of(request.editor, request.path)
        reader = Reader(place_of(request, self._settings.window))
        until = None if request.budget_s is None else self._clock() + request.budget_s
        return _Question(request, reader, seat, way, until, deletes=seat.claim(reader))

    def _recall(self, question: _Question) -> _Known | None:
        """The newest known suggestion that has something to show here, or that says there is nothing."""
        if not question.request.reuse:
            return None
        for match in self._memory.find(question.place):
            trimmer = question.trimmer()
            text = trimmer.feed(match.left.text) + trimmer.end()
            if text or match.left.settled:
                self._memory.touch(match)
                return _Known(match, text, "length" if trimmer.shortened else "stop")
        return None

    def _ask_ahead(self, question: _Question, match: Match) -> None:
        left = match.left.text
        near_the_end = 0 < len(left) <= min(self._settings.prefetch_chars, len(match.typed.text))
        if not near_the_end or match.typed.closers or not question.request.editor or not question.request.store:
            return
        end = question.place.typed(left)
        known = any(other.left.text.strip() for other in self._memory.find(end))
        if not known and not self._flights.joinable(end):
            self._start(question, end)
            self.counts["ahead"] += 1

    def _start(self, question: _Question, place: Place) -> Flight:
        request, settings = question.request, self._settings
        call = call_of(request, place, question.way, settings.max_tokens)
        self.counts["call"] += 1
        question.seat.vain += 1
        flight = self._flights.start(
            call, place, question.way, reach_lines=max(settings.reach_lines, request.max_lines), store=request.store
        )
        question.seat.flights.add(flight)
        return flight

    async def _pause(self, question: _Question) -> None:
        vain_pauses = self._settings.vain_pauses_s
        pause = vain_pauses[min(question.seat.vain, len(vain_pauses) - 1)]
        if question.deletes:
            pause = max(pause, self._settings.deletion_pause_s)
        if pause and question.request.reuse and not self._flights.joinable(question.place):
            await self._wait(question, self._clock() + pause)

    async def _from_flights(
        self, question: _Question, stream: SuggestionStream, *, whole: bool
    ) -> AsyncGenerator[str, None]:
        """Joins what agrees, until one has something to show; asks itself when none is left."""
        tried: set[Flight] = set()
        while not stream.answered:
            flight = self._flights.joinable(question.place, tried) if question.request.reuse else None
            stream.source = "joined" if flight else "upstream"
            stream.answered = flight is None
            flight = flight or self._start(question, question.place)
            tried.add(flight)
            async with aclosing(self._read(question, flight, stream, whole=whole)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _read(
        self, question: _Question, flight: Flight, stream: SuggestionStream, *, whole: bool
    ) -> AsyncGenerator[str, None]:
        """The text of one flight as trimmed for this keystroke; ends without text where the flight contradicts it."""
        trimmer = question.trimmer()
        given = 0
        question.seat.flights.add(flight)
        self._flights.join(flight, question.reader)
        try:
            while left := self._left(question, flight):
                ended = flight.complete
                if isinstance(left, Left):
                    piece = trimmer.feed(left.text[given:])
                    given = len(left.text)
                    ended = ended or trimmer.finished or left.settled
                    stream.answered = stream.answered or left.settled
                    if piece := piece + (trimmer.end() if ended else ""):
                        stream.answered = True
                        yield piece
                if ended:
                    stream.finish = "length" if trimmer.shortened else "stop"
                    flight.kept = True
                    return
                if not await self._wait(question, question.until if whole or not stream.text else None):
                    stream.text, stream.source, stream.finish = "", "budget", "length"
                    stream.answered = flight.kept = True
                    return
            self._flights.drop(flight, question.reader)
        finally:
            self._flights.leave(flight, question.reader)

    def _left(self, question: _Question, flight: Flight) -> Left | str | None:
        question.reader.wake.clear()
        self._check(question)
        left = flight.left_at(question.place)
        if left and flight.error:
            raise flight.error
        return left

    async def _wait(self, question: _Question, until: float | None) -> bool:
        """Until something changes (true) or the time is over (false)."""
        wake = question.reader.wake
        if until is None:
            await wake.wait()
        elif until <= self._clock():
            return False
        else:
            waiting = {asyncio.ensure_future(wake.wait()), asyncio.ensure_future(self._sleep(until - self._clock()))}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
        self._check(question)
        return True

    def _check(self, question: _Question) -> None:
        if question.reader.superseded:
            self.counts["superseded"] += 1
            raise Superseded("a newer keystroke of this editor took the request's place; drop this answer")
