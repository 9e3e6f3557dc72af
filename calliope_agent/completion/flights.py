"""The flights that are in the air, and those that can still be read: by id, by cache key, by idempotency key.

Decisions
1. Requests join only where one answer may serve both: the same cache key, or the same Idempotency-Key with the same body. Two
   sampled answers are never made one.
2. A flight that failed or was cancelled is nobody's to join: a repeated request deserves a fresh try.
3. Finished flights that may be resumed stay for the grace time, in memory, bounded in number and in bytes; the oldest go first.
4. A stream's id is the request's, which the caller may choose: a second stream of the same name gets an id of its own, so that
   nobody resumes or cancels another one's answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from calliope_agent.completion.flight import Flight
from calliope_agent.errors import InvalidRequest
from calliope_agent.upstream.attempt import Call

KEPT = 64
KEPT_BYTES = 64 << 20


class Flights:
    """``grace_s`` is how long a finished resumable flight can still be read."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._running: set[Flight] = set()
        self._by_key: dict[bytes, Flight] = {}
        self._by_id: OrderedDict[str, Flight] = OrderedDict()
        self._by_idempotency: dict[str, tuple[bytes, Flight]] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def running(self) -> Iterable[Flight]:
        return tuple(self._running)

    def add(self, flight: Flight, task: asyncio.Task[None], key: bytes | None, idempotency: str | None) -> None:
        """Remember a flight that begins; it is forgotten by itself."""
        self._running.add(flight)
        if key is not None:
            self._by_key[key] = flight
        if flight.grace_s is not None:
            if flight.stream_id in self._by_id:
                flight.stream_id = f"{flight.call.id}.{secrets.token_hex(8)}"
            self._by_id[flight.stream_id] = flight
            while len(self._by_id) > KEPT:
                self._forget(next(iter(self._by_id.values())))
        if idempotency is not None:
            self._by_idempotency[idempotency] = (fingerprint(flight.call), flight)
        task.add_done_callback(lambda _: self._landed(flight, key))

    def joinable(self, key: bytes, call: Call) -> Flight | None:
        """A running flight of the same question in the same form, with its first event still there."""
        flight = self._by_key.get(key)
        if flight is None or flight.error is not None or not flight.log.whole or flight.call.stream != call.stream:
            return None
        return flight

    def repeated(self, idempotency: str, call: Call) -> Flight | None:
        """The flight of an earlier request with that key. Raises `InvalidRequest` when its body was another."""
        found = self._by_idempotency.get(idempotency)
        if found is None:
            return None
        print_, flight = found
        if print_ != fingerprint(call):
            raise InvalidRequest(
                "This Idempotency-Key was used with another body. Use a new key for a new request.",
                param="Idempotency-Key",
            )
        usable = flight.error is None and flight.record.outcome != "cancelled" and flight.log.whole
        return flight if usable else None

    def get(self, identifier: str) -> Flight | None:
        """A flight that can be resumed, running or finished."""
        return self._by_id.get(identifier)

    def _landed(self, flight: Flight, key: bytes | None) -> None:
        self._running.discard(flight)
        if key is not None and self._by_key.get(key) is flight:
            del self._by_key[key]
        if flight.grace_s is not None:
            asyncio.get_running_loop().call_later(self._grace_s, self._forget, flight)
            self._make_room()

    def _make_room(self) -> None:
        finished = [one for one in self._by_id.values() if one.done]
        size = sum(one.size for one in finished)
        for one in finished:
            if size <= KEPT_BYTES:
                return
            size -= one.size
            self._forget(one)

    def _forget(self, flight: Flight) -> None:
        self._by_id.pop(flight.stream_id, None)
        for name, (_, known) in list(self._by_idempotency.items()):
            if known is flight:
                del self._by_idempotency[name]


def fingerprint(call: Call) -> bytes:
    """What makes two bodies the same request."""
    return hashlib.sha256(call.kind.encode() + msgspec.json.encode(dict(call.body), order="sorted")).digest()
