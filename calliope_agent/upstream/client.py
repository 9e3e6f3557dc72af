"""The pooled HTTP client of the native doors.

Decisions
1. The proxy is found here, from the environment given, by the rules of urllib (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY). No
   ``~/.netrc`` is read: it would put a person's password beside our key.
2. The loopback is never asked through a proxy, whether NO_PROXY names it or not: the proxy's loopback is another machine, which
   would get the prompt.
3. Connections are pooled per route, for the life of the process: keys differ per request, sockets need not. The one used last is
   taken first, so that the others can grow old and be closed.
4. Streams ask for no content coding, whole answers for gzip: a coder in between collects events until its window is full.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # public in CPython, missing in typeshed

from calliope_agent import errors
from calliope_agent.address import DEFAULT_PORTS
from calliope_agent.upstream.breakage import translated
from calliope_agent.upstream.connection import Connection
from calliope_agent.upstream.dial import Route, checked_proxy, dial, proxy_authorization
from calliope_agent.upstream.response import Response

KEEPALIVE_S: Final = 75
_PATH = "/%:@!$&'()*+,;=~"
_QUERY = _PATH + "?"


@dataclass(frozen=True, slots=True)
class Request:
    """``headers`` are the caller's; what HTTP itself needs is added. ``connect_s`` bounds the way to an open connection."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    connect_s: float
    body: bytes = field(default=b"", repr=False)
    unix_socket: str | None = None
    allow_link_local: bool = False


class Client:
    """One process's connections to providers."""

    def __init__(self, environ: Mapping[str, str], *, keepalive_s: float = KEEPALIVE_S) -> None:
        self._environ = environ
        self._keepalive_s = keepalive_s
        self._proxies = proxies_of(environ)
        self._idle: dict[Route, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._routes = functools.lru_cache(maxsize=256)(self._route)

    async def ask(self, request: Request) -> Response:
        """The answer, its head already there; `Response.release` it. Raises `UpstreamError`."""
        route, target = self._routes(request.url, request.unix_socket, allow_link_local=request.allow_link_local)
        head = _head(request, route, target)
        connection = self._rested(route)
        if connection is None:
            connection = await self._dialled(route, request.connect_s)
        return await connection.ask(head, request.body)

    def proxy(self, url: str) -> str | None:
        """The HTTP proxy for ``url`` by the environment's rules, or None."""
        if not self._proxies:
            return None
        parts = urlsplit(url)
        host = parts.hostname or ""
        with_port = f"{host}:{parts.port or DEFAULT_PORTS.get(parts.scheme)}"
        if is_loopback(host) or any(proxy_bypass_environment(name, self._proxies) for name in (host, with_port)):
            return None
        return self._proxies.get(parts.scheme) or self._proxies.get("all")

    async def close(self) -> None:
        """Close every connection and wait until the last is gone."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        if self._open:
            self._emptied.clear()
            for connection in list(self._open):
                connection.close()
            await self._emptied.wait()

    def _rested(self, route: Route) -> Connection | None:
        """The pooled connection that was used last, if it is young enough for the provider to still have it."""
        resting = self._idle.get(route)
        while resting:
            connection = resting.pop()
            if not connection.closing and _now() - connection.idle_since < self._keepalive_s:
                return connection
            connection.close()
        return None

    async def _dialled(self, route: Route, connect_s: float) -> Connection:
        connection = Connection(functools.partial(self._rest, route), functools.partial(self._forget, route))
        with translated():
            async with asyncio.timeout(connect_s):
                await dial(route, self._certificates, connection)
            if connection.closing:
                raise ConnectionResetError("it was closed before it could be used")
        self._open.add(connection)
        return connection

    def _rest(self, route: Route, connection: Connection) -> None:
        connection.idle_since = _now()
        self._idle.setdefault(route, []).append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._keepalive_s, self._sweep)

    def _forget(self, route: Route, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()
        resting = self._idle.get(route)
        if resting and connection in resting:
            resting.remove(connection)

    def _sweep(self) -> None:
        """Close what nobody used for long; the provider would, sooner or later, in the middle of our next request."""
        old = _now() - self._keepalive_s
        for route, resting in list(self._idle.items()):
            for connection in resting:
                if connection.idle_since <= old:
                    connection.close()
            if not resting:
                del self._idle[route]
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._keepalive_s, self._sweep) if self._idle else None

    def _route(self, url: str, unix_socket: str | None, *, allow_link_local: bool) -> tuple[Route, str]:
        """The route, and the target of the request's first line."""
        parts = urlsplit(url)
        target = quote(parts.path or "/", safe=_PATH) + (f"?{quote(parts.query, safe=_QUERY)}" if parts.query else "")
        route = Route(
            parts.scheme,
            parts.hostname or "",
            parts.port or DEFAULT_PORTS[parts.scheme],
            unix_socket=unix_socket,
            allow_link_local=allow_link_local,
        )
        proxy = None if unix_socket else self.proxy(url)
        if proxy is None:
            return route, target
        through = replace(route, proxy=checked_proxy(proxy))
        return through, target if parts.scheme == "https" else f"http://{route.authority}{target}"

    def _certificates(self) -> ssl.SSLContext:
        """The system's authorities, with SSL_CERT_FILE and SSL_CERT_DIR where a company has its own."""
        if self._tls is None:
            file, folder = self._environ.get("SSL_CERT_FILE") or None, self._environ.get("SSL_CERT_DIR") or None
            try:
                tls = ssl.create_default_context(cafile=file, capath=folder)
            except OSError as exc:
                raise errors.Unreachable("SSL_CERT_FILE or SSL_CERT_DIR cannot be read. Correct or remove it.") from exc
            tls.set_alpn_protocols(["http/1.1"])
            self._tls = tls
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


def is_loopback(host: str) -> bool:
    """Whether a URL's host means this machine by its very name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 §6.3


def _head(request: Request, route: Route, target: str) -> bytes:
    """Raises `UpstreamRefused` for a header that would end its own line, or that would arrive as something else."""
    given = {"host": route.host_header, **request.headers}
    if request.method != "GET":
        given["content-length"] = str(len(request.body))
    if route.proxy is not None and route.scheme == "http" and (shown := proxy_authorization(route.proxy)):
        given["proxy-authorization"] = shown
    fields = "".join([f"{name}: {value}\r\n" for name, value in given.items()])
    if fields.count("\n") != len(given) or fields.count("\r") != len(given) or "\0" in fields:
        raise errors.UpstreamRefused("A header for the provider holds a line break. Correct the request's headers.")
    try:
        return f"{request.method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise errors.UpstreamRefused(
            "The key or a header for the provider holds a character that no header can carry. Type it again in plain characters."
        ) from None  # the cause would carry the key along


def _now() -> float:
    return asyncio.get_running_loop().time()
