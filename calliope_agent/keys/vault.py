"""The encrypted file: where keys go when no keyring works.

**Decisions**

1. Without a passphrase the file's key lies beside it (0600). That keeps keys out of backups that take one file, out of
   `grep` and off the screen; it does not keep them from who reads the directory as its owner, and `describe` says so.
2. A file that a newer version wrote is never rewritten: a write first renames it, unopened.
3. A file closed with the key file is closed with the passphrase at the next write once one is given; never the other
   way round.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calliope_agent.errors import ConfigError
from calliope_agent.keys import seal
from calliope_agent.keys.lock import locked
from calliope_agent.keys.private import (
    Stamp,
    make_private_directory,
    read_private,
    stamp,
    sweep_unfinished,
    write_private,
)
from calliope_agent.keys.stored import Stored, stored_of
from calliope_agent.secret import Secret

FILE = "keys.enc"
KEY_FILE = "keys.key"
LOCK = "keys.lock"


@dataclass(slots=True)
class Vault:
    """All calls block and belong in a thread, except `stamp`. ``notes`` is for `doctor`."""

    directory: Path
    passphrase: Secret | None
    notes: list[str] = field(default_factory=list)
    path: Path = field(init=False)
    _entries: tuple[Stamp | None, Mapping[str, Stored]] | None = None
    _name: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.directory / FILE
        self._name = str(self.path)

    def stamp(self) -> Stamp | None:
        return stamp(self._name)

    def read(self) -> Mapping[str, Stored]:
        """Every stored key by provider. Raises ConfigError; a file of a newer version reads as empty and is noted."""
        now = self.stamp()
        if self._entries is None or self._entries[0] != now:
            self._entries = (now, self._read())
        return self._entries[1]

    def put(self, entry: Stored) -> None:
        """Raises ConfigError; nothing is changed then."""
        self._change(lambda entries: entries | {entry.provider: entry})

    def delete(self, provider: str) -> bool:
        """Whether there was one. Raises ConfigError; nothing is changed then."""
        if provider not in self.read():
            return False
        self._change(lambda entries: {name: entry for name, entry in entries.items() if name != provider})
        return True

    def _change(self, change: Callable[[dict[str, Stored]], dict[str, Stored]]) -> None:
        make_private_directory(self.directory)
        with locked(self.directory / LOCK) as kind:
            if kind == "lock file":
                self._note(f"{self.directory}: its file system has no flock, so writers use the file {LOCK}.held")
            for path in (self.path, self.directory / KEY_FILE):
                sweep_unfinished(path)
            self._set_newer_aside()
            # Read under the lock and past the cache: another process may have written a moment ago.
            entries = change(dict(self._read()))
            data = {"keys": {name: entry.plain() for name, entry in entries.items()}}
            write_private(self.path, seal.seal(data, self._unlock(writing=True)))
            self._entries = (self.stamp(), entries)

    def _read(self) -> Mapping[str, Stored]:
        raw = read_private(self.path)
        if raw is None:
            return {}
        try:
            sealed = seal.parse(raw, str(self.path))
        except seal.NewerSchema as exc:
            self._note(exc.message)
            return {}
        data = seal.open_sealed(sealed, self._unlock(writing=False), str(self.path)).get("keys")
        found = [stored_of(name, entry) for name, entry in data.items()] if isinstance(data, dict) else []
        return {entry.provider: entry for entry in found if entry is not None}

    def _unlock(self, *, writing: bool) -> seal.Unlock:
        path = self.directory / KEY_FILE
        key = read_private(path)
        if key is not None and len(key) != 32:
            raise ConfigError(
                f"{path} is damaged (32 bytes are expected). Put the right one back; nothing was changed."
            )
        if key is None and writing and not self.passphrase:
            key = secrets.token_bytes(32)
            write_private(path, key)
        return seal.Unlock(self.passphrase, key)

    def _set_newer_aside(self) -> None:
        raw = read_private(self.path)
        if raw is None:
            return
        try:
            seal.parse(raw, str(self.path))
        except seal.NewerSchema:
            aside = self.path.with_name(f"{FILE}.newer-{secrets.token_hex(4)}")
            try:
                self.path.rename(aside)
            except OSError as exc:
                raise ConfigError(f"{self.path} cannot be set aside ({exc.strerror}). Nothing was changed.") from exc
            self._note(f"{self.path} was written by a newer calliope-agent and now lies untouched at {aside}")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
