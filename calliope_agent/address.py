"""Addresses of providers: checked, completed with the path of their API, compared by origin."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Literal
from urllib.parse import SplitResult, urlsplit

Completion = Literal["missing", "empty"]

DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, never bound to


def checked(text: str) -> str:
    """The address without its trailing slash. Raises ValueError that says what is allowed, never what was given."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be an address of plain characters, without spaces")
    parts = _split(text)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("must be an http:// or https:// address with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry a user or password; a key has its own place")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    return text.rstrip("/")


@functools.lru_cache(maxsize=256)
def origin(address: str) -> str:
    """``scheme://host:port`` with the port always there: what a key is bound to."""
    parts = _split(address)
    host = (parts.hostname or "").lower().rstrip(".")
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def completed(address: str, path: str, when: Completion) -> str:
    """The address with the API's ``path``, the part of it that is already there not repeated.

    ``missing`` completes any address whose path does not end with ``path`` (for variables that by custom hold a
    server's root), ``empty`` only one without a path (for variables that by custom hold the whole base URL).
    """
    have = [part for part in _split(address).path.split("/") if part]
    want = [part for part in path.split("/") if part]
    if when == "empty" and have:
        return address
    overlap = next(size for size in range(len(want), -1, -1) if have[len(have) - size :] == want[:size])
    return "/".join([address.rstrip("/"), *want[overlap:]])


def from_variable(text: str, default: str | None) -> str:
    """An address as people write it in a variable: perhaps without scheme or port, perhaps what a server binds to.

    ``OLLAMA_HOST=0.0.0.0`` means port 11434 of this machine: the missing port is the default address's, and an
    address that means "all interfaces" is reached at the loopback. Raises ValueError.
    """
    if "://" in text:
        return checked(_reachable(text))
    bare = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    parts = _split(f"http://{bare}")
    port = _split(default).port if default and parts.port is None else None
    return checked(_reachable(f"http://{parts.netloc}{f':{port}' if port else ''}{parts.path}"))


def is_one_of(address: str, origins: Collection[str]) -> bool:
    """Whether the address is one of the servers named by ``origins``; every name of the loopback counts as the same."""
    return _same_loopback(origin(address)) in {_same_loopback(origin(own)) for own in origins}


def is_plain_and_remote(address: str) -> bool:
    """Whether what is sent there travels in clear over a network."""
    parts = _split(address)
    return parts.scheme == "http" and (parts.hostname or "") not in LOOPBACK


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  reading it is what checks it
    except ValueError as exc:
        raise ValueError("must be an address with a valid host and port") from exc
    return parts


def _reachable(text: str) -> str:
    parts = _split(text)
    if parts.hostname not in ANY_HOST or "@" in parts.netloc:
        return text
    return parts._replace(netloc=f"127.0.0.1{f':{parts.port}' if parts.port else ''}").geturl()


def _same_loopback(value: str) -> tuple[str, int | None]:
    parts = _split(value)
    host = parts.hostname or ""
    return ("loopback" if host in LOOPBACK or host.startswith("127.") else host), parts.port
