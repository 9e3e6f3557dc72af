"""One writer at a time, across processes and, where the file system can, across machines.

**Decisions**

1. ``flock`` first: the kernel releases it when its holder dies. On NFS Linux turns it into a lock of the server, which
   some servers and mounts refuse; then a file made with ``O_EXCL`` takes its place, which every writer of that
   directory will meet in the same way.
2. A lock file whose holder died is taken over: at once when the holder was on this host, else after `STALE_S`. Writers
   hold it for milliseconds, so a minute means death.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from calliope_agent.errors import ConfigError

LockKind = Literal["flock", "lock file"]
STALE_S = 60.0
STEP_S = 0.02
_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO}


@contextlib.contextmanager
def locked(path: Path, timeout_s: float = 10.0, flock: Callable[[int, int], None] = fcntl.flock) -> Iterator[LockKind]:
    """Hold the lock beside ``path``. Gives how. Raises ConfigError when it cannot be had in ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be opened ({exc.strerror}). Check the directory's owner, mode and space."
        ) from exc
    try:
        if _flocked(path, handle, flock, deadline):
            yield "flock"
            return
        with _lock_file(path.with_name(f"{path.name}.held"), deadline):
            yield "lock file"
    finally:
        os.close(handle)


def _flocked(path: Path, handle: int, flock: Callable[[int, int], None], deadline: float) -> bool:
    """Whether ``flock`` works here, and then it is held; polled, because a blocking one has no time limit."""
    while True:
        try:
            flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _wait(path, deadline)
        except OSError as exc:
            if exc.errno in _UNSUPPORTED:
                return False
            raise ConfigError(f"{path} cannot be locked ({exc.strerror}).") from exc
        else:
            return True


@contextlib.contextmanager
def _lock_file(path: Path, deadline: float) -> Iterator[None]:
    mine = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
    while not _made(path, mine):
        if not _taken_over(path):
            _wait(path, deadline)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == mine:
                path.unlink()


def _made(path: Path, content: str) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be made ({exc.strerror}). Check the directory's owner, mode and space."
        ) from exc
    # Who reads it before the next line has run finds no holder in it, and waits as for a holder on another host.
    with os.fdopen(handle, "w") as file:
        file.write(content)
    return True


def _taken_over(path: Path) -> bool:
    """Remove a dead writer's lock file. Whether it is gone."""
    try:
        content, age_s = path.read_text(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if not _dead(content, age_s):
        return False
    grave = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.rename(grave)
        if grave.read_text() != content:
            # Another waiter was quicker and what was moved is its fresh lock: put it back.
            with contextlib.suppress(OSError):
                os.link(grave, path)
    except FileNotFoundError:
        return True
    finally:
        grave.unlink(missing_ok=True)
    return True


def _dead(content: str, age_s: float) -> bool:
    if age_s > STALE_S:
        return True
    host, _, rest = content.partition(" ")
    pid = rest.partition(" ")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _wait(path: Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise ConfigError(f"{path} is held by another process. Nothing was changed; try again in a moment.")
    time.sleep(STEP_S)
