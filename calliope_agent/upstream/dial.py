"""From a URL to an open connection: names, addresses that are never called, certificates, and the proxies in between.

Decisions
1. Link-local space holds the clouds' metadata services (RFC 3927, RFC 4291 §2.5.6); `_METADATA` has those elsewhere. They are taken
   out of what a name resolves to, and what is left is what is called, so that no second look-up can say something else. An IPv4
   address inside an IPv6 one counts as itself. A proxy resolves names itself, so behind one this check sees only the proxy.
2. IPv6 and IPv4 race as RFC 8305 has it (aiohappyeyeballs: uvloop has none of its own).
3. The operating system asks a silent connection now and then whether it is there: a model that thinks for minutes is silent, and
   networks forget such connections without a word.
4. TLS is begun on a connection that stands, never by ``create_connection``: left in its first moment, that keeps its transport on a
   socket which its caller then closes, and the next one to get the number is read and closed in its place.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import aiohappyeyeballs

from calliope_agent import errors
from calliope_agent.address import DEFAULT_PORTS
from calliope_agent.upstream.breakage import translated
from calliope_agent.upstream.connection import Connection

RACE_S: Final = 0.25
KEEPALIVE_S: Final = 60
_OK: Final = range(200, 300)
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
Tls = Callable[[], ssl.SSLContext]


@dataclass(frozen=True, slots=True)
class Route:
    """Where a connection goes. Connections of one route serve each other's requests."""

    scheme: str
    host: str
    port: int
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    unix_socket: str | None = None
    allow_link_local: bool = False

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The authority, without the scheme's own port (RFC 9110 §7.2)."""
        own = self.port == DEFAULT_PORTS[self.scheme]
        return self.authority.removesuffix(f":{self.port}") if own else self.authority


async def dial(route: Route, tls: Tls, connection: Connection) -> None:
    """Open ``connection``. Raises OSError, UnicodeError for a name that cannot be one, `Unreachable`."""
    loop = asyncio.get_running_loop()
    if route.unix_socket is not None:
        await loop.create_unix_connection(lambda: connection, route.unix_socket)
        return
    inner = tls() if route.scheme == "https" else None
    if route.proxy is None:
        await _over(await _reached(route.host, route.port, allow_link_local=route.allow_link_local), connection)
    else:
        await _through(urlsplit(route.proxy), route, tls, connection)
    if inner is not None:
        await _secured(connection, inner, route.host)


def checked_proxy(address: str) -> str:
    """A proxy's address with its scheme. Raises `Unreachable` without a word of it, since it may hold a password."""
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        good = parts.scheme in DEFAULT_PORTS and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise errors.Unreachable(
            "The proxy's address is not one, or not an HTTP proxy's (http://proxy.example:3128). Correct HTTPS_PROXY, HTTP_PROXY or "
            "ALL_PROXY; a user or password in it must be percent-encoded."
        )
    return url


def proxy_authorization(proxy: str) -> str | None:
    """The header that a proxy's address asks for with its user and password (RFC 7617), percent-decoded."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return None
    shown = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(shown.encode()).decode()


def forbidden(host: str) -> bool:
    """Whether an address is link-local or a cloud's metadata service, IPv4 inside IPv6 included."""
    address = ipaddress.ip_address(host.split("%", 1)[0])
    return any(
        one.is_link_local or one.is_multicast or one in _METADATA
        for one in (address, *(_inside(address) if isinstance(address, ipaddress.IPv6Address) else ()))
    )


async def _reached(host: str, port: int, *, allow_link_local: bool) -> socket.socket:
    found: list[Any] = list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    allowed = [info for info in found if allow_link_local or not forbidden(info[4][0])]
    if found and not allowed:
        raise errors.Unreachable(
            f"The provider's address {found[0][4][0]} is link-local or a metadata service, which is never called. "
            "An operator's provider file may allow it with allow_link_local = true."
        )
    reached = await aiohappyeyeballs.start_connection(allowed, happy_eyeballs_delay=RACE_S)
    reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reached.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    return reached


async def _over(reached: socket.socket, connection: Connection) -> None:
    try:
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=reached)
    except BaseException:
        reached.close()
        raise
    if connection.closing:  # uvloop cannot write there, nor tell it as an error of the system
        raise ConnectionResetError("it was closed before it could be used")


async def _secured(connection: Connection, tls: ssl.SSLContext, name: str) -> None:
    """Speak TLS from here on; see decision 4."""
    try:
        secured = await asyncio.get_running_loop().start_tls(
            connection.transport, connection, tls, server_hostname=name.rstrip(".")
        )
    except BaseException:
        connection.close()
        raise
    if secured is None:
        raise ConnectionResetError("it was closed before it could be used")
    connection.connection_made(secured)


async def _through(proxy: SplitResult, route: Route, tls: Tls, connection: Connection) -> None:
    """To a proxy, and for https to the provider behind it."""
    host = proxy.hostname or ""
    port = proxy.port or DEFAULT_PORTS[proxy.scheme]
    outer = tls() if proxy.scheme == "https" else None
    with translated(to_proxy=True):
        await _over(await _reached(host, port, allow_link_local=route.allow_link_local), connection)
        if outer is not None:
            await _secured(connection, outer, host)
    if route.scheme == "https":
        await _tunnel(route, connection)


async def _tunnel(route: Route, connection: Connection) -> None:
    """Ask the proxy for a way through (RFC 9110 §9.3.6)."""
    shown = proxy_authorization(route.proxy or "")
    lines = [
        f"CONNECT {route.authority} HTTP/1.1",
        f"host: {route.authority}",
        *([f"proxy-authorization: {shown}"] if shown else []),
    ]
    try:
        answer = await connection.ask("\r\n".join([*lines, "", ""]).encode())
    except errors.UpstreamError as exc:
        raise errors.Unreachable(
            "The HTTP proxy hangs up or speaks no HTTP. Check HTTPS_PROXY, ALL_PROXY and NO_PROXY."
        ) from exc
    connection.forget()
    if answer.status not in _OK:
        connection.close()
        raise errors.Unreachable(
            f"The HTTP proxy does not let us through (status {answer.status}). Check HTTPS_PROXY and NO_PROXY."
        )


def _inside(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that a network may make of an IPv6 one: mapped, 6to4 (RFC 3056), Teredo, NAT64 (RFC 6052)."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _NAT64):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
