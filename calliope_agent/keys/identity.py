"""A name for a key's value from which nobody gets the value back."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from calliope_agent.errors import ConfigError
from calliope_agent.keys.private import make_private_directory, read_private
from calliope_agent.secret import Secret

FILE = "identity.salt"


@dataclass(slots=True)
class Identity:
    """The salt is made on first use and kept; where it cannot be kept it lasts as long as the process, and cached
    answers with it.
    """

    directory: Path
    _salt: bytes | None = None

    def of(self, value: Secret) -> str:
        if self._salt is None:
            self._salt = self._kept() or secrets.token_bytes(32)
        return hmac.new(self._salt, value.reveal().encode(), hashlib.sha256).hexdigest()

    def _kept(self) -> bytes | None:
        path = self.directory / FILE
        try:
            make_private_directory(self.directory)
            draft = self.directory / f".{FILE}.{secrets.token_hex(6)}"
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
        except (OSError, ConfigError):
            return None
        try:
            # Linked, not renamed: the first of two processes wins and both read the same salt.
            os.link(draft, path)
        except OSError:
            pass
        finally:
            draft.unlink(missing_ok=True)
        return _whole(path)


def _whole(path: Path) -> bytes | None:
    try:
        salt = read_private(path)
    except ConfigError:
        return None
    return salt if salt is not None and len(salt) == 32 else None
