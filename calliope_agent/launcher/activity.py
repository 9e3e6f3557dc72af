"""What counts as activity: a request, a keystroke, a busy kernel, a running answer; not an idle tab.

Decisions
1. VS Code's websocket carries its own frames (``src/vs/base/parts/ipc/common/ipc.net.ts``: one byte of kind, two ids, a
   length, 13 bytes in all). Acknowledgements and keep-alives come from every open tab every few seconds and are not
   counted.
2. The hub's proxy counts every websocket byte and the hub believes the later of the two clocks, so a culler of the
   hub's never ends a server with an open tab. Hence the launcher's own clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

HEADER = 13
QUIET_KINDS = frozenset({0, 3, 6, 7, 8, 9})  # None, Ack, ReplayRequest, Pause, Resume, KeepAlive


def is_quiet(message: str | bytes | None) -> bool:
    """Whether a websocket message of the IDE's holds nothing but VS Code's own housekeeping."""
    if not isinstance(message, bytes) or len(message) < HEADER:
        return message == b""
    rest = memoryview(message)
    while len(rest) >= HEADER:
        if rest[0] not in QUIET_KINDS:
            return False
        rest = rest[HEADER + int.from_bytes(rest[9:13], "big") :]
    return True


def note(settings: dict[str, Any], source: str, now: datetime) -> None:
    """For the hub and for our own clock; Jupyter takes the latest of all sources."""
    settings["last_activity_times"][source] = now


def busy_kernels(kernels: list[dict[str, Any]]) -> int:
    return sum(kernel.get("execution_state") == "busy" for kernel in kernels)


def is_over(last: datetime, now: datetime, limit_s: float) -> bool:
    """Whether a server that was last active at ``last`` has been idle long enough; a limit of 0 is never reached."""
    return limit_s > 0 and now - last >= timedelta(seconds=limit_s)
