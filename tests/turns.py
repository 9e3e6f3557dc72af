"""Counts the event loop's turns: work that held the loop would leave none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(slots=True)
class Turns:
    """``count`` grows by one with every turn."""

    count: int = 0

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1


@contextlib.asynccontextmanager
async def counting_turns() -> AsyncIterator[Turns]:
    """While the block runs."""
    turns = Turns()
    task = asyncio.create_task(turns.go_on())
    try:
        yield turns
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
