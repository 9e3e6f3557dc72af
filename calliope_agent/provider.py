"""A provider as this process meets it: its manifest and what the environment adds.

Decisions
1. `Provider` extends `Manifest`, the one place where a record inherits: it is the same record with three fields
   settled, and a wrapper would repeat thirty fields as properties.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from calliope_agent import address
from calliope_agent.keys.need import KeyNeed
from calliope_agent.manifest import Manifest
from calliope_agent.model import Model, model_name


@dataclass(frozen=True, slots=True)
class Source:
    """Where an address came from: ``where`` is a variable's name, a file's place, or what the provider ships with."""

    kind: Literal["environment", "file", "default", "none"]
    where: str


class Provider(Manifest, frozen=True, kw_only=True):
    """Its manifest's facts, with ``base_url``, ``litellm`` and ``models`` as the environment leaves them.

    ``base_url`` is None for litellm's routes and the embedded model, and where the environment still has to name it.
    ``credentials`` is the variable that says litellm will find credentials of its own; never its value.
    """

    base_url_source: Source
    credentials: str | None

    @property
    def fim_url(self) -> str | None:
        """Where fill-in-the-middle is asked when that is not beside ``base_url``; always of the same origin."""
        return f"{self.origin}{self.fim_path}" if self.fim_path and self.origin else None

    @property
    def origin(self) -> str | None:
        """``scheme://host:port``: what a key is bound to."""
        return address.origin(self.base_url) if self.base_url else None

    @property
    def missing(self) -> str | None:
        """What must be set before the provider can be reached at all, as the end of a sentence; None when nothing."""
        if self.base_url or self.embedded or self.wire == "litellm":
            return None
        return f"has no address yet: set {' or '.join(self.base_url_env) or f'base_url in {self.place}'}"

    @property
    def configured(self) -> bool:
        """Whether somebody asked for this provider by more than a key: an address, credentials, a file of their own."""
        if self.missing:
            return False
        named = self.base_url_source.kind == "environment" or self.trust != "shipped"
        return named or self.credentials is not None or self.embedded

    def usable(self, has_key: bool) -> bool:
        """Whether a request could be answered: a key where one is needed, else a sign that somebody wants it."""
        if self.missing:
            return False
        if self.key_required:
            return has_key or self.credentials is not None
        return self.configured or (has_key and self.wire == "litellm")


def need_of(provider: Provider) -> KeyNeed:
    """What the key store is asked for a provider. Operator's sources count only for files that are not a person's."""
    return KeyNeed(
        provider=provider.name,
        env=provider.key_env,
        origin=provider.origin or f"{provider.litellm}:",
        operator=provider.trust != "person",
        command=provider.key_command or None,
        file=provider.key_file,
    )


def provider_of(
    manifest: Manifest, environ: Mapping[str, str], own_origins: Collection[str]
) -> tuple[Provider, list[str]]:
    """The provider and notes about variables that were not used, each a sentence for `doctor`; no value is in them."""
    notes: list[str] = []
    base_url, source = _from_environment(manifest, environ, own_origins, notes)
    if base_url and manifest.key_env and address.is_plain_and_remote(base_url):
        notes.append(f"{manifest.name}: its address ({source.where}) is http://, so keys and prompts travel in clear.")
    facts = msgspec.structs.asdict(manifest)
    facts |= {
        "base_url": base_url,
        "base_url_source": source,
        "credentials": next((name for name in manifest.credentials_env if environ.get(name, "").strip()), None),
        "litellm": manifest.litellm or manifest.wire,
        "models": _with_named_model(manifest, environ, notes),
    }
    return Provider(**facts), notes


def _from_environment(
    manifest: Manifest, environ: Mapping[str, str], own_origins: Collection[str], notes: list[str]
) -> tuple[str | None, Source]:
    for variable in manifest.base_url_env:
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            found = address.from_variable(text, manifest.base_url)
        except ValueError as exc:
            notes.append(f"{variable} {exc}; it is ignored for {manifest.name}.")
            continue
        if address.is_one_of(found, own_origins):
            notes.append(f"{variable} is this agent itself; it is ignored for {manifest.name}.")
            continue
        if manifest.base_path:
            found = address.completed(found, manifest.base_path, manifest.base_path_when)
        return found, Source("environment", variable)
    if manifest.base_url is None:
        return None, Source("none", "nowhere")
    if address.is_one_of(manifest.base_url, own_origins):
        notes.append(f"{manifest.place}: the address of {manifest.name} is this agent itself; it is not used.")
        return None, Source("none", manifest.place)
    return manifest.base_url, Source("default" if manifest.trust == "shipped" else "file", manifest.place)


def _with_named_model(manifest: Manifest, environ: Mapping[str, str], notes: list[str]) -> tuple[Model, ...]:
    """A model that a variable names comes first and takes every role of text: some servers' models nobody can list."""
    for variable in manifest.model_env:
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            name = model_name(text)
        except ValueError as exc:
            notes.append(f"{variable} {exc}; it is ignored for {manifest.name}.")
            continue
        known = next((model for model in manifest.models if name in (model.name, *model.aliases)), Model(name))
        rest = tuple(model for model in manifest.models if model is not known)
        return msgspec.structs.replace(known, roles=("chat", "inline", "fast")), *rest
    return manifest.models
