"""From a flight to the caller: a whole answer, or a stream that keeps its true status open as long as it may.

Decisions
1. Until the hold ends nothing is sent, so that a failure has its own HTTP status. When it ends, headers and pings go out and the
   rest is told as an event.
2. The caller's leaving is watched from the first moment, for plain answers too: an answer nobody reads is not paid for.
3. sse-starlette carries the bytes that our encoder made: one write per upstream read, its own pings between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from calliope_agent.api import fault
from calliope_agent.completion.flight import Flight
from calliope_agent.errors import AgentError
from calliope_agent.upstream import sse

PING_S = 10
STREAM_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Caller:
    """The ASGI ends of one request."""

    scope: Scope
    receive: Receive
    send: Send


async def reply(flight: Flight, caller: Caller, hold_s: float, drain_s: float) -> None:
    """Serve the flight to its caller. Raises the flight's error while its status can still be told."""
    flight.join()
    try:
        async with _leaving(caller.receive) as left:
            if flight.call.stream:
                await _stream(flight, caller, left, hold_s, drain_s)
            else:
                await _plain(flight, caller, left)
    finally:
        flight.leave()


async def _plain(flight: Flight, caller: Caller, left: asyncio.Task[None]) -> None:
    await _settled(flight, left, None)
    if flight.error is not None:
        raise flight.error
    if flight.plain is not None:
        response = Response(flight.plain.body, 200, headers_of(flight), flight.plain.content_type)
        await response(caller.scope, caller.receive, caller.send)


async def _stream(flight: Flight, caller: Caller, left: asyncio.Task[None], hold_s: float, drain_s: float) -> None:
    await _settled(flight, left, hold_s)
    if left.done():
        return
    if flight.error is not None and not flight.committed:
        raise flight.error

    async def receive() -> Message:
        await left
        return {"type": "http.disconnect"}

    response = EventSourceResponse(
        _bytes(flight),
        headers={**STREAM_HEADERS, **headers_of(flight)},
        ping=PING_S,
        ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
        sep="\n",
        shutdown_grace_period=drain_s + 2,
    )
    await response(caller.scope, receive, caller.send)


async def _settled(flight: Flight, left: asyncio.Task[None], hold_s: float | None) -> None:
    settled = asyncio.ensure_future(flight.settled.wait())
    try:
        await asyncio.wait((settled, left), timeout=hold_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        settled.cancel()


async def _bytes(flight: Flight) -> AsyncIterator[bytes]:
    """The stream's bytes: never a silent end, never an end that the provider did not speak."""
    shape = fault.shape_of_kind(flight.call.kind)
    if not flight.settled.is_set():
        yield sse.PING
    try:
        async for frames in flight.frames():
            yield b"".join(frames)
    except AgentError as exc:
        yield fault.event(exc, shape, flight.call.id)
        return
    for note in flight.record.notes:
        yield sse.comment(note)
    if shape == "openai":
        yield sse.DONE_FRAME


def headers_of(flight: Flight) -> dict[str, str]:
    """What is known when the headers go out: who answers, why not the first, and the times so far."""
    record = flight.record
    headers = {"x-request-id": flight.call.id, "server-timing": record.server_timing()}
    if record.target is not None:
        headers["x-calliope-target"] = _plain_ascii(record.target)
    if record.fallback_cause is not None:
        headers["x-calliope-fallback"] = _plain_ascii(record.fallback_cause)
    if record.notes:
        headers["x-calliope-note"] = _plain_ascii("; ".join(record.notes))
    return headers


def _plain_ascii(text: str) -> str:
    """Model names may hold anything printable; headers may not."""
    return text.encode("ascii", "backslashreplace").decode()[:512]


@asynccontextmanager
async def _leaving(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(watch())
    try:
        yield task
    finally:
        task.cancel()
