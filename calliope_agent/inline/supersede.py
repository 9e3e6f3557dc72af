"""Superseding: of one editor and document only the newest keystroke counts.

Decisions
1. The older keystroke's caller gets `Superseded` at once. Its upstream call is cancelled only if the newer keystroke
   contradicts its text: one that is being typed through is the newer one's answer on its way.
"""

from __future__ import annotations

from collections import OrderedDict

from calliope_agent.inline.flight import Flight, Reader
from calliope_agent.inline.place import Place
from calliope_agent.inline.typed_through import typed_since

_MOST_SEATS = 256


class Seat:
    """One editor in one document: its newest keystroke and the flights that were started for it.

    ``vain`` counts the calls on the cursor's line since something of a suggestion was typed.
    """

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self.flights: set[Flight] = set()
        self.vain = 0
        self._last: Place | None = None

    def claim(self, reader: Reader) -> bool:
        """Supersedes the older keystroke. True where this one is a deletion of text that stood there before."""
        if self.reader:
            self.reader.supersede()
        last, self._last = self._last, reader.place
        self.reader = reader
        if not last or last.lines_above != reader.place.lines_above:
            self.vain = 0
        deleted = typed_since(reader.place, last) if last else None
        return bool(deleted and deleted.text)

    def leave(self, reader: Reader) -> None:
        if self.reader is reader:
            self.reader = None

    def sweep(self, place: Place, expected: str) -> None:
        """Cancels what ``place`` contradicts. What agrees goes on, read or not: it will be typed through.

        ``expected`` is what is left of the suggestion shown at ``place``: a flight asked ahead for its end goes on
        while the typing leads there.
        """
        self.flights = {flight for flight in self.flights if flight.running}
        for flight in list(self.flights):
            if flight.left_at(place) or _leads(place, expected, flight):
                continue
            self.flights.discard(flight)
            if not flight.wanted:
                flight.cancel()


class Seats:
    """The seats by editor and document, the longest unused dropped first."""

    def __init__(self) -> None:
        self._seats: OrderedDict[tuple[str, str], Seat] = OrderedDict()

    def of(self, editor: str, path: str) -> Seat:
        """The editor's seat in this document; a plain client without an editor's id has one for each request."""
        if not editor:
            return Seat()
        seat = self._seats.setdefault((editor, path), Seat())
        self._seats.move_to_end((editor, path))
        if len(self._seats) > _MOST_SEATS:
            self._seats.popitem(last=False)
        return seat


def _leads(place: Place, expected: str, flight: Flight) -> bool:
    ahead = typed_since(place, flight.place)
    return ahead is not None and bool(ahead.text) and expected.startswith(ahead.text)
