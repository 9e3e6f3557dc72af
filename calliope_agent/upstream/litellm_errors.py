"""litellm's exceptions become ours: by the HTTP answer where there was one, else by what broke underneath.

Decisions
1. The chain of causes is read, not litellm's class: it calls a refused connection ``InternalServerError`` and a cut stream
   ``MidStreamFallbackError`` with status 500, while the chain still holds the client's own exception and the HTTP answer.
2. Classes are known by name (``httpx.ReadError``): naming them by import would load those packages.
3. litellm's own texts quote prompts and provider words, so they are never told; `refusal` decides about the provider's.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from calliope_agent import errors
from calliope_agent.upstream import refusal

_Kind = type[errors.UpstreamError]
_DROPPED = "The provider refuses or drops the connection. Is it running, and is its base URL right?"
_CUT = "The provider's answer was cut in the middle. Ask again."
_CREDENTIALS = (
    "litellm finds no credentials for this provider. Set its key or its variables; `calliope-agent doctor` names them."
)
_NAMED: Final[Mapping[str, tuple[_Kind, str]]] = {
    "aiohttp.ClientConnectorDNSError": (
        errors.Unreachable,
        "The provider's name cannot be resolved. Check the base URL and the network.",
    ),
    "socket.gaierror": (
        errors.Unreachable,
        "The provider's name cannot be resolved. Check the base URL and the network.",
    ),
    "ssl.SSLCertVerificationError": (
        errors.Unreachable,
        "The provider's certificate is not trusted. Behind a company proxy, set SSL_CERT_FILE to its authority.",
    ),
    "aiohttp.ConnectionTimeoutError": (
        errors.Unreachable,
        "The provider did not accept a connection in time. Check the network.",
    ),
    "httpx.ConnectTimeout": (
        errors.Unreachable,
        "The provider did not accept a connection in time. Check the network.",
    ),
    "aiohttp.ServerTimeoutError": (errors.Stalled, "The provider fell silent. Ask again, or try another model."),
    "httpx.TimeoutException": (errors.Stalled, "The provider fell silent. Ask again, or try another model."),
    "aiohttp.ClientPayloadError": (errors.Truncated, _CUT),
    "aiohttp.ClientResponseError": (
        errors.Malformed,
        "The provider's answer is not valid HTTP. Check its base URL.",
    ),
    "aiohttp.ClientConnectionError": (errors.Unreachable, _DROPPED),
    "httpx.ConnectError": (errors.Unreachable, _DROPPED),
    "httpx.NetworkError": (errors.Unreachable, _DROPPED),
    "httpx.RemoteProtocolError": (errors.Unreachable, _DROPPED),
    "builtins.ConnectionError": (errors.Unreachable, _DROPPED),
    "httpx.UnsupportedProtocol": (errors.Unreachable, "The provider's base URL is not one. Correct it."),
    "httpx.InvalidURL": (errors.Unreachable, "The provider's base URL is not one. Correct it."),
    "json.JSONDecodeError": (
        errors.Malformed,
        "The provider sent something that is not what its API promises. Ask again.",
    ),
    "botocore.NoCredentialsError": (errors.KeyMissing, _CREDENTIALS),
    "botocore.PartialCredentialsError": (errors.KeyMissing, _CREDENTIALS),
    "google.DefaultCredentialsError": (errors.KeyMissing, _CREDENTIALS),
    "builtins.ImportError": (
        errors.Unreachable,
        "A library that this provider needs is not installed: pip install 'calliope-agent[vertex]'.",
    ),
}


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def of_exception(exc: BaseException, scrub: Callable[[str], str], *, begun: bool) -> errors.UpstreamError:
    """``begun``: content had already come, so a dropped connection is a cut answer."""
    chain = list(_chain(exc))
    answer = _answered(chain)
    if answer is not None:
        error = refusal.of_status(answer.status, answer.headers, answer.body, scrub)
        if error.retry_after_s is None:
            error.retry_after_s = _retry_after(chain)
        return error
    for link in reversed(chain):
        for name in _names(link):
            if name in _NAMED:
                kind, message = _NAMED[name]
                return errors.Truncated(_CUT) if begun and kind is errors.Unreachable else kind(message)
    return _told(chain)


@contextlib.contextmanager
def translating(what: type[errors.UpstreamError], message: str) -> Generator[None]:
    """litellm's translators raise whatever they stumble over (KeyError, AttributeError, pydantic's, their own)."""
    try:
        yield
    except errors.AgentError:
        raise
    except (StopAsyncIteration, GeneratorExit):
        raise
    except Exception as exc:
        raise what(message) from exc


def _chain(exc: BaseException | None) -> Iterable[BaseException]:
    """The exception and what caused it, outermost first."""
    met: set[int] = set()
    while exc is not None and id(exc) not in met:
        met.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__ or getattr(exc, "original_exception", None)


def _names(exc: BaseException) -> Iterable[str]:
    for kind in type(exc).__mro__:
        yield f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _answered(chain: list[BaseException]) -> _Answer | None:
    """The provider's HTTP answer, from the exception of the client that got it."""
    for link in reversed(chain):
        response = getattr(link, "response", None)
        status = getattr(response, "status_code", None)
        genuine = any(name in ("httpx.HTTPStatusError", "openai.APIStatusError") for name in _names(link))
        if (
            genuine
            and isinstance(status, int)
            and status >= 300
            and not type(link).__module__.startswith("litellm.exc")
        ):
            return _Answer(status, getattr(response, "headers", {}), _body(response, chain))
    return None


def _body(response: Any, chain: list[BaseException]) -> bytes:
    try:
        content = response.content
    except RuntimeError:  # httpx's ResponseNotRead: a stream whose body litellm read elsewhere
        content = b""
    if content:
        return bytes(content)
    for link in reversed(chain):
        body = getattr(link, "body", None)
        if isinstance(body, dict):
            return msgspec.json.encode({"error": body.get("error", body)})
        message = _unquoted(getattr(link, "message", None))
        if message.lstrip().startswith(("{", "[")):
            return message.encode()
    return b""


def _unquoted(message: Any) -> str:
    """litellm passes some bodies on as the text of a bytes literal."""
    if isinstance(message, bytes):
        return message.decode(errors="replace")
    if not isinstance(message, str):
        return ""
    if message.startswith(("b'", 'b"')):
        with contextlib.suppress(ValueError, SyntaxError):
            return bytes(ast.literal_eval(message)).decode(errors="replace")
    return message


def _retry_after(chain: list[BaseException]) -> float | None:
    for link in chain:
        headers = getattr(link, "litellm_response_headers", None)
        if headers is not None and (found := refusal.retry_after(headers, datetime.now(UTC))) is not None:
            return found
    return None


def _told(chain: list[BaseException]) -> errors.UpstreamError:
    """No HTTP answer and no broken connection: an error object inside a stream, or litellm's own complaint."""
    for link in reversed(chain):
        body = getattr(link, "body", None)
        if isinstance(body, dict):
            return refusal.error_in_stream(body)
    deepest = chain[-1]
    status = getattr(deepest, "status_code", None) or getattr(chain[0], "status_code", None)
    if status in (401, 403):
        return errors.KeyMissing(_CREDENTIALS)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        return errors.UpstreamRefused("litellm cannot put this request into the provider's form. Simplify it.")
    if isinstance(status, int):
        return refusal.error_in_stream({"error": {"code": status}})
    return errors.Malformed(
        f"litellm could not make sense of the provider's answer ({type(deepest).__name__}). Ask again."
    )
