"""A scripted provider, and an agent pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agents import ServedAgent, pointed_at
from tests.upstream import ScriptedProvider


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest.fixture
async def agent(provider: ScriptedProvider, tmp_path: Path) -> AsyncIterator[ServedAgent]:
    async with ServedAgent(tmp_path, pointed_at(provider)) as served:
        yield served
