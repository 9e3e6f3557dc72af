"""How long a backend may be silent before the first word of its answer, and what is said when it was.

Decisions
1. The bound counts from the last piece of the request's body: neither a slow visitor nor a slow reader of a large upload
   is silence of the backend's. What follows the first word has no bound: streams run for hours.
2. A page is given up sooner than anything else: the one that we show instead looks again by itself, while a script of
   the workbench that is late is still better than none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

PAGE_S, OTHER_S = 15.0, 60.0
NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError)
T = TypeVar("T")


@dataclass(slots=True)
class Patience:
    """For one request. ``seconds`` None: the backend has a bound of its own."""

    seconds: float | None
    _timeout: asyncio.Timeout | None = None

    async def first_word(self, asked: Awaitable[T]) -> T:
        """Raises TimeoutError."""
        try:
            async with asyncio.timeout(self.seconds) as self._timeout:
                return await asked
        finally:
            self._timeout = None

    async def visitor(self, part: Awaitable[T]) -> T:
        """A piece of the request's body; the time that it takes is the visitor's."""
        self._count_to(None)
        try:
            return await part
        finally:
            self._count_to(self.seconds)

    def cause(self, name: str, error: Exception) -> str:
        """What `NO_ANSWER` caught, in a sentence about the backend called ``name``."""
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"The {name} does not listen yet, or not any more."
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"The {name} takes no connection."
        if isinstance(error, TimeoutError) and self.seconds is not None:
            return f"The {name} took the request and has said nothing for {self.seconds:g} s."
        return f"The {name} broke off its answer ({type(error).__name__})."

    def _count_to(self, seconds: float | None) -> None:
        if self._timeout is not None and not self._timeout.expired():
            now = asyncio.get_running_loop().time()
            self._timeout.reschedule(None if seconds is None else now + seconds)
