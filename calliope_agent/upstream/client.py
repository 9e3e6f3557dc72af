"""The pooled HTTP client of the native doors: connections, proxies, certificates, and addresses that are never called.

Decisions
1. aiohttp's own ``trust_env`` is off: it would also read ``~/.netrc`` and put a person's password beside our key. The proxy is
   found here, from the environment given, by the rules of urllib (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY).
2. The address check stands in ``socket_factory``, which sees every address that is about to be connected, names resolved and
   literals alike; aiohttp's resolver hook does not see literals. Link-local space holds the clouds' metadata services
   (RFC 3927, RFC 4291 §2.5.6); `_METADATA` has those elsewhere. An IPv4 address inside an IPv6 one counts as itself. A proxy
   resolves names itself, so behind one this check sees only the proxy.
3. The loopback is never asked through a proxy, whether NO_PROXY names it or not: the proxy's loopback is another machine, which
   would get the prompt.
4. Connections are pooled per kind of address, for the life of the process: keys differ per request, sockets need not.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # public in CPython, missing in typeshed

import aiohttp

from calliope_agent.errors import Unreachable

KEEPALIVE_S = 75
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's host, which also hands out a machine's settings
        "192.0.0.192",  # Oracle, older images
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS, the credentials of EKS pods
        "fd20:ce::254",  # Google
    )
)
_NAT64 = (
    ipaddress.IPv6Network("64:ff9b::/96"),
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("::/96"),
)


class Client:
    """One process's connections to providers."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._proxies = proxies_of(environ)
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}
        self._tls: ssl.SSLContext | None = None

    def session(self, unix_socket: str | None, *, allow_link_local: bool = False) -> aiohttp.ClientSession:
        """The pool for a unix socket, or for TCP with or without the address check."""
        found = self._sessions.get((unix_socket, allow_link_local))
        if found is None:
            found = self._open(unix_socket, allow_link_local=allow_link_local)
            self._sessions[unix_socket, allow_link_local] = found
        return found

    def proxy(self, url: str) -> str | None:
        """The HTTP proxy for ``url`` by the environment's rules, or None."""
        if not self._proxies:
            return None
        parts = urlsplit(url)
        host = parts.hostname or ""
        if is_loopback(host) or proxy_bypass_environment(host, self._proxies):
            return None
        return self._proxies.get(parts.scheme) or self._proxies.get("all")

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _open(self, unix_socket: str | None, *, allow_link_local: bool) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        if unix_socket is not None:
            connector = aiohttp.UnixConnector(path=unix_socket, limit=0, keepalive_timeout=KEEPALIVE_S)
        else:
            connector = aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEPALIVE_S,
                ssl=self._certificates(),
                socket_factory=_socket if allow_link_local else _checked_socket,
            )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent",),
            trust_env=False,
        )

    def _certificates(self) -> ssl.SSLContext:
        """The system's authorities, with SSL_CERT_FILE and SSL_CERT_DIR where a company has its own."""
        if self._tls is None:
            file, folder = self._environ.get("SSL_CERT_FILE") or None, self._environ.get("SSL_CERT_DIR") or None
            self._tls = ssl.create_default_context(cafile=file, capath=folder)
        return self._tls


def proxies_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Scheme → proxy, ``no`` → exceptions. urllib reads os.environ itself, hence the same rules written for a mapping given."""
    found = {
        name.lower().removesuffix("_proxy"): value
        for name, value in sorted(environ.items())  # lower case comes last and so wins, as in curl
        if name.lower().endswith("_proxy") and value
    }
    if "REQUEST_METHOD" in environ:
        found.pop("http", None)  # httpoxy: a CGI's "Proxy" header arrives as HTTP_PROXY
    return found


def forbidden(host: str) -> bool:
    """Whether an address is link-local or a cloud's metadata service, IPv4 inside IPv6 included."""
    address = ipaddress.ip_address(host.split("%", 1)[0])
    return any(
        one.is_link_local or one.is_multicast or one in _METADATA
        for one in (address, *(_inside(address) if isinstance(address, ipaddress.IPv6Address) else ()))
    )


def is_loopback(host: str) -> bool:
    """Whether a URL's host means this machine by its very name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 §6.3


def _inside(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that a network may make of an IPv6 one: mapped, 6to4 (RFC 3056), Teredo, NAT64 (RFC 6052)."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _NAT64):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


def _socket(info: Any) -> socket.socket:
    family, kind, proto, _, _ = info
    return socket.socket(family, kind, proto)


def _checked_socket(info: Any) -> socket.socket:
    host = info[4][0]
    if forbidden(host):
        raise Unreachable(
            f"The provider's address {host} is link-local or a metadata service, which is never called. "
            "An operator's provider file may allow it with allow_link_local = true."
        )
    return _socket(info)
