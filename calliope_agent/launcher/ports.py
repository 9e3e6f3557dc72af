"""Ports: is one free, who holds it, and the one line that says so."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from calliope_agent.errors import ConfigError

PROC = Path("/proc")
LISTEN = "0A"  # the state column of /proc/net/tcp (include/net/tcp_states.h)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A free port of the loopback. Another process may take it before it is used: the caller must cope."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require(port: int, host: str, variable: str) -> None:
    """Raises `ConfigError`, one line: the port, the variable that moves it, and its holder."""
    if not is_free(port, host):
        raise ConfigError(
            f"Port {port} ({variable}) is taken by {holder(port)}. Stop it, or set {variable} to another."
        )


def holder(port: int) -> str:
    """``python3 (pid 4711)``, or what can be said without the right to look."""
    inodes = _listeners(port)
    for directory in PROC.glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for link in directory.iterdir():
                with contextlib.suppress(OSError):
                    if link.readlink().name.removeprefix("socket:[").removesuffix("]") in inodes:
                        pid = directory.parent.name
                        return f"{(PROC / pid / 'comm').read_text().strip()} (pid {pid})"
    return "another process"


def _listeners(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                column = line.split()
                if column[3] == LISTEN and int(column[1].rpartition(":")[2], 16) == port:
                    found.add(column[9])
    return found
