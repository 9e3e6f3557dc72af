"""The ways to all providers: the doors, opened when they are first needed, and the embedded models behind one of them."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from calliope_agent import errors
from calliope_agent.catalog import Target
from calliope_agent.upstream.attempt import Attempt, Call, Door
from calliope_agent.upstream.local_models import LocalModels
from calliope_agent.upstream.place import Place

if TYPE_CHECKING:
    from calliope_agent.upstream.doors import Doors


class Ways:
    """``scrub`` is the redaction boundary, ``hop`` the word by which this process knows its own requests."""

    def __init__(self, environ: Mapping[str, str], local: LocalModels, scrub: Callable[[str], str], hop: str) -> None:
        self.local = local
        self._environ = environ
        self._scrub = scrub
        self._hop = hop
        self._doors: Doors | None = None

    @property
    def doors(self) -> Doors:
        """There from the first `open` on."""
        if self._doors is None:
            raise RuntimeError("open() comes first")
        return self._doors

    async def open(self) -> None:
        """Once; see `doors`, Decisions 1."""
        if self._doors is None:
            doors = await asyncio.to_thread(importlib.import_module, "calliope_agent.upstream.doors")
            self._doors = doors.open_doors(self._environ, self._place, self._scrub, self._hop)

    def door_for(self, call: Call, target: Target) -> Door:
        """The provider's own wire where it is the call's and the provider offers the kind, else litellm's translation."""
        provider = target.provider
        native = provider.wire == call.wire and (call.kind == "fim" or call.kind in provider.offers)
        return self.doors.of(provider.wire if native else "litellm")

    async def close(self) -> None:
        await self.local.stop()
        if self._doors is not None:
            await self._doors.close()

    async def _place(self, attempt: Attempt) -> Place:
        provider = attempt.target.provider
        if provider.embedded:
            address = await self.local.start(attempt.target.model.name)
            return Place(address.base_url, address.unix_socket, address.api_key)
        if provider.base_url is None and provider.wire != "litellm":
            raise errors.Unreachable(f"{provider.title} {provider.missing}.")
        return Place(provider.base_url or "")
