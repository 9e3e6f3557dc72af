"""Waiting for what another process does."""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20, step: float = 0.02) -> None:
    """Asks again and again, ``step`` apart; the bound is for failures only."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # what is waited for is another process's state
            await asyncio.sleep(step)


async def gone(pid: int, seconds: float = 10) -> bool:
    """Whether the process ends within the bound; a process that is gone already has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = await asyncio.to_thread(select.select, [handle], [], [], seconds)
    os.close(handle)
    return bool(ready)
