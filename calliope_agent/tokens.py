"""The two local tokens: *complete* for children, *manage* for the launcher's proxy and the command line.

Decisions
1. They outlive a restart of the agent: a terminal that was given one keeps working when the agent comes back.
2. Files are made 0600 before anything is written, and only ever replaced by rename.
3. A running agent is asked to rotate (``POST /api/tokens/rotate``) and takes the new ones at that moment, so that the old ones are
   worth nothing from then on. A signal was the other road: it says neither when it is done nor why it is refused.
4. Tokens given by the environment are not rotated: the launcher hands its own to its proxy and to every terminal, and the next
   start would bring the old one back.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from calliope_agent.api.guard import Tokens
from calliope_agent.errors import ConfigError, Conflict
from calliope_agent.parse import token as checked
from calliope_agent.paths import Paths
from calliope_agent.secret import Secret
from calliope_agent.settings import Settings

Name = Literal["complete", "manage"]
PREFIX = "cal-"
VARIABLES: Mapping[Name, str] = {"complete": "CALLIOPE_AGENT_TOKEN", "manage": "CALLIOPE_MANAGE_TOKEN"}


def ready(place: Paths, settings: Settings) -> Tokens:
    """The tokens by setting, else from their files, else new ones. Raises `ConfigError` when a file cannot be used."""
    return Tokens(
        settings.agent_token or _kept(place.token_file),
        settings.manage_token or _kept(place.manage_token_file),
        settings.metrics_token,
    )


class Kept:
    """The tokens of a running agent. ``current`` is what counts now."""

    def __init__(self, place: Paths, settings: Settings) -> None:
        self.current = ready(place, settings)
        self._place = place
        self._given = {"complete": settings.agent_token is not None, "manage": settings.manage_token is not None}

    def rotate(self, names: Collection[Name]) -> Tokens:
        """New tokens in the files and in force. Raises `Conflict` for one that the environment gives, `ConfigError`."""
        for name in names:
            if self._given[name]:
                raise Conflict(
                    f"The token {name!r} is given by {VARIABLES[name]}. Change it there and restart.", param=name
                )
        self.current = rotate(self._place, self.current, names)
        return self.current


def rotate(place: Paths, now: Tokens, names: Collection[Name]) -> Tokens:
    """New tokens in the files, the others as they are."""
    complete = _new(place.token_file) if "complete" in names else now.complete
    manage = _new(place.manage_token_file) if "manage" in names else now.manage
    return Tokens(complete, manage, now.metrics)


def read(file: Path) -> Secret | None:
    """The token in a file, None when there is none. Raises `ConfigError` when it is not one."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file}: cannot be read. Remove it; a new token is made at the next start.") from exc
    try:
        return checked(text)
    except ValueError as exc:
        raise ConfigError(f"{file}: holds no token. Remove it; a new one is made at the next start.") from exc


def _kept(file: Path) -> Secret:
    return read(file) or _new(file)


def _new(file: Path) -> Secret:
    value = PREFIX + secrets.token_urlsafe(32)
    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(value + "\n")
        fresh.replace(file)
    except OSError as exc:
        raise ConfigError(
            f"{file}: cannot be written ({exc.strerror}). Set CALLIOPE_RUNTIME_DIR to a folder of yours."
        ) from exc
    return Secret(value)
