"""The image, built once a session."""

from __future__ import annotations

import pytest

from tests.image import engine


@pytest.fixture(scope="session")
def image() -> str:
    why = engine.missing()
    if why:
        pytest.skip(f"no image can be built here: {why}")
    return engine.build()
