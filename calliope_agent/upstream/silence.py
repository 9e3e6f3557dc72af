"""Watches a stream for silence with one timer, however many chunks it has.

Decisions
1. A timer that is armed anew at every read costs a twentieth of what a chunk does. This one is armed again only when it goes off too
   early.
2. Only waiting for the provider counts: while a slow caller is being written to, nobody reads, and that is not the provider's
   silence.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

from calliope_agent import errors
from calliope_agent.upstream.response import Response


class Silence:
    """A context manager around the reading of a body. Who waits for ``idle_s`` seconds, counted from the first `begins` on, gets
    `Stalled`.
    """

    def __init__(self, response: Response, idle_s: float) -> None:
        self._response = response
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._since = math.inf
        self._timer = self._loop.call_later(idle_s, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def broken(self) -> None:
        """Something was read, and nobody waits."""
        self._since = math.inf

    def begins(self) -> None:
        """From now on somebody waits."""
        self._since = self._loop.time()

    def _look(self) -> None:
        left = self._idle_s if self._since == math.inf else self._since + self._idle_s - self._loop.time()
        if left <= 0:
            self._response.fail(errors.Stalled("The provider fell silent. Ask again, or try another model."))
        else:
            self._timer = self._loop.call_later(left, self._look)
