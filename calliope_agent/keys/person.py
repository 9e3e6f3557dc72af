"""A person's own keys: the OS keyring where one works, else the encrypted file.

**Decisions**

1. Both are read, and of two entries the newer one counts: a keyring that was away when a key was changed must not bring
   the old key back.
2. A keyring cannot be watched. A mark, one small file per provider in the directory `IN_RING`, changes with every write
   of any of our processes, so that a key set by the command line counts at once in the running agent; a change by
   another program counts after `RING_TTL_S`.
3. Without the mark nothing of ours was put into a keyring for that provider: then none is looked for on a request's
   way, which keeps D-Bus and a hanging keyring out of the life of everybody who uses none.
4. Who is told where keys go gets what was found in the last `SHOWN_TTL_S`, so that a page read often does not wait for a
   hanging keyring each time; who writes a key always looks anew, and what that found is what is told from then on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from calliope_agent.errors import ConfigError
from calliope_agent.keys.bounded import bounded
from calliope_agent.keys.private import Stamp, make_private_directory, stamp, write_private
from calliope_agent.keys.ring import Probe, Ring, probe
from calliope_agent.keys.stored import Stored
from calliope_agent.keys.vault import Vault

T = TypeVar("T")
Stamps = tuple[Stamp | None, Stamp | None]

IN_RING = "keyring"
RING_TTL_S = 60.0
PROBE_TTL_S = 300.0
SHOWN_TTL_S = 30.0
VAULT_TIMEOUT_S = 20.0


@dataclass(slots=True)
class Found:
    """``trouble`` says what could not be asked; ``where`` names the backend that had the entry."""

    entry: Stored | None = None
    where: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Probed:
    """Found ``at``, believed ``until``, by the clock."""

    probe: Probe
    at: float
    until: float


@dataclass(slots=True)
class PersonKeys:
    """``look`` finds a keyring (see `ring.probe`); ``clock`` is monotonic seconds."""

    environ: Mapping[str, str]
    vault: Vault
    clock: Callable[[], float]
    look: Callable[[Mapping[str, str]], Probe] = probe
    ring_timeout_s: float = 5.0
    _known: _Probed | None = None
    _cached: dict[str, tuple[float, Stamps, Found]] = field(default_factory=dict)

    def mark(self, provider: str) -> Path:
        return self.vault.directory / IN_RING / provider

    def quick(self, provider: str) -> Found | None:
        """What is known without a thread, or None: two looks at files."""
        held = self._cached.get(provider)
        if held is None or held[1] != self._stamps(provider) or self.clock() >= held[0]:
            return None
        return held[2]

    async def find(self, provider: str) -> Found:
        quick = self.quick(provider)
        if quick is not None:
            return quick
        before = self._stamps(provider)
        found = await self._find(provider)
        self._cached[provider] = (self.clock() + RING_TTL_S, before, found)
        return found

    async def put(self, entry: Stored) -> str:
        """Where it went. Raises ConfigError, and then nothing was changed."""
        found = await self.probed(0)
        if found.ring is not None:
            try:
                await self._put_in_ring(found.ring, entry)
            except ConfigError as exc:
                self._remember(Probe(None, exc.message), PROBE_TTL_S)
            else:
                await self._tidy(entry.provider)
                return "keyring"
        await self._in_vault(lambda: self.vault.put(entry))
        return "encrypted file"

    async def delete(self, provider: str) -> bool:
        """Whether there was one. Raises ConfigError when a backend that may hold it does not answer."""
        gone = self._is_marked(provider) and await self._delete_in_ring(provider)
        return await self._in_vault(lambda: self.vault.delete(provider)) or gone

    async def troubles(self) -> list[str]:
        """What keeps the encrypted file from being read, for `doctor`."""
        trouble = (await self._find_in_vault("")).trouble
        return [trouble] if trouble else []

    async def probed(self, within_s: float = PROBE_TTL_S) -> Probe:
        """What looking for a keyring found in the last ``within_s`` seconds, or finds now."""
        known = self._known
        if known is not None and self.clock() < min(known.until, known.at + within_s):
            return known.probe
        try:
            found = await bounded(lambda: self.look(self.environ), self.ring_timeout_s)
        except TimeoutError:
            found = Probe(None, f"the keyring did not answer in {self.ring_timeout_s:g} s")
        self._remember(found, PROBE_TTL_S)
        return found

    def forget(self, provider: str) -> None:
        self._cached.pop(provider, None)

    async def _find(self, provider: str) -> Found:
        from_ring, from_vault = await self._find_in_ring(provider), await self._find_in_vault(provider)
        both = [found for found in (from_ring, from_vault) if found.entry is not None]
        if not both:
            return Found(trouble=" ".join(found.trouble for found in (from_ring, from_vault) if found.trouble))
        return max(both, key=lambda found: found.entry.set_at if found.entry else 0.0)

    def _is_marked(self, provider: str) -> bool:
        return stamp(self.mark(provider)) is not None  # a folder that may not be entered holds no mark for us

    async def _find_in_ring(self, provider: str) -> Found:
        if not self._is_marked(provider):
            return Found()
        found = await self.probed()
        if found.ring is None:
            return Found(trouble=f"The key of {provider} is in a keyring, but {found.why}.")
        ring = found.ring
        try:
            return Found(await self._in_ring(lambda: ring.get(provider)), "keyring")
        except ConfigError as exc:
            # Left alone for a while, so that a keyring which hangs does so once and not for every provider of a
            # person's.
            self._remember(Probe(None, f"the keyring failed: {exc.message}"), RING_TTL_S)
            return Found(trouble=exc.message)

    async def _find_in_vault(self, provider: str) -> Found:
        try:
            return Found((await self._in_vault(self.vault.read)).get(provider), "encrypted file")
        except ConfigError as exc:
            return Found(trouble=exc.message)

    def _remember(self, found: Probe, ttl_s: float) -> None:
        now = self.clock()
        self._known = _Probed(found, now, now + ttl_s)

    async def _put_in_ring(self, ring: Ring, entry: Stored) -> None:
        # Marked before, so that no key is in a keyring without its mark, and after, because another process may have
        # looked between.
        self._set_mark(entry.provider)
        await self._in_ring(lambda: ring.put(entry))
        self._set_mark(entry.provider)

    async def _delete_in_ring(self, provider: str) -> bool:
        found = await self.probed(0)
        ring = found.ring
        if ring is None:
            raise ConfigError(
                f"The key of {provider} is in a keyring, but {found.why}. Nothing was changed; "
                "try again where it works."
            )
        gone = await self._in_ring(lambda: ring.delete(provider))
        self.mark(provider).unlink(missing_ok=True)
        return gone

    async def _tidy(self, provider: str) -> None:
        """The keyring has the newer key; the older one in the file is removed where the file opens."""
        try:
            await self._in_vault(lambda: self.vault.delete(provider))
        except ConfigError as exc:
            self.vault.notes.append(f"An older key of {provider} stays in the encrypted file: {exc.message}")

    def _set_mark(self, provider: str) -> None:
        mark = self.mark(provider)
        make_private_directory(self.vault.directory)
        make_private_directory(mark.parent)
        write_private(mark, secrets.token_hex(8).encode())

    async def _in_ring(self, call: Callable[[], T]) -> T:
        try:
            return await bounded(call, self.ring_timeout_s)
        except TimeoutError as exc:
            raise ConfigError(
                f"The keyring did not answer in {self.ring_timeout_s:g} s. Unlock it and try again."
            ) from exc

    async def _in_vault(self, call: Callable[[], T]) -> T:
        try:
            return await bounded(call, VAULT_TIMEOUT_S)
        except TimeoutError as exc:
            raise ConfigError(
                f"{self.vault.directory} did not answer in {VAULT_TIMEOUT_S:g} s; its disk hangs."
            ) from exc

    def _stamps(self, provider: str) -> Stamps:
        # Joined as text: this is every request's way, and making a Path costs more than the look itself.
        return self.vault.stamp(), stamp(f"{self.vault.directory}/{IN_RING}/{provider}")
