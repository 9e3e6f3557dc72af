"""A short soak on every run; the long one is ``python -m tests.faults.soak``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_request_ends_in_one_way_and_nothing_is_left(tmp_path: Path) -> None:
    found = await soak(tmp_path, 1000, 20, seed=7)
    assert found.strange == []
    assert sum(found.outcomes.values()) == 1000
    assert found.outcomes["verified"] > 200
    assert found.tasks[1] <= found.tasks[0]
    assert found.descriptors[1] <= found.descriptors[0]
