"""What aiohttp raises when a connection breaks, as our errors; and the one break that it raises nothing for.

Decisions
1. After broken chunked framing aiohttp's C parser closes the connection, stops its read timer and leaves the body's reader waiting
   for ever (3.14). `watched` ends that body when its connection is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Final

import aiohttp

from calliope_agent import errors

# aiohttp's exceptions and ours, most specific first.
_TRANSLATIONS: Final[tuple[tuple[type[Exception], type[errors.UpstreamError], str], ...]] = (
    (
        aiohttp.ClientConnectorDNSError,
        errors.Unreachable,
        "The provider's name cannot be resolved. Check the base URL and the network.",
    ),
    (
        aiohttp.ClientConnectorCertificateError,
        errors.Unreachable,
        "The provider's certificate is not trusted. Behind a company proxy, set SSL_CERT_FILE to its authority.",
    ),
    (
        aiohttp.ConnectionTimeoutError,
        errors.Unreachable,
        "The provider did not accept a connection in time. Check the network.",
    ),
    (aiohttp.ServerTimeoutError, errors.Stalled, "The provider fell silent. Ask again, or try another model."),
    (
        aiohttp.ClientHttpProxyError,
        errors.Unreachable,
        "The HTTP proxy does not let us through. Check HTTPS_PROXY and NO_PROXY.",
    ),
    (aiohttp.ClientPayloadError, errors.Truncated, "The provider's answer was cut in the middle. Ask again."),
    (aiohttp.ClientResponseError, errors.Malformed, "The provider's answer is not valid HTTP. Check its base URL."),
    (aiohttp.InvalidURL, errors.Unreachable, "The provider's base URL is not one. Correct it."),
    (
        aiohttp.ClientError,
        errors.Unreachable,
        "The provider refuses or drops the connection. Is it running, and is its base URL right?",
    ),
    (OSError, errors.Unreachable, "The connection to the provider failed. Is it running, and is its base URL right?"),
)


@contextlib.contextmanager
def translated() -> Generator[None]:
    """Translate once; asyncio's own deadlines pass."""
    try:
        yield
    except TimeoutError as exc:
        if not isinstance(exc, aiohttp.ServerTimeoutError):
            raise  # a deadline of the completion line (TimeoutError is an OSError too)
        raise _translation(exc) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise _translation(exc) from exc


def _translation(exc: Exception) -> errors.UpstreamError:
    kind, message = next((kind, message) for known, kind, message in _TRANSLATIONS if isinstance(exc, known))
    return kind(message)


@contextlib.contextmanager
def watched(response: aiohttp.ClientResponse) -> Generator[None]:
    """While the block runs, a lost connection ends the body, whatever aiohttp's parser made of its last bytes."""
    protocol = response.connection.protocol if response.connection is not None else None
    closed = protocol.closed if protocol is not None else None
    if closed is None:
        yield  # the whole body is here already
        return

    def lost(_: asyncio.Future[None]) -> None:
        if not response.content.is_eof() and response.content.exception() is None:
            response.content.set_exception(aiohttp.ClientPayloadError("the connection was lost inside the body"))

    # The future lives as long as the pooled connection: whoever asks for it must look at its exception, once.
    closed.remove_done_callback(_look_at)
    closed.add_done_callback(_look_at)
    closed.add_done_callback(lost)
    try:
        yield
    finally:
        closed.remove_done_callback(lost)


def _look_at(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()
