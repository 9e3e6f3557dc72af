"""The runtime directory: machine-local and 0700; its lock says whether a launcher runs already."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import stat
from pathlib import Path

from calliope_agent import parse, paths
from calliope_agent.errors import ConfigError
from calliope_agent.launcher.process import Account
from calliope_agent.secret import Secret

LONGEST = 90  # leaves room for a socket's name within the 107 bytes of sun_path (unix(7))


def make(path: Path, account: Account | None = None, *, passable: bool = False) -> Path:
    """Create it 0700 and owned by ``account`` (or by us), or check that it is. Raises `ConfigError`.

    ``passable``: other accounts have folders of their own in it, so they may pass through it and its parent (0711).
    """
    mode = 0o711 if passable else 0o700
    try:
        path.parent.mkdir(mode=mode if account is None else 0o711, parents=True, exist_ok=True)
        paths.refuse_foreign(path.parent)
        path.mkdir(mode=mode, exist_ok=True)
        found = path.lstat()
    except OSError as exc:
        raise ConfigError(
            f"The runtime directory {path} cannot be made: {exc.strerror}. Set CALLIOPE_RUNTIME_DIR."
        ) from exc
    owner = account.uid if account else os.geteuid()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()):
        raise ConfigError(
            f"The runtime directory {path} is a link or belongs to somebody else. Set CALLIOPE_RUNTIME_DIR to another."
        )
    try:
        # In this order, and only where needed: afterwards it takes a right more (CAP_FOWNER).
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)
        if found.st_uid != owner and account is not None:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    except OSError as exc:
        raise ConfigError(
            f"The runtime directory {path} cannot be given to user {owner}: {exc.strerror}. As root this needs the "
            "capabilities SETUID, SETGID, KILL, CHOWN and DAC_OVERRIDE; without them start as the user 1000:100."
        ) from exc
    return path


def for_sockets(runtime: Path) -> Path:
    """A folder below ``runtime``, or, when that is too long for a socket's path, a short one of the same name each time."""
    below = runtime / "person"
    if len(os.fsencode(below)) <= LONGEST:
        return below
    mark = hashlib.sha256(os.fsencode(runtime)).hexdigest()[:16]
    return Path("/tmp") / f"calliope-{os.geteuid()}-{mark}" / "person"  # noqa: S108 - `make` checks owner and link


def token(file: Path, account: Account | None = None) -> Secret:
    """The token in a file of the agent's, made when there is none. Raises `ConfigError` when it cannot be used."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "r+", encoding="ascii") as opened:
            text = opened.read().strip()
            if not text:
                text = "cal-" + secrets.token_urlsafe(32)
                opened.write(text + "\n")
            if account is not None:
                os.fchown(opened.fileno(), account.uid, account.gid)
        return parse.token(text)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file} holds no token and cannot be written: {exc}. Remove it, then start again.") from exc


class AlreadyRunning(ConfigError):
    """Another launcher of this person's serves here: the message has its address."""


class Claim:
    """Held as long as this launcher (or its guard) lives: a lock of the kernel's, so a crash leaves none behind."""

    def __init__(self, path: Path, url: str, *, port: int, tls: bool) -> None:
        """Raises `AlreadyRunning` with the running launcher's address when there is one.

        ``port`` and ``tls`` are for the image's health check.
        """
        self._handle = os.open(path / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise AlreadyRunning(f"already running at {self._told()}") from exc
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"url": url, "pid": os.getpid(), "port": port, "tls": tls}).encode(), 0)

    def drop(self) -> None:
        os.close(self._handle)

    def _told(self) -> str:
        try:
            return str(json.loads(os.pread(self._handle, 4096, 0))["url"])
        except (ValueError, KeyError):
            return "an address it has not told yet"
