"""The front door before Jupyter is there: answers /health from the first moment, a waiting page otherwise.

Jupyter takes seconds to import, and under a hub that is away it does not listen at all. The extension asks the launcher
to leave the port right before Jupyter binds it (`control`, ``port``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from calliope_agent.launcher import pages
from calliope_agent.launcher.headers import SECURITY

HEAD_LIMIT, HEAD_TIMEOUT_S = 16384, 5.0


class Front:
    """Listens on the main port until it is closed; may be opened again when Jupyter has died."""

    def __init__(self, host: str, port: int, prefix: str, waiting_for: Callable[[], str]) -> None:
        self._address, self._prefix, self._waiting_for = (host or None, port), prefix, waiting_for
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Raises OSError when the port is taken."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._answer, self._address[0], self._address[1], limit=HEAD_LIMIT, reuse_address=True
            )

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT_S)
            writer.write(self._response(head))
            await writer.drain()
        writer.close()

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = urlsplit(rest.partition(" ")[0]).path
        healthy = path in ("/health", f"{self._prefix}health", f"{self._prefix}api/health")
        if healthy:
            kind, body = "application/json", json.dumps(health()).encode()
        else:
            kind, body = "text/html; charset=utf-8", pages.waiting(self._waiting_for()).encode()
        lines = [
            f"HTTP/1.1 {'200 OK' if healthy else '503 Service Unavailable'}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *([] if healthy else ["Retry-After: 2"]),
            f"Content-Security-Policy: {pages.POLICY}",
            *(f"{name}: {value}" for name, value in SECURITY.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body)


def health() -> dict[str, str]:
    """The reference's shape: ``{"status": "healthy", "timestamp": "2025-01-26T10:00:00Z"}``."""
    return {"status": "healthy", "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
