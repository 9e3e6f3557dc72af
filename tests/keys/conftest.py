"""Stores over a temporary directory, and keyrings that are real `keyring` backends in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from keyring.backend import KeyringBackend

from calliope_agent.keys import KeyNeed, KeyStore
from calliope_agent.keys.ring import Probe, Ring
from calliope_agent.keys.store import UserKeys
from calliope_agent.secret import Secret

ORIGIN = "https://api.mistral.example:443"
NEED = KeyNeed("mistral", ("MISTRAL_API_KEY", "CODESTRAL_API_KEY"), ORIGIN, operator=True)
KEY = "sk-canary-operator-0123456789-aaaa"
OWN = "sk-canary-person-0123456789-bbbb"


class MemoryKeyring(KeyringBackend):
    """A backend that keeps what it is given; ``away`` makes it fail as a locked or vanished keyring does."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[tuple[str, str], str] = {}
        self.away = False
        self.before: Callable[[], object] = bool

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        del self.held[service, username]

    def _check(self) -> None:
        self.before()
        if self.away:
            raise OSError("the bus is gone, and here is a canary: " + OWN)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """Makes stores as processes would: each call is a new one over the same directory."""

    directory: Path
    clock: Clock = field(default_factory=Clock)
    ring: MemoryKeyring | None = None

    def store(
        self, environ: Mapping[str, str] | None = None, policy: UserKeys = "allow", passphrase: str | None = None
    ) -> KeyStore:
        made = KeyStore(
            environ or {}, self.directory, policy, Secret(passphrase) if passphrase else None, clock=self.clock
        )
        made.person.look = self.probe
        return made

    def probe(self, _environ: Mapping[str, str]) -> Probe:
        if self.ring is None:
            return Probe(None, "no D-Bus session, so no Secret Service")
        return Probe(Ring(self.ring), "the keyring of the test works")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "config")


@pytest.fixture
def ring(bench: Bench) -> MemoryKeyring:
    bench.ring = MemoryKeyring()
    return bench.ring
