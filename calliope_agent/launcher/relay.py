"""127.0.0.1:VSCODE_PORT for what expects the IDE there: a relay to its unix socket that looks at Host first.

Decisions
1. The IDE itself never listens on TCP: without a login it answers any Host, and a page of a stranger whose name was
   bound anew to 127.0.0.1 would have a shell. Here the first request of a connection must name the loopback; a browser
   sends requests of one origin only over a connection.
2. By default (``auto``) only in a container with a network of its own: on a shared loopback every other user could
   enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

HEAD_LIMIT, HEAD_TIMEOUT_S = 65536, 10.0
NETWORK = Path("/sys/class/net")
REFUSAL = b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Relay:
    def __init__(self, port: int, target: Path) -> None:
        self._port, self._target = port, target
        self._server: asyncio.Server | None = None
        self._hosts = {f"{name}{end}".encode() for name in ("127.0.0.1", "localhost") for end in ("", f":{port}")}

    async def open(self) -> None:
        """Raises OSError."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=HEAD_LIMIT)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT_S)
            hosts = re.findall(rb"(?im)^host:[ \t]*([^\r\n]*?)[ \t]*\r$", head)
            if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
                writer.write(REFUSAL)
                return
            back_reader, back_writer = await asyncio.open_unix_connection(str(self._target))
            back_writer.write(head)
            await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while part := await source.read(65536):
            sink.write(part)
            await sink.drain()
    finally:
        with contextlib.suppress(OSError):
            sink.close()


def wanted(choice: str, environ: Mapping[str, str], *, container: bool) -> bool:
    """``choice`` is WAIIDE_IDE_TCP. A pod's containers share their loopback, so Kubernetes counts as shared."""
    if choice != "auto":
        return choice == "true"
    return container and not environ.get("KUBERNETES_SERVICE_HOST") and not _has_device()


def _has_device() -> bool:
    """A container's own network has no network card behind its interfaces, the machine's has."""
    with contextlib.suppress(OSError):
        return any((interface / "device").exists() for interface in NETWORK.iterdir())
    return True
