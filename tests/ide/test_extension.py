"""The extension's own tests, run by Node's test runner; and what its manifest promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from calliope_agent.launcher import ide_files

SOURCE = ide_files.folder() / "calliope-agent"
MANIFEST = json.loads((SOURCE / "package.json").read_text())


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on PATH")
def test_client_of_the_extension() -> None:
    ran = subprocess.run(
        ["node", "--test", *sorted(map(str, Path(__file__).parent.glob("*.test.js")))],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_promised_command_is_registered_and_no_other() -> None:
    promised = {entry["command"].removeprefix("calliope.") for entry in MANIFEST["contributes"]["commands"]}
    registered = set(re.findall(r"command\('(\w+)'", (SOURCE / "extension.js").read_text()))
    assert promised == registered


def test_it_depends_on_nothing_and_stores_no_token() -> None:
    assert not MANIFEST.get("dependencies")
    text = "".join(path.read_text() for path in SOURCE.rglob("*.js"))
    assert not re.findall(r"globalState|workspaceState|secrets\.|localStorage|setState", text)
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
