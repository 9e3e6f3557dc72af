"""What the operating system and TLS raise while a connection is being opened, as our errors."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Generator
from typing import Final

from calliope_agent import errors

# Most specific first. An OSError may be any of these.
_MESSAGES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (socket.gaierror, "The provider's name cannot be resolved. Check the base URL and the network."),
    (UnicodeError, "The provider's name is not one. Correct its base URL."),
    (
        ssl.SSLCertVerificationError,
        "The provider's certificate is not trusted. Behind a company proxy, set SSL_CERT_FILE to its authority.",
    ),
    (ssl.SSLError, "The provider's address does not speak TLS as it should. Is it https, and is its base URL right?"),
    (TimeoutError, "The provider did not accept a connection in time. Check the network."),
    (OSError, "The provider refuses or drops the connection. Is it running, and is its base URL right?"),
)
_PROXY: Final = "The HTTP proxy cannot be reached. Check scheme, host and port in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY."


@contextlib.contextmanager
def translated(*, to_proxy: bool = False) -> Generator[None]:
    """Raises `Unreachable` for what goes wrong on the way to an open connection."""
    try:
        yield
    except (OSError, UnicodeError) as exc:
        raise errors.Unreachable(_message(exc, to_proxy=to_proxy)) from exc


def _message(exc: Exception, *, to_proxy: bool) -> str:
    if to_proxy and not isinstance(exc, ssl.SSLCertVerificationError):
        return _PROXY
    return next(message for kind, message in _MESSAGES if isinstance(exc, kind))
