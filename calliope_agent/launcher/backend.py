"""A server behind the proxy: on a unix socket or on a port of the loopback, with one pool of connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

CONNECT_S = 10.0
MESSAGE_LIMIT = 256 << 20


@dataclass(slots=True)
class Backend:
    """``origin`` is how it names itself in redirects, and its address where there is no ``socket``."""

    name: str
    origin: str
    socket: str | None = None
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    def session(self) -> aiohttp.ClientSession:
        """Made on first use, inside the running loop. No time limit on an answer: streams run for hours."""
        if self._session is None or self._session.closed:
            connector = (
                aiohttp.UnixConnector(self.socket, limit=0)
                if self.socket
                else aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=None),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                trust_env=False,
                read_bufsize=1 << 16,
            )
        return self._session

    def url(self, path: str) -> URL:
        """``path`` as it came, query included: nothing is decoded or encoded anew."""
        return URL(self.origin + path, encoded=True)

    async def answers(self, path: str, timeout_s: float = 2.0) -> bool:
        """Whether a GET is answered with anything below 500 in time."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.session().get(self.url(path), allow_redirects=False) as response,
            ):
                return response.status < 500
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
