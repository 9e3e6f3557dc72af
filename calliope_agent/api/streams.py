"""``/v1/streams/{id}``: a stream taken up again where its reader lost it, or cancelled.

Decisions
1. ``Last-Event-ID`` (WHATWG HTML §9.2.4) names the last event that arrived; the next one is the first that is sent, exactly once.
2. A resumed stream has the bytes that an uninterrupted one would have had, pings apart, whether the answer still runs or has ended.
"""

from __future__ import annotations

from calliope_agent import errors
from calliope_agent.api.exchange import Exchange
from calliope_agent.api.reply import reply
from calliope_agent.completion.flight import Flight
from calliope_agent.completion.reader import Reader


async def resumed(exchange: Exchange) -> None:
    """Raises `NotFound` after the grace time, `InvalidRequest` for an id that the stream never sent."""
    flight = _flight(exchange)
    start = _start(exchange.headers.get("last-event-id", ""), flight)
    record = flight.record
    await reply(Reader(exchange.id, flight, record, start), exchange.caller, exchange.hold_s)


async def cancelled(exchange: Exchange) -> None:
    """Stop the answer; its readers get the error event ``cancelled``. Nothing happens to one that has ended."""
    flight = _flight(exchange)
    running = not flight.done
    flight.stop(errors.Cancelled("The answer was cancelled."))
    await exchange.json({"id": flight.stream_id, "cancelled": running})


def _flight(exchange: Exchange) -> Flight:
    flight = exchange.agent.flights.get(exchange.path["id"])
    if flight is None:
        raise errors.NotFound(
            "There is no such stream (any more). Streams are kept for requests with x-calliope-resumable: true or an "
            "Idempotency-Key, for the time of CALLIOPE_RESUME_GRACE_S after their end."
        )
    return flight


def _start(last: str, flight: Flight) -> int:
    if not last:
        return 0
    if not (last.isascii() and last.isdigit() and len(last) < 12) or int(last) > flight.log.next_number:
        raise errors.InvalidRequest("Last-Event-ID must be the id of an event of this stream.", param="Last-Event-ID")
    return int(last) + 1
