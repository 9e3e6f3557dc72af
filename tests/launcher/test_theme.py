"""The theme can be read: WCAG 2.2 contrast of every text on the surface it lies on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calliope_agent.launcher import ide_files

FOLDER = ide_files.folder() / "theme-pergamon"
THEMES = ("pergamon-dark", "pergamon-light")
TEXT, LARGE = 4.5, 3.0
# text colour, the surface below it
PAIRS = [
    ("editor.foreground", "editor.background"),
    ("editor.foreground", "editor.selectionBackground"),
    ("editor.foreground", "editor.lineHighlightBackground"),
    ("editor.foreground", "editor.findMatchHighlightBackground"),
    ("editor.foreground", "diffEditor.insertedTextBackground"),
    ("editor.foreground", "diffEditor.removedTextBackground"),
    ("editorGhostText.foreground", "editor.background"),
    ("editorLineNumber.foreground", "editor.background"),
    ("sideBar.foreground", "sideBar.background"),
    ("descriptionForeground", "sideBar.background"),
    ("activityBar.inactiveForeground", "activityBar.background"),
    ("tab.inactiveForeground", "tab.inactiveBackground"),
    ("input.foreground", "input.background"),
    ("input.placeholderForeground", "input.background"),
    ("list.activeSelectionForeground", "list.activeSelectionBackground"),
    ("list.hoverForeground", "list.hoverBackground"),
    ("list.highlightForeground", "quickInput.background"),
    ("button.foreground", "button.background"),
    ("button.foreground", "button.hoverBackground"),
    ("button.secondaryForeground", "button.secondaryBackground"),
    ("badge.foreground", "badge.background"),
    ("statusBar.foreground", "statusBar.background"),
    ("statusBarItem.hoverForeground", "statusBarItem.hoverBackground"),
    ("statusBarItem.errorForeground", "statusBarItem.errorBackground"),
    ("errorForeground", "sideBar.background"),
    ("textLink.foreground", "sideBar.background"),
    ("inputValidation.errorForeground", "inputValidation.errorBackground"),
]


def read(name: str) -> dict[str, Any]:
    theme: dict[str, Any] = json.loads((FOLDER / "themes" / f"{name}.json").read_text())
    return theme


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", THEMES)
@pytest.mark.parametrize(("text", "surface"), PAIRS)
def test_text_on_its_surface(name: str, text: str, surface: str) -> None:
    colours = read(name)["colors"]
    assert contrast(colours[text], colours[surface]) >= TEXT


@pytest.mark.parametrize("name", THEMES)
def test_code_and_terminal_on_the_editor(name: str) -> None:
    theme = read(name)
    background = theme["colors"]["editor.background"]
    shown = {rule["name"]: rule["settings"]["foreground"] for rule in theme["tokenColors"]}
    shown |= {key: value for key, value in theme["colors"].items() if key.startswith("terminal.ansi")}
    shown |= {key: value for key, value in theme["colors"].items() if key.startswith("editorBracketHighlight")}
    assert {key: value for key, value in shown.items() if contrast(value, background) < TEXT} == {}


@pytest.mark.parametrize("name", THEMES)
def test_what_has_the_focus_can_be_told(name: str) -> None:
    colours = read(name)["colors"]
    for surface in ("editor.background", "sideBar.background", "input.background"):
        assert contrast(colours["focusBorder"], colours[surface]) >= LARGE
        assert contrast(colours["input.border"], colours[surface]) >= LARGE


def test_it_is_the_default_and_both_themes_exist() -> None:
    manifest = json.loads((FOLDER / "package.json").read_text())
    offered = {theme["id"]: FOLDER / theme["path"] for theme in manifest["contributes"]["themes"]}
    assert all(path.is_file() for path in offered.values())
    assert set(manifest["contributes"]["configurationDefaults"].values()) == set(offered)
