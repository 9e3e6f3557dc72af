"""Stop sequences: text up to the first one, held back only while it could be the start of one.

Decisions
1. "First" means the sequence whose end comes first: the only order that does not depend on how the text was cut
   into pieces.
"""

from __future__ import annotations


class StopCut:
    """Feeds text through until a stop sequence is complete; then ``finished`` is true and the rest is dropped."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._starts = frozenset(stop[0] for stop in self._stops)
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._held = ""
        self.finished = False

    def feed(self, piece: str) -> str:
        """The text that is certainly before any stop."""
        if self.finished:
            return ""
        text = self._held + piece
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.finished = True
            self._held = ""
            return text[: min(ends)[1]]
        keep = len(text) - self._possible(text)
        self._held = text[keep:]
        return text[:keep]

    def end(self) -> str:
        """What was held back; no more text comes."""
        held, self._held = self._held, ""
        self.finished = True
        return held

    def _possible(self, text: str) -> int:
        """The length of the longest end of ``text`` that begins a stop."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            if text[-size] in self._starts and any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
