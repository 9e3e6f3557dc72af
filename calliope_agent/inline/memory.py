"""Finished suggestions, the least recently used forgotten first.

Decisions
1. Bounded in bytes of text, not in entries: a place carries its window, which is most of its size.
2. Newest first: a later suggestion of the same text knew more.
3. Some suggestions per document are kept, not one: after a correction or a backspace an older one fits again.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from calliope_agent.inline.place import Key, Place
from calliope_agent.inline.typed_through import Left, Typed, left_of, typed_since

_PER_KEY = 64
_OVERHEAD = 400


@dataclass(frozen=True, slots=True)
class Known:
    """A suggestion's text for its place; ``at`` is the clock's time of its end, ``size`` in bytes."""

    place: Place
    text: str
    at: float

    @property
    def size(self) -> int:
        texts = (self.place.before, self.place.after, self.text)
        return _OVERHEAD + sum(sys.getsizeof(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Match:
    """A known suggestion that fits a place: what was typed of it and what is left."""

    known: Known
    typed: Typed
    left: Left


class Memory:
    """At most ``max_bytes``, each suggestion at most ``ttl_s`` old."""

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._known: OrderedDict[Place, Known] = OrderedDict()
        self._by_key: dict[Key, OrderedDict[Place, None]] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._known)

    def put(self, place: Place, text: str) -> None:
        """Remembers ``text`` for ``place``; an empty text is not worth a place."""
        self._forget(place)
        if not text.strip():
            return
        known = Known(place, text, self._clock())
        self._known[place] = known
        siblings = self._by_key.setdefault(place.key, OrderedDict())
        siblings[place] = None
        self.size += known.size
        if len(siblings) > _PER_KEY:
            self._forget(next(iter(siblings)))
        while self.size > self._max_bytes:
            self._forget(next(iter(self._known)))

    def find(self, now: Place) -> Iterator[Match]:
        """Every suggestion that fits ``now``, newest first."""
        for place in reversed(list(self._by_key.get(now.key, ()))):
            match = self._match(self._known[place], now)
            if match:
                yield match

    def touch(self, match: Match) -> None:
        """The suggestion was of use."""
        self._known.move_to_end(match.known.place)

    def clear(self) -> None:
        """Forgets all."""
        self._known.clear()
        self._by_key.clear()
        self.size = 0

    def _match(self, known: Known, now: Place) -> Match | None:
        if self._clock() - known.at > self._ttl_s:
            self._forget(known.place)
            return None
        typed = typed_since(known.place, now)
        left = left_of(known.text, typed) if typed else None
        return Match(known, typed, left) if typed and left else None

    def _forget(self, place: Place) -> None:
        known = self._known.pop(place, None)
        if known is None:
            return
        self.size -= known.size
        siblings = self._by_key[place.key]
        del siblings[place]
        if not siblings:
            del self._by_key[place.key]
