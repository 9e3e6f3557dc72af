"""The matrix, played: real sockets on both sides, one agent a way, every cell's result exact."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from calliope_agent import log
from tests.doors.litellm_rig import QUIET
from tests.faults.outcomes import FATES, RESCUED, Failed, Whole
from tests.faults.reading import FINISHES
from tests.faults.rig import Cell, Played, Rig, cells, rig
from tests.faults.rows import ESSENTIAL, ROWS, SLOW
from tests.faults.table import differences, table
from tests.faults.ways import WAYS

pytestmark = QUIET


def _cells() -> list[Any]:
    """The way comes first, so that its agent is started once; one worker plays all of a way's cells."""
    return [
        pytest.param(way, cell, id=f"{way.slug}-{cell.model}", marks=pytest.mark.xdist_group(f"faults-{way.slug}"))
        for way in WAYS
        for cell in cells(way)
        if cell.row not in SLOW
    ]


def _ways() -> list[Any]:
    return [pytest.param(way, id=way.slug, marks=pytest.mark.xdist_group(f"faults-{way.slug}")) for way in WAYS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(request.param, tmp_path_factory.mktemp(request.param.slug)) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("made", "cell"), _cells(), indirect=["made"], scope="module")
async def test_a_cell(made: Rig, cell: Cell, caplog: pytest.LogCaptureFixture) -> None:
    _log_everything(caplog)
    played = await made.play(cell)
    _is_as_expected(made, played, cell, caplog.text)
    _waits_are_kept(played, cell)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("made", _ways(), indirect=True)
async def test_silences(made: Rig, caplog: pytest.LogCaptureFixture) -> None:
    _log_everything(caplog)
    slow = [cell for cell in cells(made.way) if cell.row in SLOW]
    for cell, played in zip(slow, await asyncio.gather(*map(made.play, slow)), strict=True):
        _is_as_expected(made, played, cell, caplog.text)


def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in log.QUIET:  # as `log.set_up` has it: sse-starlette tells every chunk at DEBUG
        caplog.set_level(logging.WARNING, logger=name)


def _is_as_expected(made: Rig, played: Played, cell: Cell, logged: str) -> None:
    assert played.outcome == cell.expected, f"{cell.model}: {played.reading.message}"
    assert played.reading.wrong == []
    _the_record_agrees(played, cell)
    _nothing_leaks(made, played, logged)


def _waits_are_kept(played: Played, cell: Cell) -> None:
    """Between two attempts at the same target we wait, at least as long as the provider asked, and tell its wish."""
    attempts = [one["target"] for one in played.record["attempts"]]
    repeated = sum(before == after for before, after in itertools.pairwise(attempts))
    assert len(played.waits) == repeated
    for asked, waited in zip(cell.case.waits, played.waits, strict=False):
        assert waited >= asked
    if played.outcome.status != 200 and cell.case.told_wait is not None:
        assert played.reading.headers["retry-after"] == cell.case.told_wait


def _the_record_agrees(played: Played, cell: Cell) -> None:
    record, outcome = played.record, played.outcome
    fate = FATES.get(outcome.code or "")
    rescued = outcome.calls[1] == 1
    assert record["outcome"] == ("complete" if outcome.code is None else "error")
    assert record["code"] == outcome.code
    assert record["status"] == (fate.status if fate else 200)
    if outcome.code is None:
        assert FINISHES.get(record["finish"], record["finish"]) == outcome.finish
    assert record["target"] == (f"second/{cell.model}" if rescued else cell.target)
    assert [one["target"] for one in record["attempts"]].count(f"second/{cell.model}") == outcome.calls[1]
    assert all(one["key"] is not None and "…" in one["key"] for one in record["attempts"])
    failed = cell.case.expected_on(cell.way)
    if isinstance(failed, Failed):
        codes = {one["code"] for one in record["attempts"] if one["target"] == cell.target}
        assert codes == {failed.code}
    if outcome.status == 200:
        assert played.reading.headers["x-calliope-target"] == record["target"]
    cause = f"{failed.code} at {cell.target}" if rescued and not isinstance(failed, Whole) else None
    assert record["fallback_cause"] == cause
    assert played.reading.headers.get("x-calliope-fallback") == cause
    if rescued:
        assert RESCUED in played.reading.said


def _nothing_leaks(made: Rig, played: Played, logged: str) -> None:
    """No key, no header of either side and none of the provider's secrets, in what is told, kept, logged or passed on."""
    token = made.agent.token
    for sink in (played.reading.raw, str(dict(played.reading.headers)), json.dumps(played.record), logged):
        assert "canary" not in sink
        assert token not in sink
    for request in played.asked:
        sent = {name: value for name, value in request.headers.items() if value != request.headers.get("authorization")}
        assert "canary-of-the-caller" not in str(sent)
        assert token not in str(request.headers)


def test_the_readme_shows_the_matrix_as_it_is_played() -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    assert list(differences(readme.read_text(encoding="utf-8"))) == [], "run: python -m tests.readme --write"


def test_the_table_knows_every_row() -> None:
    told = table()
    assert all(f"| {row.name} |" in told or f"| {row.name} † |" in told for row in ROWS)
    assert {row.name for row in ROWS} >= ESSENTIAL
    assert list(differences(f"<!-- faults -->\n{told}\n<!-- /faults -->")) == []
    assert list(differences("<!-- faults -->\n<!-- /faults -->")) == [line for line in told.split("\n") if line]
