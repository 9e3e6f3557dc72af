"""diskcache's Disk for bytes and nothing else.

Decisions
1. diskcache unpickles keys and values it did not write (CVE-2025-69872, unfixed). This one knows one mode, raw bytes
   inside the database, for `store`, `fetch`, `put` and `get` alike; a row of any other mode is refused, never loaded.
2. No value lies in a file of its own. A planted row with a file name would otherwise be a way to read or, at eviction,
   to delete any file of this account; so `remove` removes nothing.
"""

from __future__ import annotations

import sqlite3

import diskcache
from diskcache.core import MODE_RAW


class Refused(Exception):
    """A row that no program of ours wrote."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Raw bytes inside the database and nothing else."""

    def put(self, key: bytes) -> tuple[memoryview, bool]:
        if type(key) is not bytes:
            raise TypeError("a key is bytes")
        return sqlite3.Binary(key), True

    def get(self, key: object, raw: object) -> bytes:
        if not raw or type(key) is not bytes:
            raise Refused("a key that is not raw bytes")
        return key

    def store(self, value: bytes, read: bool, key: object = None) -> tuple[int, int, None, memoryview]:  # noqa: ARG002
        if type(value) is not bytes or read:
            raise TypeError("a value is bytes")
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        if mode != MODE_RAW or filename is not None or type(value) is not bytes or read:
            raise Refused("a value that is not raw bytes")
        return value

    def remove(self, file_path: object) -> None:
        """Nothing of ours lies in files."""
