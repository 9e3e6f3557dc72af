"""A blocking call in a thread, with a time limit that holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def bounded(call: Callable[[], T], timeout_s: float) -> T:
    """Run ``call`` in a daemon thread. Raises TimeoutError after ``timeout_s``; the thread is then left to itself.

    `asyncio.to_thread` is not used: its threads are joined at exit, so one keyring that never answers would hang the
    stop.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as exc:  # noqa: BLE001  carried over to the caller, whatever it is
            error = exc
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="calliope-keys", daemon=True).start()
    async with asyncio.timeout(timeout_s):
        return await future
