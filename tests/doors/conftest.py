from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.local_weights import smollm2_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A data directory that holds SmolLM2."""
    return smollm2_folder()
