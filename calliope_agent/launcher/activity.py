"""What counts as activity: a request, a keystroke, a busy kernel, a running answer; not an idle tab.

Decisions
1. VS Code's websocket carries its own frames (``ipc.net.ts``: one byte of kind, two ids, a length, 13 bytes in all).
   Acknowledgements and keep-alives come from every open tab every few seconds. Of the regular frames an idle tab was
   seen to send (code-server 4.139, two minutes untouched): answers to what the extension host asked (``rpcProtocol.ts``:
   kinds 5 and 7 to 12), five pings of the channel ``telemetry`` each minute, and the news that its window is inactive.
   All these are not counted; everything else is.
2. The hub's proxy counts every websocket byte and the hub believes the later of the two clocks, so a culler of the
   hub's never ends a server with an open tab. Hence the launcher's own clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

HEADER = 13
ANSWERS = frozenset({5, 7, 8, 9, 10, 11, 12})
PING, WINDOW = b"telemetry\x01\x04ping", b"$onDidChangeWindowActive"
QUIET_KINDS = frozenset({0, 3, 6, 7, 8, 9})  # None, Ack, ReplayRequest, Pause, Resume, KeepAlive


def is_quiet(message: str | bytes | None) -> bool:
    """Whether a websocket message of the IDE's holds nothing but VS Code's own housekeeping."""
    if not isinstance(message, bytes) or len(message) < HEADER:
        return message == b""
    rest = memoryview(message)
    while len(rest) >= HEADER:
        end = HEADER + int.from_bytes(rest[9:13], "big")
        if rest[0] not in QUIET_KINDS and not _is_idle_talk(bytes(rest[HEADER:end])):
            return False
        rest = rest[end:]
    return True


def _is_idle_talk(body: bytes) -> bool:
    if len(body) >= 5 and body[0] in ANSWERS and body[1] == 0:  # a request's number, big-endian, follows the kind
        return True
    return len(body) < 64 and (PING in body or (WINDOW in body and body.endswith(b"[false]")))


def note(settings: dict[str, Any], source: str, now: datetime) -> None:
    """For the hub and for our own clock; Jupyter takes the latest of all sources."""
    settings["last_activity_times"][source] = now


def busy_kernels(kernels: list[dict[str, Any]]) -> int:
    return sum(kernel.get("execution_state") == "busy" for kernel in kernels)


def is_over(last: datetime, now: datetime, limit_s: float) -> bool:
    """Whether a server that was last active at ``last`` has been idle long enough; a limit of 0 is never reached."""
    return limit_s > 0 and now - last >= timedelta(seconds=limit_s)
