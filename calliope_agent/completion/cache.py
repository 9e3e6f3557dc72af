"""The cache: finished answers by key. Every call is a coroutine, none of them ever raises for the store's sake.

Decisions
1. One worker thread owns the disk: SQLite's connections are per thread, and a slow disk then delays nobody but itself.
   A look-up that takes longer than `PATIENCE_S` is a miss; writes beyond `MAX_PENDING` waiting ones are left out.
2. A store that fails is left alone for `PAUSE_S` with one line in the log, and answers go on uncached. The line comes
   again only after a write has worked in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from calliope_agent.errors import ConfigError

if TYPE_CHECKING:
    from calliope_agent.completion.disk import DiskStore

T = TypeVar("T")

PATIENCE_S = 0.5
PAUSE_S = 30.0
MAX_PENDING = 64
CLOSE_S = 2.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """``entries`` and ``size_bytes`` are the store's, shared by all processes; the counts are this process's own.

    ``refused`` are rows no program of ours wrote, ``left_out`` answers that were not kept (too large, store away).
    """

    where: Literal["off", "memory", "disk"]
    entries: int = 0
    size_bytes: int = 0
    max_bytes: int = 0
    hits: int = 0
    misses: int = 0
    stored: int = 0
    left_out: int = 0
    refused: int = 0
    directory: str | None = None
    problem: str | None = None


class Cache(Protocol):
    """``key`` is what `cachekey.key_of` gives, ``value`` what `entry.encode` gives."""

    async def get(self, key: bytes) -> bytes | None: ...

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None: ...

    async def clear(self) -> int:
        """Forget everything; how many entries there were."""
        ...

    async def stats(self) -> CacheStats: ...

    async def close(self) -> None: ...


class NullCache:
    """CALLIOPE_CACHE=off, and a store that is refused: nothing is ever found."""

    def __init__(self, problem: str | None = None) -> None:
        self._stats = CacheStats("off", problem=problem)

    async def get(self, key: bytes) -> bytes | None:  # noqa: ARG002  the protocol's parameter
        return None

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keeps nothing."""

    async def clear(self) -> int:
        return 0

    async def stats(self) -> CacheStats:
        return self._stats

    async def close(self) -> None:
        """Holds nothing."""


class MemoryCache:
    """CALLIOPE_STORE_CONTENT=off: the same bounds, and nothing touches a disk. ``clock`` gives seconds, monotonic."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._stats = CacheStats("memory", max_bytes=max_bytes)

    async def get(self, key: bytes) -> bytes | None:
        row = self._rows.get(key)
        if row is not None and row[1] <= self._clock():
            self._drop(key)
            row = None
        if row is None:
            self._count(misses=1)
            return None
        self._rows.move_to_end(key)
        self._count(hits=1)
        return row[0]

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        self._drop(key)
        if ttl_s <= 0 or len(value) > self._stats.max_bytes // 8:
            self._count(left_out=1)
            return
        self._rows[key] = (value, self._clock() + ttl_s)
        self._count(stored=1, size_bytes=len(key) + len(value))
        while self._stats.size_bytes > self._stats.max_bytes:
            self._drop(next(iter(self._rows)))

    async def clear(self) -> int:
        count = len(self._rows)
        self._rows.clear()
        self._stats = replace(self._stats, size_bytes=0)
        return count

    async def stats(self) -> CacheStats:
        return replace(self._stats, entries=len(self._rows))

    async def close(self) -> None:
        self._rows.clear()

    def _drop(self, key: bytes) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self._count(size_bytes=-len(key) - len(row[0]))

    def _count(self, **more: int) -> None:
        self._stats = _added(self._stats, more)


class DiskCache:
    """The store on disk behind one thread. It opens at the first call; ``warn`` gets one line per fault."""

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        warn: Callable[[str], None] = _LOG.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._warn = warn
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache")
        self._store: DiskStore | None = None
        self._away_until = float("-inf")
        self._said: str | None = None
        self._pending = 0
        self._closed = False
        self._stats = CacheStats("disk", max_bytes=max_bytes, directory=str(directory))

    async def get(self, key: bytes) -> bytes | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await self._run(lambda store: store.get(key), None)
        except TimeoutError:
            found = None
        self._count(hits=found is not None, misses=found is None)
        return found

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        if ttl_s <= 0 or self._pending >= MAX_PENDING:
            self._count(left_out=1)
            return
        self._pending += 1
        try:
            kept = await self._run(lambda store: store.put(key, value, ttl_s), False)
        finally:
            self._pending -= 1
        self._count(stored=kept, left_out=not kept)
        if kept:
            self._said = None

    async def clear(self) -> int:
        return await self._run(lambda store: store.clear(), 0)

    async def stats(self) -> CacheStats:
        entries, size = await self._run(lambda store: store.size(), (0, 0))
        refused = self._store.refused if self._store else 0
        return replace(self._stats, entries=entries, size_bytes=size, refused=refused, problem=self._said)

    async def close(self) -> None:
        """Waits for what is being written, a while."""
        if self._closed:
            return
        self._closed = True
        leaving = asyncio.get_running_loop().run_in_executor(self._thread, self._leave)
        self._thread.shutdown(wait=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await leaving

    async def _run(self, act: Callable[[DiskStore], T], otherwise: T) -> T:
        if self._closed:
            return otherwise
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._act, act, otherwise))

    def _act(self, act: Callable[[DiskStore], T], otherwise: T) -> T:
        """In the thread."""
        # Imported here because diskcache costs 40 ms that neither a start nor a `NullCache` need pay.
        from calliope_agent.completion.disk import DiskStore, StoreUnavailable  # noqa: PLC0415

        if self._clock() < self._away_until:
            return otherwise
        try:
            if self._store is None:
                self._store = DiskStore(self._directory, self._stats.max_bytes, self._warn)
            return act(self._store)
        except ConfigError as exc:
            self._away(exc.message, float("inf"))
        except StoreUnavailable as exc:
            self._away(str(exc), self._clock() + PAUSE_S)
        return otherwise

    def _away(self, message: str, until: float) -> None:
        self._leave()
        self._away_until = until
        if self._said is None:
            self._warn(f"{message} Answers go on uncached.")
        self._said = message

    def _leave(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _count(self, **more: int) -> None:
        self._stats = _added(self._stats, more)


def open_cache(policy: str, directory: Path | None, max_bytes: int, *, store_content: bool) -> Cache:
    """The cache that the settings ask for (CALLIOPE_CACHE, _CACHE_MAX_MB, _STORE_CONTENT). Touches nothing yet."""
    if policy == "off":
        return NullCache()
    if not store_content or directory is None:
        return MemoryCache(max_bytes)
    return DiskCache(directory, max_bytes)


def _added(stats: CacheStats, more: dict[str, int]) -> CacheStats:
    return replace(stats, **{name: getattr(stats, name) + int(value) for name, value in more.items()})
