"""The event log: one writer, readers of every pace, a bound in bytes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent.completion.eventlog import EventLog
from calliope_agent.errors import ReaderTooSlow, Truncated


async def drained(log: EventLog, start: int = 0) -> list[bytes]:
    found: list[bytes] = []
    while frames := await log.read(start + len(found)):
        found += frames
    return found


async def test_a_reader_out_of_the_window_is_told_and_the_others_read_on() -> None:
    log = EventLog(keep=True, bound=10)
    log.append([b"aaaa"])
    quick = await log.read(0)
    log.append([b"bbbb", b"cccc", b"dddd"])
    with pytest.raises(ReaderTooSlow):
        await log.read(0)
    quick += await log.read(2)
    log.end()
    assert quick == [b"aaaa", b"cccc", b"dddd"]
    assert not log.whole
    assert await log.read(4) == []


async def test_a_kept_log_never_makes_its_writer_wait() -> None:
    log = EventLog(keep=True, bound=10)
    for _ in range(100):
        log.append([b"x" * 10])
        await asyncio.wait_for(log.room(), 1)


async def test_a_single_readers_pace_is_the_writers() -> None:
    log = EventLog(keep=False, bound=10)
    log.append([b"x" * 11])
    waiting = asyncio.create_task(log.room())
    done, _ = await asyncio.wait([waiting], timeout=0.01)
    assert not done
    assert await log.read(0) == [b"x" * 11]
    await asyncio.wait_for(waiting, 1)


async def test_a_writer_that_waits_is_freed_by_the_end() -> None:
    log = EventLog(keep=False, bound=1)
    log.append([b"xx"])
    waiting = asyncio.create_task(log.room())
    await asyncio.sleep(0)
    log.end()
    await asyncio.wait_for(waiting, 1)


async def test_the_error_comes_at_its_place() -> None:
    log = EventLog(keep=True, bound=100)
    log.append([b"a", b"b"])
    log.end(Truncated("cut"))
    assert await log.read(0) == [b"a", b"b"]
    with pytest.raises(Truncated):
        await log.read(2)


@given(
    writes=st.lists(st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=4), max_size=12),
    starts=st.lists(st.integers(0, 10), min_size=1, max_size=4),
)
def test_every_reader_gets_every_frame_from_its_start(writes: list[list[bytes]], starts: list[int]) -> None:
    async def scene() -> None:
        log = EventLog(keep=True, bound=1 << 20)
        readers = [asyncio.create_task(drained(log, start)) for start in starts]
        for frames in writes:
            log.append(list(frames))
            await asyncio.sleep(0)
        log.end()
        every = [frame for frames in writes for frame in frames]
        for start, reader in zip(starts, readers, strict=True):
            assert await reader == every[start:]

    asyncio.run(scene())
