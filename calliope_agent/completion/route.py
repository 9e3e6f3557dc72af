"""From a model's name to the targets that may answer, in order.

Decisions
1. A name is looked up as a role, then in CALLIOPE_MODEL_ALIASES, then in the catalog: a provider's model never hides a role, and an
   alias is the operator's word.
2. An explicit name has only the chain that was configured for exactly that name; the chains of roles are for roles.
3. A request without a model means the role its endpoint is for: editors that leave the field empty get an answer, not a lecture.
4. A router is a snapshot, so what a name means in it is found once: looking through the whole catalog costs as much as the rest of
   our own work on a request.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from calliope_agent import errors
from calliope_agent.catalog import Catalog, Target
from calliope_agent.model import ROLES
from calliope_agent.settings import Settings
from calliope_agent.upstream.attempt import Kind

ROLE_OF: Mapping[Kind, str] = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "count_tokens": "chat",
    "completions": "inline",
    "fim": "inline",
    "embeddings": "embed",
}
MAX_PLANS = 256
_WHAT_TO_SET = (
    "Set a provider's key (`calliope-agent keys set NAME`) or fetch the local model (`calliope-agent models pull`)"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """``targets`` in order of trying; ``role`` is None where the caller named a model."""

    asked: str
    role: str | None
    targets: tuple[Target, ...]

    @property
    def explicit(self) -> bool:
        return self.role is None


@dataclass(frozen=True, slots=True)
class Router:
    """A snapshot of what names mean now; ``has_key`` answers per provider's name."""

    catalog: Catalog
    settings: Settings
    has_key: Callable[[str], bool]
    _plans: dict[tuple[str | None, Kind], Plan] = field(default_factory=dict, repr=False, compare=False)

    def plan(self, asked: str | None, kind: Kind) -> Plan:
        """Raises `UnknownModel` with near names, `KeyMissing` where a role has nobody to play it."""
        found = self._plans.get((asked, kind))
        if found is None:
            found = self._plan(asked, kind)
            if len(self._plans) < MAX_PLANS:
                self._plans[asked, kind] = found
        return found

    def _plan(self, asked: str | None, kind: Kind) -> Plan:
        name = self._aliased(asked or ROLE_OF[kind])
        if name in ROLES:
            return self._role(asked or name, name)
        first = self.catalog.resolve(name, self.has_key)
        chain = self.settings.model_fallbacks.get(name) or self.settings.model_fallbacks.get(first.name) or ()
        return Plan(asked or name, None, self._with(first, chain))

    def roles(self) -> Mapping[str, Target]:
        """Role → target now. Raises `ConfigError` for a role's setting that names no model."""
        wishes: dict[str, str | None] = {role: getattr(self.settings, f"{role}_model") for role in ROLES}
        return self.catalog.roles(self.has_key, wishes)

    def local(self) -> Target | None:
        """The embedded model's target, for CALLIOPE_OFFLINE=local."""
        embedded = (provider for provider in self.catalog.providers if provider.embedded and provider.models)
        return next((Target(provider, provider.models[0]) for provider in embedded), None)

    def _aliased(self, name: str) -> str:
        for pattern, meaning in self.settings.model_aliases.items():
            if fnmatch.fnmatchcase(name, pattern):
                return meaning
        return name

    def _role(self, asked: str, role: str) -> Plan:
        first = self.roles().get(role)
        if first is None:
            raise errors.KeyMissing(
                f"No model plays the role {role!r} yet. {_WHAT_TO_SET}, or set CALLIOPE_{role.upper()}_MODEL."
            )
        chain = getattr(self.settings, f"fallbacks_{role}") or self.settings.fallbacks
        return Plan(asked, role, self._with(first, chain))

    def _with(self, first: Target, chain: tuple[str, ...]) -> tuple[Target, ...]:
        targets = {first.name: first}
        for name in chain:
            target = self.catalog.resolve(name, self.has_key)
            targets.setdefault(target.name, target)
        return tuple(targets.values())
