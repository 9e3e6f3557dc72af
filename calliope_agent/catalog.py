"""The catalog: every provider there is, and which target a name or a role means.

Decisions
1. A catalog never changes. `load` makes a new one, given the old one so that a file that broke keeps its last good
   state; running requests keep the one they began with.
2. A name with a slash whose first part is a provider is that provider's, always: ``openai/gpt-oss-120b`` is OpenAI's
   even where only Groq has a key and lists a model of that very name. Explicit names are never swapped silently.
3. A bare name that several providers list goes to the usable one of the lowest rank, then of the first name by
   alphabet. Where none is usable but just one waits for no more than a key, it is that one, so that the answer says
   which key to set; otherwise the candidates are listed.
4. A role goes to the lowest rank too, but ``inline`` first to a model that fills in the middle: a chat model that is
   asked to complete code costs more and answers later.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec

from calliope_agent import sources as places
from calliope_agent.errors import ConfigError, UnknownModel
from calliope_agent.model import ROLES, Model, model_name
from calliope_agent.provider import Provider, provider_of
from calliope_agent.sources import Found, Sources, shipped_dir, stamp, standard

__all__ = ["Catalog", "Model", "Provider", "Sources", "Target", "load", "shipped_dir", "stamp", "standard"]

HasKey = Callable[[str], bool]

MAX_NAME = 250

# Role → the capability of a model that is made for it.
_MADE_FOR = {"inline": "fim"}


@dataclass(frozen=True, slots=True)
class Target:
    """One attempt's destination."""

    provider: Provider
    model: Model

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model.name}"

    @property
    def fim(self) -> str:
        return self.model.fim or self.provider.fim

    @property
    def drops(self) -> frozenset[str]:
        return self.provider.drops | self.model.drops

    def is_made_for(self, role: str) -> bool:
        return role not in _MADE_FOR or _MADE_FOR[role] in self.model.capabilities


def no_keys(_provider: str) -> bool:
    """For callers that do not know of keys."""
    return False


@dataclass(frozen=True, slots=True)
class Catalog:
    """``problems`` are broken files, ``notes`` things worth knowing; both are sentences for `doctor` and the log."""

    providers: tuple[Provider, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    good: Mapping[str, Found]

    def provider(self, name: str) -> Provider | None:
        return next((provider for provider in self.providers if provider.name == name), None)

    def find_model(self, name: str) -> tuple[Target, ...]:
        """Every entry of that bare name or alias, in order of rank. An alias is asked for as it was written."""
        return tuple(
            Target(provider, _as_asked(model, name))
            for provider in self.providers
            for model in provider.models
            if name == model.name or name in model.aliases
        )

    def resolve(self, name: str, has_key: HasKey = no_keys) -> Target:
        """``provider/model`` or a bare model's name. Raises `UnknownModel` with near names or the candidates."""
        if len(name) > MAX_NAME:
            raise UnknownModel(f"There is no model with a name of {len(name)} characters.{_HELP}")
        head, slash, rest = name.partition("/")
        provider = self.provider(head)
        if slash and provider is not None:
            return self._of_provider(provider, rest)
        candidates = self.find_model(name)
        usable = [target for target in candidates if _usable(target.provider, has_key)]
        if usable:
            return usable[0]
        keyless = [target for target in candidates if target.provider.key_required and not target.provider.missing]
        waiting = keyless or candidates
        if len(waiting) == 1:
            return _reachable(waiting[0])
        if candidates:
            listed = ", ".join(target.name for target in candidates)
            raise UnknownModel(f"Several providers offer {name!r}, and none has a key: {listed}. Name one of these.")
        return self._by_pattern(name, has_key)

    def role(self, role: str, has_key: HasKey, wish: str | None = None) -> Target:
        """Who plays a role: the setting's ``wish``, else the first usable provider that lists a model for it.

        Raises `ConfigError` for a wish that names no model, `UnknownModel` where nobody can play the role.
        """
        if wish:
            try:
                return self.resolve(wish, has_key)
            except UnknownModel as exc:
                raise ConfigError(f"CALLIOPE_{role.upper()}_MODEL: {exc.message}") from exc
        able = [Target(each, model) for each in self.usable(has_key) for model in each.models if role in model.roles]
        found = min(able, key=lambda target: not target.is_made_for(role), default=None)
        if found is None:
            raise UnknownModel(
                f"No provider with a key has a model for {role!r}. Set a key with `calliope-agent keys set`,"
                f" or name a model in CALLIOPE_{role.upper()}_MODEL."
            )
        return found

    def roles(self, has_key: HasKey, wishes: Mapping[str, str | None] | None = None) -> dict[str, Target]:
        """Every role that somebody can play; a role with a bad wish is left out, never given to somebody else."""
        found: dict[str, Target] = {}
        for role in ROLES:
            with contextlib.suppress(ConfigError, UnknownModel):
                found[role] = self.role(role, has_key, (wishes or {}).get(role))
        return found

    def usable(self, has_key: HasKey) -> tuple[Provider, ...]:
        """The providers a request could go to, in order of rank."""
        return tuple(provider for provider in self.providers if _usable(provider, has_key))

    def _of_provider(self, provider: Provider, name: str) -> Target:
        for model in provider.models:
            if name == model.name or name in model.aliases:
                return _reachable(Target(provider, _as_asked(model, name)))
        if not name or not provider.open_models:
            known = [model.name for model in provider.models]
            raise UnknownModel(f"{provider.title} lists no model {name!r}.{_near(name, known)}{_HELP}")
        try:
            return _reachable(Target(provider, Model(model_name(name), listed=False)))
        except ValueError as exc:
            raise UnknownModel(f"The model's name {exc}.") from exc

    def _by_pattern(self, name: str, has_key: HasKey) -> Target:
        for provider in self.usable(has_key):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in provider.patterns):
                return self._of_provider(provider, name)
        known = [model.name for provider in self.providers for model in provider.models]
        full = [f"{provider.name}/{model.name}" for provider in self.providers for model in provider.models]
        raise UnknownModel(f"There is no model {name!r}.{_near(name, [*known, *full])}{_HELP}")


_HELP = " `calliope-agent models` lists them."


def load(
    sources: Sources,
    environ: Mapping[str, str],
    *,
    own_origins: Collection[str] = (),
    previous: Catalog | None = None,
) -> Catalog:
    """Read every file. ``own_origins`` are this agent's own addresses, which are no provider's. Never raises."""
    chosen, problems = _choose(places.read(sources), previous.good if previous else {})
    providers: list[Provider] = []
    notes: list[str] = []
    for found in chosen.values():
        if found.manifest is not None:
            provider, more = provider_of(found.manifest, environ, own_origins)
            providers.append(provider)
            notes += more
    providers.sort(key=lambda provider: (provider.rank, provider.name))
    good = {found.place: found for found in chosen.values()}
    return Catalog(tuple(providers), tuple(problems), tuple(notes), good)


def _choose(everything: list[Found], good: Mapping[str, Found]) -> tuple[dict[str, Found], list[str]]:
    """Name → the place that counts. A broken file of the operator still takes a shipped one's place: the operator may
    have meant to send that traffic elsewhere, so the provider is rather absent than reached at the public address."""
    chosen: dict[str, Found] = {}
    problems: list[str] = []
    for found in everything:
        if found.problem:
            problems.append(found.problem)
        kept = found if found.manifest else good.get(found.place, found)
        clash = _clash(kept, chosen.get(kept.name))
        if clash:
            problems.append(clash)
        elif kept.manifest or kept.trust == "operator":
            chosen[kept.name] = kept
    return chosen, problems


def _clash(new: Found, old: Found | None) -> str | None:
    """An operator's file takes a shipped one's place; a person's takes nobody's."""
    if old is None or new.trust == "operator":
        return None
    if old.trust == "person":
        return f"{new.place}: the provider {new.name!r} is already in {old.place}. Give one of them another name."
    return f"{new.place}: the name {new.name!r} belongs to a {old.trust} provider. Give yours another name."


def _usable(provider: Provider, has_key: HasKey) -> bool:
    return provider.usable(has_key(provider.name))


def _reachable(target: Target) -> Target:
    if target.provider.missing:
        raise UnknownModel(f"{target.provider.title} {target.provider.missing}.")
    return target


def _as_asked(model: Model, name: str) -> Model:
    return model if name == model.name else msgspec.structs.replace(model, name=name, aliases=())


def _near(name: str, known: Collection[str]) -> str:
    found = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.6)
    return f" Did you mean {', '.join(found)}?" if found else ""
