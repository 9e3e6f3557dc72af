"""What files, environment and keys say at this moment: the settings, the catalog and the router made of both.

Decisions
1. What is broken keeps its last good state and is logged once.
2. A key's presence is a snapshot per look, since roles are chosen without waiting; the key itself is looked up per attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from calliope_agent import catalog as catalogs
from calliope_agent import errors, settings, tomlfile
from calliope_agent.catalog import Catalog, Sources
from calliope_agent.completion.route import Router
from calliope_agent.keys import KeyStore
from calliope_agent.model import Prices
from calliope_agent.paths import Paths
from calliope_agent.provider import need_of
from calliope_agent.settings import Loaded

log = logging.getLogger(__name__)


class Configuration:
    """``catalog`` and ``router`` are there from the first `look` on. ``own_origins`` are the agent's addresses, no provider's."""

    catalog: Catalog
    router: Router

    def __init__(
        self, environ: Mapping[str, str], loaded: Loaded, paths: Paths, keys: KeyStore, own_origins: tuple[str, ...]
    ) -> None:
        self.loaded = loaded
        self.own_origins = own_origins
        self._environ = environ
        self._keys = keys
        self._file = paths.config_file
        self._sources = Sources(
            shipped=catalogs.shipped_dir(),
            operator=loaded.settings.providers_dir,
            person=paths.config / "providers.d",
            config=paths.config_file,
        )
        self._stamp: object = None
        self._present: dict[str, bool] = {}

    async def look(self) -> set[str]:
        """Read again what has changed; the providers whose key came or went."""
        stamp = await asyncio.to_thread(catalogs.stamp, self._sources)
        if stamp != self._stamp:
            await asyncio.to_thread(self._reload)
            self._stamp = stamp
        present = {
            provider.name: await self._keys.find(need_of(provider)) is not None for provider in self.catalog.providers
        }
        before, self._present = self._present, present
        if present != before or not hasattr(self, "router") or self.router.catalog is not self.catalog:
            self.router = Router(self.catalog, self.loaded.settings, lambda name: present.get(name, False))
        return {name for name, there in present.items() if before.get(name, there) != there}

    def prices(self, target: str) -> Prices | None:
        """What ``provider/model`` costs, where its provider's file says so."""
        name, _, model = target.partition("/")
        provider = self.catalog.provider(name)
        known = provider.models if provider is not None else ()
        return next((one.prices for one in known if model in (one.name, *one.aliases)), None)

    def _reload(self) -> None:
        """config.toml and every provider's file."""
        try:
            file = tomlfile.read_if_there(self._file)
            self.loaded = settings.load(self._environ, file, self.loaded.flags)
        except errors.ConfigError as exc:
            log.warning("%s", exc.message)
        known = set(self.catalog.problems) if hasattr(self, "catalog") else set()
        previous = self.catalog if hasattr(self, "catalog") else None
        environ = {**self._environ, **_named_local_model(self.loaded)}
        self.catalog = catalogs.load(self._sources, environ, own_origins=self.own_origins, previous=previous)
        for problem in (*self.loaded.problems, *self.catalog.problems):
            if problem not in known:
                log.warning("%s", problem)


def _named_local_model(loaded: Loaded) -> dict[str, str]:
    """A local model chosen in config.toml counts for the catalog like the variable, which is all that it reads."""
    chosen = loaded.origins["local_model"].kind != "default"
    return {"CALLIOPE_LOCAL_MODEL": loaded.settings.local_model} if chosen else {}
