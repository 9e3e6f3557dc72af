"""From a flight to the caller: a whole answer, or a stream that keeps its true status open as long as it may.

Decisions
1. Until the hold ends nothing is sent, so that a failure has its own HTTP status. When it ends, headers and pings go out and the
   rest is told as an event.
2. sse-starlette carries the bytes that our encoder made: one write per upstream read, its own pings between them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from calliope_agent.api import fault
from calliope_agent.api.eventstream import EventStream, Write
from calliope_agent.api.leaving import Leaving, Left
from calliope_agent.completion.flight import Flight
from calliope_agent.completion.reader import Reader
from calliope_agent.errors import AgentError
from calliope_agent.upstream import sse


@dataclass(frozen=True, slots=True)
class Caller:
    """The ASGI ends of one request."""

    scope: Scope
    receive: Receive
    send: Send


async def reply(reader: Reader, caller: Caller, hold_s: float) -> None:
    """Serve a flight to one reader. Raises the flight's error while its status can still be told."""
    reader.join()
    try:
        with Leaving(caller.receive) as left:
            if reader.flight.call.stream:
                await _stream(reader, caller, left, hold_s)
            else:
                await _plain(reader, caller, left)
    finally:
        reader.leave()


async def _plain(reader: Reader, caller: Caller, left: Left) -> None:
    flight = reader.flight
    await _settled(flight, left, None)
    if flight.error is not None:
        raise flight.error
    if flight.plain is not None:
        reader.told()
        response = Response(flight.plain.body, 200, headers_of(reader), flight.plain.content_type)
        await response(caller.scope, caller.receive, caller.send)


async def _stream(reader: Reader, caller: Caller, left: Left, hold_s: float) -> None:
    flight = reader.flight
    await _settled(flight, left, hold_s)
    if left.done():
        return
    if flight.error is not None and not flight.committed:
        raise flight.error
    reader.told()

    response = EventStream(_Body(reader).pour, headers_of(reader), left)
    await response(caller.scope, caller.receive, caller.send)


async def _settled(flight: Flight, left: Left, hold_s: float | None) -> None:
    """Wait until the status is known, the caller has gone, or the hold is over; `asyncio.wait` costs two turns of the loop more."""
    if flight.settled:
        return
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    flight.watchers.append(wake)
    left.add_done_callback(wake)
    timer = loop.call_later(hold_s, wake) if hold_s is not None else None
    try:
        await waiter
    finally:
        if not flight.settled:
            flight.watchers.remove(wake)
        left.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


class _Body:
    """A stream's bytes: never a silent end, never an end that the provider did not speak."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._log = reader.flight.log
        self._numbered = reader.flight.grace_s is not None
        self._last = reader.start
        self._end = b""
        self._write: Write

    async def pour(self, write: Write) -> bytes:
        """See `EventStream`."""
        reader, flight, self._write = self._reader, self._reader.flight, write
        shape = fault.shape_of_kind(flight.call.kind)
        if not flight.settled:
            await write(sse.PING)
        try:
            await reader.pour(self._frames if self._numbered else self._plain_frames)
        except AgentError as exc:
            return fault.event(exc, shape, reader.id)
        ending = [self._end, *(sse.comment(note) for note in flight.record.notes)]
        if shape == "openai" and self._last <= flight.log.next_number:
            ending.append(sse.with_id(sse.DONE_FRAME, self._last) if self._numbered else sse.DONE_FRAME)
        return b"".join(ending)

    async def _plain_frames(self, number: int, frames: list[bytes]) -> None:
        self._last = number + len(frames)
        data = b"".join(frames)
        if self._log.ended and self._log.error is None and self._last == self._log.next_number:
            self._end = data  # the last frames go out with the end: another write would wake the caller twice
        else:
            await self._write(data)

    async def _frames(self, number: int, frames: list[bytes]) -> None:
        await self._plain_frames(number, [sse.with_id(frame, each) for each, frame in enumerate(frames, number)])


def headers_of(reader: Reader) -> dict[str, str]:
    """What is known when the headers go out: who answers, why not the first, and the times so far."""
    record = reader.record
    headers = {
        "x-request-id": reader.id,
        "cache-status": record.cache_status(),
        "server-timing": record.server_timing(),
    }
    if record.target is not None:
        headers["x-calliope-target"] = _plain_ascii(record.target)
    if record.fallback_cause is not None:
        headers["x-calliope-fallback"] = _plain_ascii(record.fallback_cause)
    if record.notes:
        headers["x-calliope-note"] = _plain_ascii("; ".join(record.notes))
    if record.age_s is not None:
        headers["age"] = str(record.age_s)
    if reader.flight.grace_s is not None:
        headers["x-calliope-stream"] = reader.flight.stream_id
    return headers


def _plain_ascii(text: str) -> str:
    """Model names may hold anything printable; headers may not."""
    return text.encode("ascii", "backslashreplace").decode()[:512]
