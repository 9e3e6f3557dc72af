"""The README says what is there: commands, endpoints, settings, providers, and files it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from calliope_agent import settings
from calliope_agent.cli import COMMANDS
from tests import readme

TEXT = readme.README.read_text(encoding="utf-8")
OPTIONS = readme.ROOT / "calliope_agent" / "launcher" / "options.py"


@pytest.mark.parametrize("name", readme.HELD)
def test_a_table_is_what_the_program_says(name: str) -> None:
    assert readme.section(TEXT, name) == readme.HELD[name](), "run: python -m tests.readme --write"


@pytest.mark.parametrize("name", readme.AS_MEASURED)
def test_what_was_measured_has_its_place(name: str) -> None:
    assert readme.section(TEXT, name).strip()


def test_every_variable_of_the_launcher_is_told() -> None:
    read = {
        str(node.args[0].value)
        for node in ast.walk(ast.parse(OPTIONS.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "value"
        if isinstance(node.args[0], ast.Constant)
    }
    assert "WAIIDE_IDE_COMMAND" in read, "the launcher's options are read otherwise now; mend this test"
    everything = read | settings.OTHER_NAMES
    assert {name for name in everything if f"`{name}`" not in TEXT} == set()


def test_no_variable_is_made_up() -> None:
    known = set(settings.variables()) | settings.OTHER_NAMES
    named = set(re.findall(r"`((?:CALLIOPE|WAIIDE)_[A-Z_]+[A-Z])`", TEXT))
    assert {name for name in named - known if name not in OPTIONS.read_text(encoding="utf-8")} == set()


def test_every_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"calliope-agent ([a-z-]+)", TEXT)) - {"is"}
    assert shown <= set(COMMANDS), shown - set(COMMANDS)
    targets = set(re.findall(r"^([a-z-]+):", (readme.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", TEXT)) <= targets


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert [link for link in links if not Path(readme.ROOT, link).exists()] == []


def test_writing_replaces_what_is_between_the_markers_and_nothing_else() -> None:
    stale = TEXT.replace(readme.section(TEXT, "commands"), "| old |")
    assert readme.section(readme.written(stale), "commands") == readme.commands()
    assert readme.written(stale).partition("<!-- commands -->")[0] == TEXT.partition("<!-- commands -->")[0]
