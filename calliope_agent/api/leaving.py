"""Notices when a caller goes away: from the first moment, for plain answers too, since an answer nobody reads is not paid for.

Decisions
1. The watch is a task, and it begins a moment after the request did: by then the provider has been asked, and nobody waits for the
   work of beginning it. Who left before that is noticed at its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from starlette.types import Receive

BEGIN_S = 0.002
Left = asyncio.Future[None]
_Given = TypeVar("_Given")


class Leaving:
    """A context manager; what it gives is done when the caller has gone."""

    __slots__ = ("_left", "_receive", "_task", "_timer")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Left:
        loop = asyncio.get_running_loop()
        self._left: Left = loop.create_future()
        self._timer = loop.call_later(BEGIN_S, self._begin)
        return self._left

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left.set_result(None)


async def until_left(work: Coroutine[Any, Any, _Given], left: Left) -> _Given | None:
    """What ``work`` gives, or None: it is cancelled when the caller goes.

    In the same task: a second one, and the wait for both, would cost more than all the rest of a short answer.
    """
    loop = asyncio.get_running_loop()
    going_on = True

    def leave(_: Left) -> None:
        if going_on:  # a callback that is due already is not taken back by its removal
            bound.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as bound:
            left.add_done_callback(leave)
            try:
                return await work
            finally:
                going_on = False
                left.remove_done_callback(leave)
    except TimeoutError:
        if not bound.expired():
            raise
        return None
