"""The real SmolLM2 for tests: pulled once into a cache that all runs share."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from calliope_agent.errors import Unreachable
from calliope_agent.upstream import weights


def smollm2_folder() -> Path:
    """The folder with the weights (CALLIOPE_TEST_WEIGHTS, else a cache). Offline and not in CI, the test is skipped."""
    chosen = os.environ.get("CALLIOPE_TEST_WEIGHTS")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "calliope-agent-tests"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test workers wait here, where a second pull would be refused
        try:
            weights.pull(weights.known(weights.DEFAULT), folder, print, os.environ)
        except Unreachable as exc:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"offline, and no weights in {folder}: {exc.message}")
    return folder
