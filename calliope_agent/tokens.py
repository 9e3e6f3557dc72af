"""The two local tokens: *complete* for children, *manage* for the launcher's proxy and the command line.

Decisions
1. They outlive a restart of the agent: a terminal that was given one keeps working when the agent comes back.
2. Files are made 0600 before anything is written, and only ever replaced by rename.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from calliope_agent.api.guard import Tokens
from calliope_agent.errors import ConfigError
from calliope_agent.parse import token as checked
from calliope_agent.paths import Paths
from calliope_agent.secret import Secret
from calliope_agent.settings import Settings

PREFIX = "cal-"


def ready(place: Paths, settings: Settings) -> Tokens:
    """The tokens by setting, else from their files, else new ones. Raises `ConfigError` when a file cannot be used."""
    return Tokens(
        settings.agent_token or _kept(place.token_file),
        settings.manage_token or _kept(place.manage_token_file),
        settings.metrics_token,
    )


def rotate(place: Paths) -> Tokens:
    """New tokens in the files; a running agent takes them at its next start."""
    return Tokens(_new(place.token_file), _new(place.manage_token_file))


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
