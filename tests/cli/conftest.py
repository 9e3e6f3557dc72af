"""A scripted provider."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.upstream import ScriptedProvider


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted
