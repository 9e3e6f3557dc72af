"""The ledger on disk, so that a restart forgets nothing of what was spent.

Decisions
1. One JSON file, replaced in one step a few seconds after a change: a request waits for no disk, and a process that is killed loses
   those seconds at most.
2. What cannot be read is set aside under another name and said so, once; what a newer version wrote as well.
3. Two agents may share a state folder, by their settings or for the moment in which one takes the other's place. So what was counted
   here is added to what the file says by then, under a lock, and none overwrites the other's. Refused: a lock held for life, with
   which the second agent's count would end with it.
4. Who holds the lock is the only writer, so what it finds half written was left by one that was killed.
5. A file that is there and cannot be read is not replaced: what it says would be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path

import msgspec

from calliope_agent.completion import folder
from calliope_agent.completion.ledger import Days, Ledger
from calliope_agent.errors import ConfigError
from calliope_agent.keys.lock import locked
from calliope_agent.keys.private import read_private, sweep_unfinished, write_private

log = logging.getLogger(__name__)

SCHEMA = 1
MAX_BYTES = 32 << 20  # the ledger's days full of targets with the longest names there may be are half of it
WRITE_AFTER_S = 5.0
LOCK_S = 2.0
NAME = "ledger.json"
LOCK = "ledger.lock"


class _Head(msgspec.Struct):
    schema: int


class _Book(msgspec.Struct, forbid_unknown_fields=True):
    schema: int
    since: datetime
    days: Days


class LedgerFile:
    """``directory`` is made where it is missing. Without `close` the last change may not be on the disk."""

    def __init__(self, ledger: Ledger, directory: Path, after_s: float = WRITE_AFTER_S) -> None:
        self._ledger = ledger
        self._path = directory / NAME
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._loaded = False

    async def load(self) -> None:
        """Take up what earlier processes counted, once. To be called before anything is counted."""
        if self._loaded:
            return
        found = await asyncio.to_thread(self._found)
        self._loaded = True  # not before: who is cancelled while waiting has taken up nothing
        if found is not None:
            self._ledger.take_up(found.since, found.days)

    def changed(self) -> None:
        """The ledger has something new, which will be written soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._write)

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
        await self._written()  # without what has changed since it began
        if self._timer is not None:
            self._write()
            await self._written()

    async def _written(self) -> None:
        if self._writing is not None:
            await self._writing

    def _write(self) -> None:
        """One write after the other: a slow disk delays the next."""
        self._timer = None
        if self._writing is not None and not self._writing.done():
            self.changed()
            return
        self._writing = asyncio.get_running_loop().create_task(self._add(self._ledger.hand_out()))

    async def _add(self, fresh: Days) -> None:
        whole = Ledger(self._ledger.now, self._ledger.prices, fresh=fresh)
        whole.since = self._ledger.since
        try:
            await asyncio.to_thread(self._write_with, whole)
        except ConfigError as exc:
            log.warning("What was spent is not kept: %s", exc.message)
            self._ledger.hand_back(fresh)
        else:
            self._ledger.take_up(whole.since, whole.days)

    def _write_with(self, whole: Ledger) -> None:
        """Write what the file says and what is fresh of ``whole``, which then is all that the file says."""
        with self._alone():
            found = self._read() or _Book(SCHEMA, whole.since, {})
            whole.take_up(found.since, found.days)
            write_private(self._path, msgspec.json.encode(_Book(SCHEMA, whole.since, whole.days)))

    def _found(self) -> _Book | None:
        try:
            with self._alone():
                sweep_unfinished(self._path)
                return self._read()
        except ConfigError as exc:
            log.warning("What was spent before is not known: %s", exc.message)
            return None

    def _alone(self) -> AbstractContextManager[object]:
        return locked(folder.private(self._path.parent) / LOCK, LOCK_S)

    def _read(self) -> _Book | None:
        raw = read_private(self._path, MAX_BYTES)
        if raw is None:
            return None
        try:
            schema = msgspec.json.decode(raw, type=_Head).schema
            if schema == SCHEMA:
                return _checked(msgspec.json.decode(raw, type=_Book))
            why = f"has schema {schema}, and this program writes {SCHEMA}"
        except (msgspec.DecodeError, ValueError, RecursionError):
            why = "is damaged"
        self._set_aside(why)
        return None

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(f"{NAME}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            self._path.rename(aside)
        log.warning("%s %s; it now lies at %s, and counting begins anew.", self._path, why, aside)


def _checked(book: _Book) -> _Book:
    """Raises ValueError for what is no day and no moment."""
    if book.since.tzinfo is None or any(date.fromisoformat(day).isoformat() != day for day in book.days):
        raise ValueError("a moment without a zone, or a day that this program does not write so")
    return book
