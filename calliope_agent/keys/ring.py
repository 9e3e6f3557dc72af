"""The OS keyring (Secret Service, KWallet, macOS, Windows), through the `keyring` package.

**Decisions**

1. Backends are asked for directly, not by ``keyring.get_keyring()``: that reads ``keyringrc.cfg`` from the home, whose
   ``keyring-path`` makes it import code from anywhere. Where the agent runs under its own uid and the home is the
   person's, that file would be a door to the operator's keys. ``PYTHON_KEYRING_BACKEND`` is honoured, since it is the
   operator's environment.
2. The null and fail backends, chainers, and everything that stores plain text or asks at the terminal
   (``keyrings.alt``) count as none: the encrypted file is better than those. A chainer's parts are found on their own.
3. The package is imported on first use, in the caller's thread: 0.2 s and a D-Bus call that a start does not pay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calliope_agent.errors import ConfigError
from calliope_agent.keys.stored import Stored, stored_of

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE = "calliope-agent"
SWITCH = "PYTHON_KEYRING_BACKEND"
_USELESS = ("keyring.backends.null.", "keyring.backends.fail.", "keyring.backends.chainer.", "keyrings.alt.")


@dataclass(frozen=True, slots=True)
class Ring:
    """One working backend. All calls block, perhaps for ever, and belong in a bounded thread."""

    backend: KeyringBackend

    @property
    def title(self) -> str:
        return name_of(self.backend).rsplit(".", 2)[-2]

    def get(self, provider: str) -> Stored | None:
        """Raises ConfigError when the keyring does not give its answer."""
        text = self._ask("read", lambda: self.backend.get_password(SERVICE, provider))
        try:
            return stored_of(provider, json.loads(text)) if text else None
        except (ValueError, RecursionError):
            return None

    def put(self, entry: Stored) -> None:
        self._ask("write", lambda: self.backend.set_password(SERVICE, entry.provider, json.dumps(entry.plain())))

    def delete(self, provider: str) -> bool:
        """Whether there was one."""
        if self._ask("read", lambda: self.backend.get_password(SERVICE, provider)) is None:
            return False
        self._ask("write", lambda: self.backend.delete_password(SERVICE, provider))
        return True

    def _ask(self, verb: str, call: Callable[[], str | None]) -> str | None:
        try:
            return call()
        except Exception as exc:
            # The error's text is left out: a backend may put what it was given into it.
            raise ConfigError(
                f"The keyring ({self.title}) cannot {verb} keys: {type(exc).__name__}. Unlock it and try again."
            ) from exc


@dataclass(frozen=True, slots=True)
class Probe:
    """What looking for a keyring found: a ring, or the reason there is none."""

    ring: Ring | None
    why: str


def installed() -> list[KeyringBackend]:
    """Every backend that says it works here; looking makes the calls to D-Bus."""
    from keyring.backend import get_all_keyring  # noqa: PLC0415  see Decisions 3

    return list(get_all_keyring())


def probe(environ: Mapping[str, str], backends: Callable[[], Iterable[KeyringBackend]] = installed) -> Probe:
    """The best backend that keeps a key closed. Blocks; never raises."""
    wanted = environ.get(SWITCH, "")
    if wanted and not _is_useful(wanted):
        return Probe(None, f"{SWITCH} names {wanted}, which keeps no key closed")
    try:
        found = [backend for backend in backends() if _is_useful(name_of(backend)) and backend.priority >= 1]
    except Exception as exc:  # noqa: BLE001  plug-ins are imported here, and any of them may fail in its own way
        return Probe(None, f"the keyrings cannot be looked at ({type(exc).__name__})")
    if wanted:
        found = [backend for backend in found if name_of(backend) == wanted]
    if not found:
        return Probe(None, f"{wanted} does not work here" if wanted else _none(environ))
    best = max(found, key=lambda backend: float(backend.priority))
    return Probe(Ring(best), f"the keyring {name_of(best)} works")


def name_of(backend: KeyringBackend) -> str:
    # The backends' metaclass hides __qualname__.
    return f"{type(backend).__module__}.{type(backend).__name__}"


def _is_useful(name: str) -> bool:
    return not name.startswith(_USELESS) and "plaintext" not in name.lower()


def _none(environ: Mapping[str, str]) -> str:
    if not environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return "no D-Bus session, so no Secret Service"
    return "no Secret Service on D-Bus"
