"""The native door: a request passes through to a provider of the same wire, and its answer comes back verified.

Decisions
1. One door serves both wires: what differs (paths, key headers, the look) is a table, so that every rule of truth is written once.
2. A stream's silence is timed by one timer of ours (`Silence`), from its first byte on: until then a model thinks, whether its server
   sends the headers before or after that, and only the caller's first-token limit ends it. A provider's comments and pings are
   reads, so they hold off the stall but not the first-token limit.
3. Redirects are refused: a key must not follow one.
4. The answer's headers are not passed on: gateways have leaked keys and cookies that way (Bifrost#3954).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from calliope_agent import errors
from calliope_agent.upstream import refusal
from calliope_agent.upstream.answer import verify
from calliope_agent.upstream.attempt import Attempt, Kind, Part, Plain, Wire
from calliope_agent.upstream.client import Client, Request
from calliope_agent.upstream.coding import ACCEPTED
from calliope_agent.upstream.look_anthropic import AnthropicLook
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.look_responses import ResponsesLook
from calliope_agent.upstream.place import Place, Places
from calliope_agent.upstream.reading import Reading
from calliope_agent.upstream.response import Response
from calliope_agent.upstream.silence import Silence

PATHS: Final[Mapping[Kind, str]] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "fim": "/fim/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "messages": "/messages",
    "count_tokens": "/messages/count_tokens",
}
_LOOKS: Final[Mapping[Kind, type[OpenAILook] | type[AnthropicLook] | type[ResponsesLook]]] = {
    "chat": OpenAILook,
    "completions": OpenAILook,
    "fim": OpenAILook,
    "responses": ResponsesLook,
    "messages": AnthropicLook,
}
_ERROR_BYTES = 1 << 16
_OK = 200
USER_AGENT = "calliope-agent"
ANTHROPIC_VERSION = "2023-06-01"


class NativeDoor:
    """Providers that speak the caller's own wire. ``scrub`` is the redaction boundary for their words."""

    def __init__(self, wire: Wire, client: Client, places: Places, scrub: Callable[[str], str], hop: str) -> None:
        self._wire = wire
        self._client = client
        self._places = places
        self._scrub = scrub
        self._hop = hop

    async def stream(self, attempt: Attempt) -> AsyncGenerator[Part]:
        """See `Door.stream`."""
        response = await self._asked(attempt)
        try:
            await self._expect_stream(response, attempt.limits.idle_s)
            look = _LOOKS[attempt.call.kind](attempt.seen, verifies=attempt.target.provider.verifies_finish)
            reading = Reading(look, response, attempt.limits.answer_bytes)
            with Silence(response, attempt.limits.idle_s) as silence:
                while await reading.more():
                    part = reading.take()
                    if part.frames:
                        silence.broken()
                        yield part
                    if reading.broken is not None:
                        raise reading.broken
                    silence.begins()
                if (part := reading.rest()).frames:
                    silence.broken()
                    yield part
            look.end()
        finally:
            response.release()

    async def plain(self, attempt: Attempt) -> Plain:
        """See `Door.plain`."""
        body = await self._json(await self._asked(attempt), attempt)
        verify(body, attempt.call.kind, attempt.seen, verifies=attempt.target.provider.verifies_finish)
        return Plain(body)

    async def get(self, attempt: Attempt, path: str) -> bytes:
        """The JSON that lies at ``path`` below the base URL. Raises `UpstreamError`."""
        return await self._json(await self._asked(attempt, path), attempt)

    async def close(self) -> None:
        await self._client.close()

    async def _asked(self, attempt: Attempt, path: str | None = None) -> Response:
        """An answer with status 200 to the call, or to a GET of ``path``. Who gets it releases it."""
        place = await self._places(attempt)
        response = await self._client.ask(
            Request(
                "GET" if path else "POST",
                place.base_url + path if path else _url(place.base_url, attempt),
                self._headers(attempt, place),
                attempt.limits.connect_s,
                b"" if path else attempt.call.encoded(attempt.target),
                place.unix_socket,
                attempt.target.provider.allow_link_local,
            )
        )
        attempt.seen.status = response.status
        told = _request_id(response.headers)
        attempt.seen.provider_request_id = self._scrub(told) if told else None
        if response.status == _OK:
            return response
        try:
            body = await _beginning(response, attempt.limits.idle_s)
        finally:
            response.release()
        raise refusal.of_status(response.status, response.headers, body, self._scrub)

    async def _json(self, response: Response, attempt: Attempt) -> bytes:
        try:
            self._expect_type(response, "application/json")
            return await _whole(response, attempt.limits.answer_bytes)
        finally:
            response.release()

    def _headers(self, attempt: Attempt, place: Place) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if attempt.call.stream else "application/json",
            "accept-encoding": "identity" if attempt.call.stream else ACCEPTED,
            "user-agent": USER_AGENT,
            "x-request-id": attempt.call.id,
            "x-calliope-hop": self._hop,
        }
        if self._wire == "anthropic":
            headers["anthropic-version"] = ANTHROPIC_VERSION
        headers |= attempt.call.headers
        key = place.key or attempt.key
        if key is not None:
            auth = attempt.target.provider.auth
            headers["authorization" if auth == "bearer" else auth] = (
                f"Bearer {key.reveal()}" if auth == "bearer" else key.reveal()
            )
        return headers

    async def _expect_stream(self, response: Response, idle_s: float) -> None:
        """Some gateways answer a streamed request with a 200 and one JSON object, which is an error: it is told as that error."""
        if response.content_type == "application/json":
            error = refusal.error_in_body(await _beginning(response, idle_s))
            if error is not None:
                raise error
        self._expect_type(response, "text/event-stream")

    @staticmethod
    def _expect_type(response: Response, wanted: str) -> None:
        """A captive portal or a login page answers 200 with HTML: that is no model (LiteLLM makes an empty "stop" of it)."""
        given = response.content_type
        if given in {wanted, ""} or (wanted == "application/json" and given.endswith("+json")):
            return
        raise errors.NotAModel(
            f"The provider's address answers with {given[:60]!r} where {wanted!r} belongs: a login page, a proxy's notice, or a "
            "wrong base URL. Open it in a browser and correct the base URL."
        )


async def _beginning(response: Response, idle_s: float) -> bytes:
    """An error's body, as far as it comes: one that breaks off or falls silent still has its status."""
    chunks: list[bytes] = []
    size = 0
    with contextlib.suppress(errors.UpstreamError), Silence(response, idle_s) as silence:
        silence.begins()
        while chunk := await response.read():
            silence.begins()
            chunks.append(chunk)
            size += len(chunk)
            if size >= _ERROR_BYTES:
                break
    return b"".join(chunks)[:_ERROR_BYTES]


async def _whole(response: Response, bound: int) -> bytes:
    chunks: list[bytes] = []
    total = 0
    while chunk := await response.read():
        total += len(chunk)
        if total > bound:
            raise errors.AnswerTooLarge(f"The answer is larger than {bound} bytes. Ask for a shorter one.")
        chunks.append(chunk)
    return b"".join(chunks)


def _url(base_url: str, attempt: Attempt) -> str:
    """The catalog's base URLs already stand before these paths; fill-in-the-middle may live beside them."""
    fim_url = attempt.target.provider.fim_url if attempt.call.kind == "fim" else None
    return fim_url or base_url + PATHS[attempt.call.kind]


def _request_id(headers: Mapping[str, str]) -> str | None:
    found = headers.get("x-request-id") or headers.get("request-id")
    return found[:128] if found and found.isascii() and found.isprintable() else None
