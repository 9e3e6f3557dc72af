"""The ledger's file: what is broken, foreign or newer first, then what comes back."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.catalog import MAX_NAME
from calliope_agent.completion import ledgerfile
from calliope_agent.completion.ledger import MAX_DAYS, MAX_TARGETS, Ledger, Row
from calliope_agent.completion.ledgerfile import LOCK, NAME, LedgerFile
from calliope_agent.completion.record import Record
from calliope_agent.keys.lock import locked
from tests.doors.processes import until
from tests.shut import shut

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW: dict[str, Any] = {"requests": 2, "answered": 2, "input_tokens": 7, "cost_usd": None}
WHOLE = {"schema": 1, "since": "2026-02-01T00:00:00Z", "days": {"2026-02-01": {"a/b": ROW}}}


def ledger() -> Ledger:
    return Ledger(lambda: NOW, lambda _: None)


def count(into: Ledger, requests: int) -> None:
    for _ in range(requests):
        record = Record("id", "chat", "chat", False, 0.0, lambda: 0.0, target="a/b")
        record.end("complete", 200)
        into.ended(record)


def asked(told: Ledger) -> int:
    return sum(row.requests for rows in told.days.values() for row in rows.values())


def put(folder: Path, text: str) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / NAME
    file.write_text(text)
    file.chmod(0o600)
    return file


def _mode(file: Path) -> int | None:
    return file.stat().st_mode & 0o777 if file.exists() else None


async def taken_up(folder: Path) -> Ledger:
    found = ledger()
    await LedgerFile(found, folder).load()
    return found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is damaged"),
        ("[1]", "is damaged"),
        ("{" * 100_000, "is damaged"),
        (json.dumps(WHOLE)[:-20], "is damaged"),
        (json.dumps(WHOLE | {"days": {"2026-02-30": {}}}), "is damaged"),
        (json.dumps(WHOLE | {"days": {"20260201": {}}}), "is damaged"),
        (json.dumps(WHOLE | {"days": {"2026-02-01": {"a/b": {"requests": "2"}}}}), "is damaged"),
        (json.dumps(WHOLE | {"since": "2026-02-01T00:00:00"}), "is damaged"),
        (json.dumps(WHOLE | {"schema": 2, "months": []}), "has schema 2, and this program writes 1"),
    ],
)
async def test_what_cannot_be_read_is_set_aside_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    file = put(tmp_path / "ledger", text)
    assert (await taken_up(file.parent)).days == {}
    (aside,) = (one for one in file.parent.iterdir() if one.name != LOCK)
    assert aside.name != NAME
    assert aside.read_text() == text
    assert why in caplog.text


@pytest.mark.parametrize("how", ["link", "open"])
async def test_a_file_that_others_may_have_written_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    file = put(tmp_path / "ledger", json.dumps(WHOLE))
    if how == "open":
        file.chmod(0o666)
    else:
        file.symlink_to(file.rename(tmp_path / "elsewhere"))
    assert (await taken_up(file.parent)).days == {}
    assert "What was spent before is not known" in caplog.text


async def test_a_folder_that_cannot_be_used_costs_no_request_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "ledger").write_text("a file where a folder belongs")
    file = LedgerFile(ledger(), tmp_path / "ledger")
    file.changed()
    await file.close()
    assert "What was spent is not kept" in caplog.text


async def test_a_folder_that_may_not_be_entered_costs_no_request_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    file = LedgerFile(ledger(), state / "ledger")
    with shut(state):
        await file.load()
        file.changed()
        await file.close()
    assert "What was spent before is not known" in caplog.text
    assert "What was spent is not kept" in caplog.text


async def test_what_could_not_be_written_is_written_with_the_next(tmp_path: Path) -> None:
    hindrance = tmp_path / "ledger"
    hindrance.write_text("a file where a folder belongs")
    counted = ledger()
    file = LedgerFile(counted, hindrance)
    for times in (1, 2):
        count(counted, times)
        file.changed()
        await file.close()
        if times == 1:
            hindrance.unlink()
    assert asked(await taken_up(hindrance)) == asked(counted) == 3


async def test_what_cannot_be_read_is_not_written_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = put(tmp_path / "ledger", json.dumps(WHOLE))
    written.chmod(0o644)
    counted = ledger()
    file = LedgerFile(counted, tmp_path / "ledger")
    await file.load()
    count(counted, 1)
    file.changed()
    await file.close()
    assert json.loads(written.read_text()) == WHOLE
    assert "Run: chmod 600" in caplog.text
    written.chmod(0o600)
    file.changed()
    await file.close()
    assert asked(await taken_up(tmp_path / "ledger")) == asked(counted) == ROW["requests"] + 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["count", "write", "restart"])), max_size=25))
def test_agents_of_one_folder_count_together_in_any_order(steps: list[tuple[int, str]]) -> None:
    async def together(folder: Path) -> None:
        books = [ledger() for _ in range(3)]
        files = [LedgerFile(book, folder) for book in books]
        for who, step in steps:
            if step == "count":
                count(books[who], 1)
                files[who].changed()
            else:
                await files[who].close()
            if step == "restart":
                books[who] = ledger()
                files[who] = LedgerFile(books[who], folder)
                await files[who].load()
        await asyncio.gather(*(file.close() for file in files))
        assert asked(await taken_up(folder)) == sum(step == "count" for _, step in steps)

    with TemporaryDirectory() as state:
        asyncio.run(together(Path(state, "ledger")))


async def test_what_a_killed_agent_left_half_written_is_swept_at_the_next_start(tmp_path: Path) -> None:
    written = put(tmp_path / "ledger", json.dumps(WHOLE))
    left, *others = (tmp_path / "ledger" / name for name in (f".{NAME}.0a1b2c.tmp", ".other.json.0a1b2c.tmp", "x.tmp"))
    for one in (left, *others):
        one.write_text('{"schema": 1, "si')
    await taken_up(written.parent)
    assert not left.exists()
    assert all(one.exists() for one in (written, *others))


async def test_what_another_agent_is_writing_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledgerfile, "LOCK_S", 0.1)
    written = put(tmp_path / "ledger", json.dumps(WHOLE))
    theirs = written.with_name(f".{NAME}.0a1b2c.tmp")
    theirs.touch()
    with locked(written.with_name(LOCK)):
        counted = await taken_up(written.parent)
    assert theirs.exists()
    assert "What was spent before is not known" in caplog.text
    count(counted, 1)
    file = LedgerFile(counted, written.parent)
    file.changed()
    await file.close()
    assert asked(counted) == ROW["requests"] + 1


async def test_what_changes_while_it_is_written_is_written_at_the_end(tmp_path: Path) -> None:
    counted = ledger()
    count(counted, 1)
    file = LedgerFile(counted, tmp_path / "ledger", after_s=0)
    file.changed()
    folder = tmp_path / "ledger"

    async def begun() -> bool:
        return folder.exists()

    await until(begun)
    for _ in range(50):
        count(counted, 1)
        file.changed()
        await asyncio.sleep(0)
    await file.close()
    assert asked(await taken_up(folder)) == asked(counted) == 51


async def test_the_largest_ledger_there_may_be_comes_back(tmp_path: Path) -> None:
    counted = ledger()
    names = ["openai/" + "\U0001f600" * MAX_NAME + str(number) for number in range(MAX_TARGETS + 1)]
    days = [(NOW - timedelta(days=back)).date().isoformat() for back in range(MAX_DAYS)]
    counted.fresh = {day: {name: Row(*[2**53] * 10) for name in names} for day in days}
    file = LedgerFile(counted, tmp_path / "ledger")
    file.changed()
    await file.close()
    assert counted.days.keys() == set(days)
    assert (await taken_up(tmp_path / "ledger")).days == counted.days


async def test_a_change_is_written_by_itself(tmp_path: Path) -> None:
    file = LedgerFile(ledger(), tmp_path / "ledger", after_s=0.01)
    file.changed()
    written = tmp_path / "ledger" / NAME

    async def there() -> bool:
        return _mode(written) is not None

    await until(there)
    assert _mode(written) == 0o600
    await file.close()


async def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    file = LedgerFile(ledger(), tmp_path / "ledger")
    await file.load()
    await file.close()
    assert _mode(tmp_path / "ledger" / NAME) is None


async def test_old_days_are_forgotten_and_the_beginning_moves_with_them(tmp_path: Path) -> None:
    days = {(NOW - timedelta(days=back)).date().isoformat(): {"a/b": ROW} for back in range(MAX_DAYS + 9)}
    put(tmp_path / "ledger", json.dumps(WHOLE | {"days": days, "since": "2025-01-01T00:00:00Z"}))
    found = await taken_up(tmp_path / "ledger")
    assert len(found.days) == MAX_DAYS
    assert found.since.date().isoformat() == min(found.days)


ROWS = st.builds(Row, *[st.integers(0, 2**53)] * 10, st.none() | st.floats(0, 1e6))
DAYS = st.dictionaries(st.dates().map(str), st.dictionaries(st.text(max_size=9), ROWS, max_size=3), max_size=3)


@settings(max_examples=30, deadline=None)
@given(DAYS)
def test_what_was_counted_comes_back(days: Any) -> None:
    async def there_and_back(folder: Path) -> Ledger:
        counted = ledger()
        counted.fresh = days
        file = LedgerFile(counted, folder)
        file.changed()
        await file.close()
        return await taken_up(folder)

    with TemporaryDirectory() as state:
        found = asyncio.run(there_and_back(Path(state, "ledger")))
    assert found.days == days
    assert found.since == NOW
