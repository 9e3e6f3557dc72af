"""The key store: one question, which key goes to this provider, and the reasons for the answer.

**Decisions**

1. `find` answers None where a key that somebody set cannot be used (a broken file, a changed address); `require` says
   why. A source behind a broken one is not asked: a request would else go out, and be paid, under another key than the
   one that was meant.
2. A key that is in hand costs a few dictionary look-ups and a ``stat`` for each file that could change it; everything
   that may block runs in a thread with a time limit, once for all who wait.
3. ``identity`` is an HMAC under a random salt kept in the configuration directory, so that cached answers survive a
   restart and the identity says nothing about the key to who has the cache alone.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calliope_agent.errors import Forbidden, InvalidRequest, KeyMissing
from calliope_agent.keys.identity import Identity
from calliope_agent.keys.need import NAME, Key, KeyNeed, cleaned, is_own_token
from calliope_agent.keys.operators import OWN, OperatorKeys
from calliope_agent.keys.person import SHOWN_TTL_S, Found, PersonKeys
from calliope_agent.keys.source import Look, Provenance, provenance
from calliope_agent.keys.stored import Stored
from calliope_agent.keys.vault import Vault
from calliope_agent.redact import Redactor
from calliope_agent.secret import Secret

UserKeys = Literal["deny", "allow", "override"]
_NAMES_A_SECRET = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|ACCESS_KEY)(_ID)?$")


@dataclass(frozen=True, slots=True)
class StoreReport:
    """For `doctor`: which backend takes a person's keys, why that one, and what else there is to know."""

    backend: Literal["keyring", "encrypted file", "none"]
    why: str
    path: Path
    policy: UserKeys
    notes: tuple[str, ...]


class KeyStore:
    """``environ`` is the agent's own; ``redactor`` learns every key before anybody can use it."""

    def __init__(  # noqa: PLR0913  the clock is an argument as everywhere, and only tests give another
        self,
        environ: Mapping[str, str],
        config_dir: Path,
        policy: UserKeys,
        passphrase: Secret | None,
        redactor: Redactor | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self._environ = environ
        self._redactor = redactor or Redactor()
        self._operators = OperatorKeys(environ, clock)
        self.person = PersonKeys(environ, Vault(config_dir, passphrase), clock)
        self._identity = Identity(config_dir)
        self._keys: dict[tuple[str, str], Key] = {}
        self._values: dict[Secret, None] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        for value in self._secrets_of_environment(passphrase):
            self._learn(value)

    async def find(self, need: KeyNeed) -> Key | None:
        """The key to use now, or None. Never raises for want of a key."""
        looks = self._quick(need)
        if looks is None:
            async with self._locks.setdefault(need.provider, asyncio.Lock()):
                looks = self._quick(need)
                if looks is None:
                    looks = await self._asked(need)
        return self._first(looks)

    async def require(self, need: KeyNeed) -> Key:
        """As `find`. Raises KeyMissing that says why there is none and what to do."""
        key = await self.find(need)
        if key is not None:
            return key
        reasons = [line.note for line in await self.sources(need) if line.note and line.state in {"broken", "ignored"}]
        raise KeyMissing(" ".join([f"No key for {need.provider}.", *reasons, self._advice(need)]))

    async def set(self, provider: str, origin: str, value: str) -> Key:
        """Store a person's key for that origin alone. Raises Forbidden (policy), InvalidRequest, ConfigError (nothing
        was changed).
        """
        if self.policy == "deny":
            raise Forbidden(
                "Keys of your own are switched off here (CALLIOPE_USER_KEYS=deny). Ask who runs this server."
            )
        _check_name(provider)
        try:
            secret = cleaned(value)
        except ValueError as exc:
            raise InvalidRequest(f"The key {exc}.", param="key") from exc
        if is_own_token(secret):
            raise InvalidRequest(f"That is no provider's key: {OWN}.", param="key")
        self._learn(secret)
        where = await self.person.put(Stored(provider, origin, secret, time.time()))
        self.person.forget(provider)
        return self._key(secret, where)

    async def remove(self, provider: str) -> bool:
        """Forget the person's key; whether there was one. Raises InvalidRequest, ConfigError."""
        _check_name(provider)
        gone = await self.person.delete(provider)
        self.person.forget(provider)
        return gone

    def rejected(self, need: KeyNeed) -> None:
        """The provider refused the key: what can be asked anew (a command, a keyring) is asked anew at the next
        request.
        """
        self._operators.forget(need)
        self.person.forget(need.provider)

    async def sources(self, need: KeyNeed) -> list[Provenance]:
        """Every place a key of this provider may come from, in the order they count."""
        operators = await self._operators.looks(need, all_of_them=True) if need.operator else []
        return provenance(self._ordered(operators, self._person_looks(need, await self._find_person(need))))

    async def describe(self) -> StoreReport:
        """A keyring that was looked for a moment ago is not looked for again; see `person`, Decisions 4."""
        probe = await self.person.probed(SHOWN_TTL_S)
        vault = self.person.vault
        if self.policy == "deny":
            return StoreReport("none", "CALLIOPE_USER_KEYS=deny: no keys are kept", vault.path, self.policy, ())
        notes = (*await self.person.troubles(), *vault.notes)
        if probe.ring is not None:
            return StoreReport("keyring", f"{probe.why}: keys go there", vault.path, self.policy, notes)
        closed = (
            "closed by CALLIOPE_KEYS_PASSPHRASE"
            if vault.passphrase
            else (
                "its own key lies beside it, so who can read your files can open it; CALLIOPE_KEYS_PASSPHRASE closes it"
            )
        )
        why = f"{probe.why}: keys go to the encrypted file {vault.path} ({closed})"
        return StoreReport("encrypted file", why, vault.path, self.policy, notes)

    def known_values(self) -> tuple[Secret, ...]:
        """Every key seen so far, replaced ones too: a running stream may still carry them."""
        return tuple(self._values)

    def _quick(self, need: KeyNeed) -> list[Look] | None:
        operators = self._operators.quick(need) if need.operator else []
        if self.policy == "deny":
            return operators
        if self.policy == "allow" and (operators is None or _decided(operators)):
            return operators
        found = self.person.quick(need.provider)
        if found is None:
            return None
        person = self._person_looks(need, found)
        if self.policy == "override" and _decided(person):
            return person
        return None if operators is None else self._ordered(operators, person)

    async def _asked(self, need: KeyNeed) -> list[Look]:
        operators = await self._operators.looks(need, all_of_them=False) if need.operator else []
        if self.policy == "allow" and _decided(operators):
            return operators
        return self._ordered(operators, self._person_looks(need, await self._find_person(need)))

    async def _find_person(self, need: KeyNeed) -> Found:
        return Found() if self.policy == "deny" else await self.person.find(need.provider)

    def _ordered(self, operators: list[Look], person: list[Look]) -> list[Look]:
        return [*person, *operators] if self.policy == "override" else [*operators, *person]

    def _person_looks(self, need: KeyNeed, found: Found) -> list[Look]:
        entry = found.entry
        if self.policy == "deny":
            return []
        if entry is None:
            return [Look("stored key", note=found.trouble, broken=bool(found.trouble))]
        if entry.origin != need.origin:
            note = (
                f"The stored key is for {entry.origin}; the address is now "
                f"{need.origin or 'unknown'}, so it is not sent."
            )
            return [Look(found.where, note=note)]
        return [Look(found.where, entry.value)]

    def _first(self, looks: list[Look]) -> Key | None:
        for look in looks:
            if look.broken:
                return None
            if look.value is not None:
                return self._key(look.value, look.source)
        return None

    def _key(self, value: Secret, source: str) -> Key:
        known = self._keys.get((source, value.reveal()))
        if known is None:
            self._learn(value)
            known = self._keys[source, value.reveal()] = Key(value, source, self._identity.of(value))
        return known

    def _learn(self, value: Secret) -> None:
        if value not in self._values:
            self._values[value] = None
            self._redactor.add(value)

    def _advice(self, need: KeyNeed) -> str:
        if self.policy == "deny":
            return "Ask who runs this server to set it."
        names = f", or set {need.env[0]}" if need.env and need.operator else ""
        return f"Run: calliope-agent keys set {need.provider}{names}."

    def _secrets_of_environment(self, passphrase: Secret | None) -> list[Secret]:
        found = [Secret(value) for name, value in self._environ.items() if value and _NAMES_A_SECRET.search(name)]
        return [*found, passphrase] if passphrase else found


def _decided(looks: list[Look]) -> bool:
    return any(look.decides for look in looks)


def _check_name(provider: str) -> None:
    if not NAME.fullmatch(provider):
        raise InvalidRequest(
            "A provider's name is lower-case letters, digits, '.', '_' and '-', at most 64.", param="name"
        )
