"""The cache as the completion line sees it: it never raises, it never waits long, it says once what is wrong."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calliope_agent.completion import cache
from calliope_agent.completion.cache import Cache, DiskCache, MemoryCache, NullCache, open_cache
from tests.turns import counting_turns

KEY = b"k" * 32
OTHER = b"o" * 32
ROOM = 4 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["disk", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cache]:
    made: Cache = DiskCache(tmp_path / "cache", ROOM) if request.param == "disk" else MemoryCache(ROOM)
    yield made
    await made.close()


class TestContract:
    """Both stores keep the same promises."""

    async def test_what_was_put_is_found_and_counted(self, store: Cache) -> None:
        assert await store.get(KEY) is None
        await store.put(KEY, b"one", 60)
        await store.put(KEY, b"two", 60)
        assert await store.get(KEY) == b"two"
        stats = await store.stats()
        assert (stats.entries, stats.hits, stats.misses, stats.stored) == (1, 1, 1, 2)
        assert 0 < stats.size_bytes <= stats.max_bytes

    async def test_clear_forgets_everything(self, store: Cache) -> None:
        await store.put(KEY, b"one", 60)
        await store.put(OTHER, b"two", 60)
        assert await store.clear() == 2
        assert await store.get(KEY) is None
        assert (await store.stats()).entries == 0

    async def test_no_time_to_live_is_not_kept(self, store: Cache) -> None:
        await store.put(KEY, b"value", 0)
        assert await store.get(KEY) is None
        assert (await store.stats()).left_out == 1

    async def test_one_answer_never_takes_the_whole_room(self, store: Cache) -> None:
        await store.put(KEY, b"x" * (ROOM // 2), 60)
        assert await store.get(KEY) is None
        assert (await store.stats()).left_out == 1

    async def test_many_at_once(self, store: Cache) -> None:
        keys = [number.to_bytes(32, "big") for number in range(cache.MAX_PENDING)]
        await asyncio.gather(*(store.put(key, key * 10, 60) for key in keys))
        assert await asyncio.gather(*(store.get(key) for key in keys)) == [key * 10 for key in keys]

    async def test_after_close_it_still_answers(self, store: Cache) -> None:
        await store.put(KEY, b"value", 60)
        await store.close()
        await store.close()
        assert await store.get(KEY) is None
        await store.put(KEY, b"value", 60)


class TestMemory:
    async def test_the_least_recently_used_goes_first(self) -> None:
        store = MemoryCache(10_000)
        for number in range(20):
            await store.put(bytes([number]), b"x" * 999, 60)
            assert await store.get(bytes([0])) is not None
        assert await store.get(bytes([1])) is None
        assert await store.get(bytes([19])) is not None
        stats = await store.stats()
        assert (stats.entries, stats.size_bytes) == (10, 10_000)

    async def test_an_old_answer_is_a_miss_and_leaves_no_trace(self) -> None:
        clock = Clock()
        store = MemoryCache(ROOM, clock)
        await store.put(KEY, b"value", 10)
        clock.now += 9.9
        assert await store.get(KEY) == b"value"
        clock.now += 0.1
        assert await store.get(KEY) is None
        assert (await store.stats()).size_bytes == 0


class TestNull:
    async def test_nothing_is_ever_found(self) -> None:
        store = NullCache()
        await store.put(KEY, b"value", 60)
        assert await store.get(KEY) is None
        assert await store.clear() == 0
        assert (await store.stats()).where == "off"
        await store.close()


class TestChoice:
    @pytest.mark.parametrize(
        ("policy", "store_content", "kind"),
        [("off", True, NullCache), ("on", True, DiskCache), ("all", True, DiskCache), ("on", False, MemoryCache)],
    )
    async def test_the_settings_choose(
        self, tmp_path: Path, policy: str, store_content: bool, kind: type[Cache]
    ) -> None:
        store = open_cache(policy, tmp_path / "cache", ROOM, store_content=store_content)
        assert isinstance(store, kind)
        assert not (tmp_path / "cache").exists()
        await store.close()

    async def test_without_content_on_disk_nothing_is_written(self, tmp_path: Path) -> None:
        store = open_cache("all", tmp_path / "cache", ROOM, store_content=False)
        await store.put(KEY, b"value", 60)
        assert await store.get(KEY) == b"value"
        assert os.listdir(tmp_path) == []  # noqa: PTH208  a look at an empty folder holds no loop

    def test_it_costs_no_import_until_it_is_used(self) -> None:
        script = "import sys, calliope_agent.completion.cache; print('diskcache' in sys.modules)"
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True)
        assert done.stdout == "False\n"


class TestFaults:
    async def test_a_refused_folder_is_one_line_and_service_goes_on(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(0o777)
        lines: list[str] = []
        store = DiskCache(tmp_path / "cache", ROOM, lines.append)
        for _ in range(3):
            await store.put(KEY, b"value", 60)
            assert await store.get(KEY) is None
        stats = await store.stats()
        assert len(lines) == 1
        assert lines[0].endswith("Answers go on uncached.")
        assert stats.problem is not None
        assert (stats.left_out, stats.stored) == (3, 0)
        assert list((tmp_path / "cache").iterdir()) == []
        await store.close()

    async def test_a_corrupt_file_is_one_line_and_a_new_one(self, tmp_path: Path) -> None:
        folder = tmp_path / "cache" / "answers"
        folder.mkdir(parents=True, mode=0o700)
        (tmp_path / "cache").chmod(0o700)
        (folder / "cache.db").write_bytes(b"\x00garbage" * 1000)
        lines: list[str] = []
        store = DiskCache(tmp_path / "cache", ROOM, lines.append)
        await store.put(KEY, b"value", 60)
        assert await store.get(KEY) == b"value"
        assert len(lines) == 1
        await store.close()

    async def test_a_locked_file_makes_misses_not_waits_and_heals(self, tmp_path: Path) -> None:
        lines: list[str] = []
        clock = Clock()
        store = DiskCache(tmp_path / "cache", ROOM, lines.append, clock)
        await store.put(KEY, b"value", 60)
        other = sqlite3.connect(tmp_path / "cache" / "answers" / "cache.db", isolation_level=None)
        try:
            other.execute("BEGIN EXCLUSIVE")
            assert await store.get(KEY) is None
            await store.put(OTHER, b"value", 60)
            other.execute("ROLLBACK")
        finally:
            other.close()
        assert len(lines) == 1
        assert "is busy" in lines[0]
        assert await store.get(KEY) is None, "left alone for a while"
        clock.now += cache.PAUSE_S
        assert await store.get(KEY) == b"value"
        await store.close()

    async def test_writes_beyond_the_queue_are_left_out(self, tmp_path: Path) -> None:
        store = DiskCache(tmp_path / "cache", ROOM)
        await asyncio.gather(*(store.put(bytes([number]) * 32, b"v", 60) for number in range(cache.MAX_PENDING + 9)))
        stats = await store.stats()
        assert (stats.stored, stats.left_out) == (cache.MAX_PENDING, 9)
        await store.close()


FULL = """
import asyncio, os, resource, sys
from pathlib import Path
from calliope_agent.completion.cache import DiskCache
async def main():
    lines = []
    store = DiskCache(Path(sys.argv[1]), 64 << 20, lines.append)
    await store.put(b"a" * 32, b"small", 60)
    assert await store.get(b"a" * 32) == b"small"
    # No file may grow beyond 200 kB from here on: to SQLite a disk that takes no more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    for number in range(8):
        await store.put(number.to_bytes(32, "big"), os.urandom(100_000), 60)
    stats = await store.stats()
    assert stats.left_out, stats
    assert len(lines) == 1, lines
    assert lines[0].endswith("Answers go on uncached."), lines
    await store.close()
    print("went on")
asyncio.run(main())
"""


def test_a_full_disk_is_one_line_and_answers_go_on(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FULL, str(tmp_path / "cache")]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "went on\n"


async def test_the_loop_is_never_held(tmp_path: Path) -> None:
    """While the disk is at work the loop turns: a look-up that ran on the loop would leave no turn in between."""
    store = DiskCache(tmp_path / "cache", ROOM)
    async with counting_turns() as turns:
        await store.put(KEY, b"value", 60)
        before = turns.count
        assert await store.get(KEY) == b"value"
        assert turns.count > before + 1
    await store.close()
