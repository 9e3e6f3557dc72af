"""Nothing that was cut, refused or broken is ever given again: the matrix played twice with every answer allowed to be kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.rig import Cell, Rig, cells, rig, way_named
from tests.faults.rows import SLOW

WAYS = [way_named("openai"), way_named("anthropic")]
REFUSALS = ("content_filter", "refusal")


def _cells() -> list[Any]:
    return [
        pytest.param(way, cell, id=f"{way.slug}-{cell.model}", marks=pytest.mark.xdist_group(f"kept-{way.slug}"))
        for way in WAYS
        for cell in cells(way)
        if not cell.fallback and cell.row not in SLOW
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    folder = tmp_path_factory.mktemp(f"kept-{request.param.slug}")
    async with rig(request.param, folder, CALLIOPE_CACHE="all", CALLIOPE_STORE_CONTENT="off") as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("made", "cell"), _cells(), indirect=["made"], scope="module")
async def test_only_a_whole_answer_is_given_again(made: Rig, cell: Cell) -> None:
    first = await made.play(cell)
    await asyncio.gather(*made.agent.agent.keeper.writing)
    made.reached[cell.model].clear()
    second = await made.play(cell)
    expected = cell.expected
    whole = expected.code is None and not expected.flagged and expected.finish not in REFUSALS and bool(expected.said)
    assert (second.record["cache"] == "hit") is whole
    assert second.outcome.calls[0] == first.outcome.calls[0] * (1 if whole else 2)
    assert second.reading.said == first.reading.said
