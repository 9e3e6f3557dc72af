"""Folders that nobody may enter for a while, as a home on a network file system that is away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOMEBODY = 54321


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """``folder`` may not be entered inside. No mode stops root, so this process is somebody else for so long."""
    me, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0)
    if me == 0:
        os.seteuid(SOMEBODY)
    try:
        yield
    finally:
        os.seteuid(me)
        folder.chmod(mode)
