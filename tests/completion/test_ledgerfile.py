"""The ledger's file: what is broken, foreign or newer first, then what comes back."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calliope_agent.catalog import MAX_NAME
from calliope_agent.completion.ledger import MAX_DAYS, MAX_TARGETS, Ledger, Row
from calliope_agent.completion.ledgerfile import NAME, LedgerFile
from tests.doors.processes import until
from tests.shut import shut

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = {"requests": 2, "answered": 2, "input_tokens": 7, "cost_usd": None}
WHOLE = {"schema": 1, "since": "2026-02-01T00:00:00Z", "days": {"2026-02-01": {"a/b": ROW}}}


def ledger() -> Ledger:
    return Ledger(lambda: NOW, lambda _: None)


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
    (aside,) = file.parent.iterdir()
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


async def test_what_changes_while_it_is_written_is_written_at_the_end(tmp_path: Path) -> None:
    counted = ledger()
    counted.days = {"2026-02-01": {"a/b": Row(requests=1)}}
    file = LedgerFile(counted, tmp_path / "ledger", after_s=0)
    file.changed()
    folder = tmp_path / "ledger"

    async def begun() -> bool:
        return folder.exists()

    await until(begun)
    for number in range(2, 50):
        counted.days["2026-02-01"]["a/b"].requests = number
        file.changed()
        await asyncio.sleep(0)
    await file.close()
    assert (await taken_up(folder)).days == counted.days


async def test_the_largest_ledger_there_may_be_comes_back(tmp_path: Path) -> None:
    counted = ledger()
    names = ["openai/" + "\U0001f600" * MAX_NAME + str(number) for number in range(MAX_TARGETS + 1)]
    days = [(NOW - timedelta(days=back)).date().isoformat() for back in range(MAX_DAYS)]
    counted.days = {day: {name: Row(*[2**53] * 10) for name in names} for day in days}
    file = LedgerFile(counted, tmp_path / "ledger")
    file.changed()
    await file.close()
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


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAYS)
def test_what_was_counted_comes_back(tmp_path: Path, days: Any) -> None:
    async def there_and_back() -> Ledger:
        counted = ledger()
        counted.days = days
        file = LedgerFile(counted, tmp_path / "ledger")
        file.changed()
        await file.close()
        return await taken_up(tmp_path / "ledger")

    found = asyncio.run(there_and_back())
    assert found.days == {day: rows for day, rows in days.items() if rows}
    assert found.since == NOW
