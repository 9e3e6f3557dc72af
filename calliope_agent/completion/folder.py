"""A folder that only this account can touch."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from calliope_agent.errors import ConfigError

PRIVATE = 0o700


def private(path: Path) -> Path:
    """Make the folder, or check the one that is there. Raises `ConfigError` in one line that says what to do.

    Refused: a link, another account's, one that group or others may write. One that they may only read is closed to
    them. Only the last part of the path is looked at: what lies above it belongs to whoever set up the machine.
    """
    try:
        path.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as exc:
        if _is_link(path):
            raise ConfigError(f"{path} is a link, and links are not followed there. Remove it.") from exc
        raise ConfigError(f"{path} cannot be used ({exc.strerror}). Make it a folder of this account.") from exc
    try:
        _check(path, os.fstat(descriptor))
        os.fchmod(descriptor, PRIVATE)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be closed to others ({exc.strerror}). Run: chmod 700 {path}") from exc
    finally:
        os.close(descriptor)
    return path


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # what lies above it may not be entered
        return False


def _check(path: Path, info: os.stat_result) -> None:
    if info.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to the account {info.st_uid}, not to {os.geteuid()}. Remove it.")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path} can be written by others, so what is in it is not trusted. Remove it.")
