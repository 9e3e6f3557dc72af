"""The person's config.toml as a file that is changed: comments and order stay, one writer at a time, all or nothing.

Decisions
1. A symbolic link is not followed: with the agent under its own uid the link would decide whose file is written.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calliope_agent import tomlfile
from calliope_agent.errors import ConfigError, Conflict
from calliope_agent.keys.lock import locked
from calliope_agent.keys.private import make_private_directory, sweep_unfinished, write_private

LOCK = "config.lock"
Place = tuple[str, ...]
"""A key at the top, or a table's keys and a key: ``("providers", "mine")``."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """All calls block and belong in a thread."""

    path: Path

    def change(self, edits: Mapping[Place, Any]) -> str:
        """Set the values at their places, remove those that are None, and write. The new text.

        Raises `Conflict` for a file that must be mended by hand first, `ConfigError` for one that cannot be written; nothing is
        changed then.
        """
        make_private_directory(self.path.parent)
        with locked(self.path.with_name(LOCK)):
            sweep_unfinished(self.path)
            before = self._text()
            # Imported here: tomlkit is 40 ms that neither a start nor a look at the settings need pay.
            from calliope_agent.tomledit import edited  # noqa: PLC0415

            text = edited(before, edits)
            if text != before:
                write_private(self.path, text.encode())
        return text

    def table(self, *place: str) -> dict[str, Any]:
        """What the table at ``place`` holds, empty where there is none. Raises `Conflict`."""
        found: Any = tomllib.loads(self._text())
        for name in place:
            found = found.get(name, {}) if isinstance(found, dict) else {}
        return found if isinstance(found, dict) else {}

    def problem(self) -> str | None:
        """Why the file cannot be changed from here, or None."""
        try:
            self._text()
        except Conflict as exc:
            return exc.message
        return None

    def _text(self) -> str:
        try:
            found = tomlfile.read_if_there(self.path)
        except ConfigError as exc:
            raise Conflict(f"Nothing was changed. {exc.message}") from exc
        if self.path.is_symlink():
            raise Conflict(f"{self.path} is a symbolic link, so it is changed by hand only.")
        return "" if found is None else found.text
