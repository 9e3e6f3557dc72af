"""What a provider needs of the key store, and what it gets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from calliope_agent.secret import Secret

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MAX_VALUE = 16 << 10
OWN_PREFIX = "cal-"


@dataclass(frozen=True, slots=True)
class KeyNeed:
    """Where a provider's key may come from, and the only origin it may go to.

    ``env`` are the names of variables in order, aliases included; each may also be given as ``<NAME>_FILE``. ``origin``
    is ``scheme://host:port`` of the base URL in force. ``operator`` is true where manifest *and* base URL are the
    shipped ones or the operator's: only then do environment, ``file`` and ``command`` (argv) count.
    """

    provider: str
    env: tuple[str, ...]
    origin: str
    operator: bool
    command: tuple[str, ...] | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key in use. ``identity`` tells keys apart in cache and breaker keys; nobody gets the value back from it."""

    value: Secret
    source: str
    identity: str

    @property
    def label(self) -> str:
        """``sk-…4f2a (environment OPENAI_API_KEY)``."""
        return f"{self.value.label} ({self.source})"


def cleaned(text: str) -> Secret:
    """The key in ``text``, its line end stripped. Raises ValueError with what is wrong, never with the value.

    Only visible ASCII passes: everything else would be refused by, or smuggled into, an HTTP header.
    """
    value = text.strip(" \t\r\n")
    if not value:
        raise ValueError("is empty")
    if len(value) > MAX_VALUE:
        raise ValueError(f"is longer than {MAX_VALUE} characters, so it is not a key")
    if "\n" in value or "\r" in value:
        raise ValueError("holds more than one line; it must hold the key alone")
    if re.match(r"(?i)bearer\s", value):
        raise ValueError("begins with the word Bearer; give the key alone")
    if not all("!" <= char <= "~" for char in value):
        raise ValueError("holds a space, a control character or a letter outside ASCII; no key has one")
    return Secret(value)


def is_own_token(value: Secret) -> bool:
    """Whether it is a token this agent issued: children carry one as OPENAI_API_KEY, and it opens no provider."""
    return value.reveal().startswith(OWN_PREFIX)
