"""The runtime directory: machine-local, per server name, 0700; its lock says whether a launcher runs already."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from calliope_agent.errors import ConfigError
from calliope_agent.launcher.process import Account

LONGEST = 80  # leaves room for a socket's name within the 107 bytes of sun_path (unix(7))


def directory(environ: Mapping[str, str], server_name: str, chosen: Path | None) -> Path:
    """CALLIOPE_RUNTIME_DIR, else a folder below XDG_RUNTIME_DIR or /tmp with the server's name in it."""
    if chosen is not None:
        return chosen
    name = re.sub(r"[^A-Za-z0-9._-]", "_", server_name)[:40] or "default"
    base = environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and len(base) < LONGEST - 40 and Path(base).is_dir():
        return Path(base) / "calliope-agent" / name
    return Path("/tmp") / f"calliope-agent-{os.geteuid()}" / name  # noqa: S108 - checked by `make`: owner, mode, no link


def make(path: Path, account: Account | None = None) -> Path:
    """Create it 0700 and owned by ``account`` (or by us), or check that it is. Raises `ConfigError`."""
    try:
        path.parent.mkdir(mode=0o700 if account is None else 0o711, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as exc:
        raise ConfigError(
            f"The runtime directory {path} cannot be made: {exc.strerror}. Set CALLIOPE_RUNTIME_DIR."
        ) from exc
    owner = account.uid if account else os.geteuid()
    if account is not None and found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
        found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or len(os.fsencode(path)) > LONGEST:
        raise ConfigError(
            f"The runtime directory {path} is a link, belongs to somebody else, or its path is over {LONGEST} bytes."
            " Set CALLIOPE_RUNTIME_DIR to another."
        )
    path.chmod(0o700)
    return path


class Claim:
    """Held as long as this launcher (or its guard) lives: a lock of the kernel's, so a crash leaves none behind."""

    def __init__(self, path: Path, url: str) -> None:
        """Raises `ConfigError` with the running launcher's address when there is one."""
        self._handle = os.open(path / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(f"already running at {self._told()}") from exc
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"url": url, "pid": os.getpid()}).encode(), 0)

    def drop(self) -> None:
        os.close(self._handle)

    def _told(self) -> str:
        try:
            return str(json.loads(os.pread(self._handle, 4096, 0))["url"])
        except (ValueError, KeyError):
            return "an address it has not told yet"
