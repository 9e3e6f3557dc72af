"""What the end-to-end tests need of the machine: found, or named in one line."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from calliope_agent.launcher import ide_install

ROOT = Path(__file__).parents[2]


class Missing(Exception):
    """A tool is not there; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Tools:
    chromium: str
    proxy: Path
    oldest_hub: Path
    """Interpreter of a hub at the lower end of the range."""
    person: Path
    """Interpreter of a person's own environment, with an SDK and a kernel of that name."""
    ide: ide_install.IdeInstall
    data_dir: Path


def find() -> Tools:
    """Raises `Missing`."""
    data_dir = Path(os.environ.get("CALLIOPE_DATA_DIR") or ROOT / ".data").absolute()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise Missing("no Chromium: apt-get install chromium")
    proxy = data_dir / "e2e" / "proxy" / "node_modules" / ".bin" / "configurable-http-proxy"
    oldest_hub, person = (data_dir / "e2e" / name / "bin" / "python" for name in ("oldest-hub", "person"))
    ide = ide_install.find(data_dir)
    if ide is None or not all(one.exists() for one in (proxy, oldest_hub, person)):
        raise Missing(f"no IDE, no proxy or no hub in {data_dir}: run tests/e2e/install")
    return Tools(chromium, proxy, oldest_hub, person, ide, data_dir)
