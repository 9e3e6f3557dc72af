"""Files that only their owner may read: opened without following links, written so that a failure loses nothing."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from calliope_agent.errors import ConfigError

MAX_BYTES = 1 << 20
_UNFINISHED = ".{}.{}.tmp"


class Stamp(NamedTuple):
    """What changes when a file does. The change time is in it, so that a restored modification time does not hide a
    write.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def stamp(path: Path | str) -> Stamp | None:
    """None when there is no such file, or none that can be looked at."""
    try:
        found = os.stat(path)  # noqa: PTH116  the hot path: Path.stat builds an object per call
    except (OSError, ValueError):
        return None
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_private(path: Path, most: int = MAX_BYTES) -> bytes | None:
    """The bytes, or None when there is no file. Raises ConfigError for a link, another owner's file, one that others
    may read, one of more than ``most`` bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise ConfigError(f"{path} is a symbolic link, so it is not used. Put the file itself there.") from exc
        raise ConfigError(
            f"{path} cannot be read ({exc.strerror}). Make it readable for you alone: chmod 600."
        ) from exc
    with os.fdopen(handle, "rb") as file:
        _check(path, os.fstat(handle), most)
        return file.read(most + 1)


def _check(path: Path, found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a plain file, so it is not used. Move it away.")
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()} of this process, so it is not used. "
            "Move it away, or give it to its user with chown."
        )
    if found.st_mode & 0o077:
        raise ConfigError(f"{path} can be read or written by others, so it is not used. Run: chmod 600 {path}")
    if found.st_size > most:
        raise ConfigError(f"{path} is larger than {most} bytes, so it is none of this program's. Move it away.")


def write_private(path: Path, data: bytes) -> None:
    """Replace the file in one step, on disk before the step. Raises ConfigError; the old file is then still there,
    whole.
    """
    temporary = path.with_name(_UNFINISHED.format(path.name, secrets.token_hex(6)))
    try:
        _write_new(temporary, data)
        temporary.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path} could not be written ({exc.strerror}). {_mend(exc)} Nothing was changed.") from exc
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def sweep_unfinished(path: Path) -> None:
    """Remove what writers of this file left that were killed. Only for who holds the lock that all its writers take."""
    for left in path.parent.glob(_UNFINISHED.format(glob.escape(path.name), "*")):
        with contextlib.suppress(OSError):
            left.unlink()


def make_private_directory(path: Path) -> None:
    """Make the directory, 0700 where it is new. Raises ConfigError when it cannot be made or everybody may write into
    it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be made ({exc.strerror}). Set CALLIOPE_CONFIG_DIR to a directory of yours."
        ) from exc
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(f"{path} can be written by everybody, so keys are not kept there. Run: chmod 700 {path}")


def _write_new(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        # NFS and quotas report a full disk only here; before the rename, so that the old file outlives it.
        os.fsync(handle)


def _sync_directory(path: Path) -> None:
    # Some network file systems refuse to sync a directory. The rename is done then all the same, only its survival of a
    # power cut is not promised, so this is no reason to report a failed write.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _mend(exc: OSError) -> str:
    if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return "The disk or your quota is full: free some space and try again."
    if exc.errno == errno.EROFS:
        return "The disk is read-only: set CALLIOPE_CONFIG_DIR to a directory that can be written."
    return "Check the directory's owner and mode."
