"""The cache's store on disk: SQLite through diskcache, bytes in and bytes out. Blocking; one thread uses it.

Decisions
1. The database lies in a folder of its own inside the given one, and is set aside by renaming that folder: SQLite
   would apply the write-ahead log of a renamed database to the new one of the same name.
2. ``application_id`` and ``user_version`` say whose file it is and of which schema, before diskcache touches it:
   diskcache runs PRAGMAs and picks constructor arguments out of the settings it finds.
3. SQLite has no checksums: a flipped byte inside a value would be replayed as the model's words. So each value is
   stored behind a digest of itself and its key, 10 µs for a usual answer.
4. Least recently used costs a small write at each hit (no fsync: write-ahead log, ``synchronous=NORMAL``). Least
   recently stored would save it and throw out the answer that is asked for most.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, METADATA, MODE_RAW

from calliope_agent.completion import folder
from calliope_agent.completion.bytesdisk import BytesDisk, Refused
from calliope_agent.errors import ConfigError

T = TypeVar("T")

APPLICATION_ID = 0x43414C31  # "CAL1"
SCHEMA = 1
BUSY_S = 1.0
DIGEST_BYTES = 16
NAME = "answers"
# SQLite's codes that say nothing about what is in the file.
_PASSING = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_PROTOCOL,
})  # fmt: skip
# What SQLite and diskcache raise over a damaged file: names that are no UTF-8, counters that are no numbers.
_DAMAGE = (sqlite3.DatabaseError, ValueError, TypeError)
_SETTINGS = frozenset({*DEFAULT_SETTINGS, *METADATA})


class StoreUnavailable(Exception):
    """The store cannot be used now (disk full, locked, no rights); the message is one line."""


class DiskStore:
    """Opens at construction. Raises `ConfigError` for a folder that is refused, `StoreUnavailable` for a passing fault.

    ``warn`` gets one line for each thing that was set aside or thrown out.
    """

    def __init__(self, directory: Path, max_bytes: int, warn: Callable[[str], None]) -> None:
        self._root = directory
        self._max_bytes = max_bytes
        self._warn = warn
        self._inode = 0
        self.refused = 0
        self._cache = self._opened()

    def get(self, key: bytes) -> bytes | None:
        """Raises `StoreUnavailable`."""
        return self._guarded(lambda: self._get(key), None)

    def put(self, key: bytes, value: bytes, ttl_s: float) -> bool:
        """False for a value too large to keep. Raises `StoreUnavailable`."""
        if len(value) > self._max_bytes // 8:
            return False
        return self._guarded(lambda: self._put(key, value, ttl_s), False)

    def clear(self) -> int:
        """How many entries there were; they are gone from the files too. Raises `StoreUnavailable`."""
        return self._guarded(self._clear, 0)

    def size(self) -> tuple[int, int]:
        """Entries and bytes. Raises `StoreUnavailable`."""
        return self._guarded(lambda: (len(self._cache), self._cache.volume()), (0, 0))

    def close(self) -> None:
        self._cache.close()

    @property
    def _file(self) -> Path:
        return self._root / NAME / str(DBNAME)

    def _get(self, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._cache.get(key)
            return None if found is None else _unsealed(key, found)
        except Refused:
            self._cache.delete(key)
            self._throw_out(1)
            return None

    def _put(self, key: bytes, value: bytes, ttl_s: float) -> bool:
        self._cache.set(key, _digest(key, value) + value, expire=ttl_s)
        if self._cache.volume() > self._max_bytes:
            self._cache.cull()
        return True

    def _clear(self) -> int:
        count: int = self._cache.clear()
        with contextlib.closing(sqlite3.connect(self._file, timeout=BUSY_S)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def _guarded(self, act: Callable[[], T], otherwise: T) -> T:
        """A broken file is set aside, and the call that met it answers as if nothing were stored."""
        try:
            return act()
        except diskcache.Timeout as exc:
            raise StoreUnavailable(f"The cache in {self._root} is busy.") from exc
        except _DAMAGE as exc:
            if _is_passing(exc):
                raise StoreUnavailable(f"The cache in {self._root} does not work: {exc}.") from exc
        except OSError as exc:
            raise StoreUnavailable(f"The cache in {self._root} does not work: {exc.strerror}.") from exc
        self._begin_anew()
        return otherwise

    def _begin_anew(self) -> None:
        self._cache.close()
        try:
            with self._locked():
                # Another process may have been quicker; what it began is not ours to rename.
                if self._file.stat().st_ino == self._inode:
                    self._set_aside("is corrupt")
        except OSError as exc:
            raise StoreUnavailable(f"The cache {self._file} is corrupt and stays in the way: {exc.strerror}.") from exc
        self._cache = self._opened()

    def _opened(self) -> Any:
        if os.path.expandvars(self._root) != str(self._root) or not self._root.is_absolute():
            raise ConfigError(f"{self._root} must be a whole path without variables; diskcache would expand them.")
        folder.private(self._root)
        try:
            with self._locked():
                for _ in ("the file that is there", "a new one"):
                    found = self._examined()
                    # Not its truth: an empty diskcache is false.
                    if found is not None:
                        return found
        except (sqlite3.Error, diskcache.Timeout, OSError) as exc:
            raise StoreUnavailable(f"The cache in {self._root} cannot be opened: {exc}.") from exc
        raise StoreUnavailable(f"The cache in {self._root} cannot be begun anew.")

    def _examined(self) -> Any:
        """The store, or None after something else was set aside, so that the next look finds a new file."""
        folder.private(self._root / NAME)
        try:
            fault = self._fault()
            if fault is None:
                self._sweep()
                self._inode = self._file.stat().st_ino
                return self._diskcache()
        except _DAMAGE as exc:
            if _is_passing(exc):
                raise
            fault = "is corrupt"
        self._set_aside(fault)
        return None

    def _diskcache(self) -> Any:
        return diskcache.Cache(
            str(self._root / NAME),
            timeout=BUSY_S,
            disk=BytesDisk,
            eviction_policy="least-recently-used",
            size_limit=self._max_bytes,
            cull_limit=10,
            statistics=0,
            tag_index=0,
            sqlite_mmap_size=0,
            sqlite_cache_size=512,
        )

    def _fault(self) -> str | None:
        """What is wrong with the file that is there; marks a new one as ours."""
        if self._file.is_symlink():
            return "is a link"
        # Made here for its mode. O_EXCL, because closing any descriptor of a database that SQLite has open in this
        # process drops SQLite's locks (POSIX locks belong to the process), and another process then removes the log.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        with contextlib.closing(sqlite3.connect(self._file, timeout=BUSY_S, isolation_level=None)) as connection:
            return _examine(connection)

    def _set_aside(self, fault: str) -> None:
        """Keeps the newest one only: what is set aside must not fill the disk."""
        for old in self._root.glob(f"{NAME}.aside-*"):
            shutil.rmtree(old, ignore_errors=True)
        aside = self._root / f"{NAME}.aside-{time.time_ns()}"
        (self._root / NAME).rename(aside)
        self._warn(f"The cache {self._file} {fault}. It was set aside as {aside.name}, and a new one is begun.")

    def _sweep(self) -> None:
        """Rows that `BytesDisk` would refuse, before anything can ask for them."""
        with contextlib.closing(sqlite3.connect(self._file, timeout=BUSY_S, isolation_level=None)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache'").fetchone():
                return
            found = connection.execute(
                "DELETE FROM Cache WHERE raw IS NOT 1 OR mode IS NOT ? OR filename IS NOT NULL"
                " OR typeof(key) IS NOT 'blob' OR typeof(value) IS NOT 'blob'",
                (MODE_RAW,),
            )
            self._throw_out(found.rowcount)

    def _throw_out(self, count: int) -> None:
        if count:
            self.refused += count
            self._warn(
                f"Rows of the cache {self._file} that are not as this program writes them were deleted: {count}."
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time looks, renames and begins anew."""
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _digest(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES, key=key[:64]).digest()


def _unsealed(key: bytes, found: bytes) -> bytes:
    value = found[DIGEST_BYTES:]
    if found[:DIGEST_BYTES] != _digest(key, value):
        raise Refused("a value that is not what was stored")
    return value


def _examine(connection: sqlite3.Connection) -> str | None:
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    ((application,),) = connection.execute("PRAGMA application_id").fetchall()
    ((schema,),) = connection.execute("PRAGMA user_version").fetchall()
    if not tables and not application:
        # Pages of deleted answers leave the file. SQLite takes this only before it writes its first page.
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        return None
    if application != APPLICATION_ID:
        return "was made by another program"
    if schema != SCHEMA:
        return f"has schema {schema}, and this program writes {SCHEMA}"
    names = connection.execute("SELECT key FROM Settings").fetchall() if tables else []
    return None if {name for (name,) in names} <= _SETTINGS else "holds settings of another program"


def _is_passing(exc: Exception) -> bool:
    """Whether the store itself may be sound: SQLite's primary code is the low byte; our own mistakes have none."""
    return isinstance(exc, sqlite3.Error) and (getattr(exc, "sqlite_errorcode", 0) & 0xFF) in {0, *_PASSING}
