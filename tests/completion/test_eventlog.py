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
        await asyncio.wait_for(log.write([b"x" * 10]), 1)


async def test_a_single_readers_pace_is_the_writers() -> None:
    log = EventLog(keep=False, bound=10)
    waiting = asyncio.create_task(log.write([b"x" * 11]))
    done, _ = await asyncio.wait([waiting], timeout=0.01)
    assert not done
    assert await log.read(0) == [b"x" * 11]
    await asyncio.wait_for(waiting, 1)


async def test_a_writer_that_waits_is_freed_by_the_end() -> None:
    log = EventLog(keep=False, bound=1)
    waiting = asyncio.create_task(log.write([b"xx"]))
    await asyncio.sleep(0)
    log.end()
    await asyncio.wait_for(waiting, 1)


async def test_a_single_reader_that_caught_up_is_called_by_the_writer() -> None:
    log = EventLog(keep=False, bound=10)
    poured: list[tuple[int, list[bytes]]] = []
    gate = asyncio.Event()
    gate.set()

    async def sink(number: int, frames: list[bytes]) -> None:
        await gate.wait()
        poured.append((number, frames))

    log.append([b"held", b"back"])
    pouring = asyncio.create_task(log.pour(0, sink))
    await asyncio.sleep(0)
    await log.write([b"c"])
    assert poured == [(0, [b"held", b"back"]), (2, [b"c"])], "no turn of the loop lies between write and sink"
    gate.clear()
    slow = asyncio.create_task(log.write([b"d"]))
    await asyncio.sleep(0)
    assert not slow.done(), "the reader's pace is the writer's"
    gate.set()
    await slow
    log.end(Truncated("cut"))
    with pytest.raises(Truncated):
        await pouring
    assert poured[2:] == [(3, [b"d"])]


async def test_a_reader_that_leaves_is_called_no_more() -> None:
    log = EventLog(keep=False, bound=1 << 20)
    poured: list[bytes] = []

    async def sink(_: int, frames: list[bytes]) -> None:
        poured.extend(frames)

    log.append([b"a"])
    pouring = asyncio.create_task(log.pour(0, sink))
    await asyncio.sleep(0)
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    await log.write([b"b"])
    assert poured == [b"a"]
    assert await log.read(1) == [b"b"]


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
    bound=st.integers(1, 30),
)
def test_a_reader_of_any_pace_gets_every_frame_or_is_told(
    writes: list[list[bytes]], starts: list[int], bound: int
) -> None:
    async def scene() -> None:
        log = EventLog(keep=True, bound=bound)
        readers = [asyncio.create_task(drained(log, start)) for start in starts]
        for number, frames in enumerate(writes):
            await log.write(list(frames))
            if number % 3 == 0:
                await asyncio.sleep(0)
        log.end()
        every = [frame for frames in writes for frame in frames]
        for start, reader in zip(starts, readers, strict=True):
            (got,) = await asyncio.gather(reader, return_exceptions=True)
            assert isinstance(got, ReaderTooSlow) or got == every[start:]
        assert sum(map(len, log.frames())) <= max(bound, len(every[-1]) if every else 0)

    asyncio.run(scene())


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
