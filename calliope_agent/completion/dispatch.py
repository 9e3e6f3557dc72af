"""Who serves a call: an earlier request's answer, a kept one, an identical running one, or a flight of its own.

Decisions
1. Between the look for a running flight and the start of a new one nothing is awaited: of fifty identical requests the first one
   begins and the others find it.
2. A kept answer becomes a flight that has already landed, so that the edge knows one thing only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from calliope_agent import errors
from calliope_agent.catalog import Target
from calliope_agent.completion.entry import Entry
from calliope_agent.completion.flight import Flight
from calliope_agent.completion.flights import Flights
from calliope_agent.completion.keeper import Keeper, plain_of
from calliope_agent.completion.line import Line, TargetKeys
from calliope_agent.completion.reader import Reader
from calliope_agent.completion.record import Record
from calliope_agent.completion.route import Plan, Router
from calliope_agent.completion.wishes import Wishes
from calliope_agent.keys import Key
from calliope_agent.settings import Settings
from calliope_agent.upstream.attempt import Call, Seen


@dataclass(slots=True)
class Dispatch:
    """``settings`` gives those of the moment."""

    line: Line
    flights: Flights
    keeper: Keeper
    keys: TargetKeys
    settings: Callable[[], Settings]

    async def serve(self, call: Call, plan: Plan, wishes: Wishes, record: Record, router: Router) -> Reader:
        """A reader of the call's answer. Raises `InvalidRequest` for a misused idempotency key."""
        repeated = self._repeated(call, wishes, record)
        if repeated is not None:
            return repeated
        key = await self._key(call, plan.targets[0], wishes)
        if key is not None:
            entry = await self.keeper.find(key, call, wishes)
            if entry is not None:
                return _landed(call, entry, record, self.keeper.age_s(entry))
            joined = self._joined(call, key, record)
            if joined is not None:
                return joined
            record.cache = "miss"
        flight = Flight(call, record, wishes, keep=key is not None or wishes.outlives_reader)
        if wishes.outlives_reader:
            flight.grace_s = self.settings().resume_grace_s
        settings = self.settings()
        task = self.line.start(flight, plan, settings, router.local() if settings.offline == "local" else None)
        self.flights.add(flight, task, key, wishes.idempotency_key)
        return Reader(call.id, flight, record)

    def keep(self, flight: Flight, target: Target, key: Key | None, seen: Seen) -> None:
        """What the line calls when an answer is whole: keep it under the target that gave it."""
        settings = self.settings()
        if not self.keeper.may_keep(flight.call, flight.wishes, settings):
            return
        cache_key = self.keeper.key(flight.call, target, key)
        if cache_key is not None:
            self.keeper.keep(cache_key, flight, target, seen, settings.cache_ttl_s)

    def _repeated(self, call: Call, wishes: Wishes, record: Record) -> Reader | None:
        if wishes.idempotency_key is None:
            return None
        flight = self.flights.repeated(wishes.idempotency_key, call)
        if flight is None:
            return None
        record.cache = "replay" if flight.done else "join"
        record.notes.append(f"the same Idempotency-Key as {flight.call.id}")
        return Reader(call.id, flight, record)

    def _joined(self, call: Call, key: bytes, record: Record) -> Reader | None:
        flight = self.flights.joinable(key, call)
        if flight is None:
            return None
        record.cache = "join"
        return Reader(call.id, flight, record)

    async def _key(self, call: Call, target: Target, wishes: Wishes) -> bytes | None:
        if not self.keeper.may_keep(call, wishes, self.settings()):
            return None
        try:
            key = await self.keys.find(target)
        except errors.UpstreamError:
            return None  # the line finds it missing too, and may fall back
        return self.keeper.key(call, target, key)


def _landed(call: Call, entry: Entry, record: Record, age_s: int) -> Reader:
    record.cache, record.age_s = "hit", age_s
    record.target = entry.target
    record.told(entry.finish, entry.usage)
    flight = Flight(call, record, keep=True)
    flight.commit(list(entry.frames))
    flight.land(plain_of(entry))
    return Reader(call.id, flight, record)
