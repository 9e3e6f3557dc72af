"""The agent put together: settings, catalog, keys, doors and the line, and what changes of them while it runs.

Decisions
1. Files are looked at when a request comes, at most twice a second: a change counts for the next request, and an idle agent does
   nothing. Running requests keep the catalog they began with.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from calliope_agent import errors
from calliope_agent.catalog import Catalog, Target
from calliope_agent.completion.breaker import Breaker
from calliope_agent.completion.cache import Cache, open_cache
from calliope_agent.completion.dispatch import Dispatch
from calliope_agent.completion.flight import Flight
from calliope_agent.completion.flights import Flights
from calliope_agent.completion.keeper import Keeper
from calliope_agent.completion.ledger import Ledger
from calliope_agent.completion.ledgerfile import LedgerFile
from calliope_agent.completion.line import Clockwork, Line, limits_of
from calliope_agent.completion.metrics import Metrics
from calliope_agent.completion.reader import Reader
from calliope_agent.completion.record import Record, Records
from calliope_agent.completion.route import Router
from calliope_agent.completion.wishes import Wishes
from calliope_agent.configuration import Configuration
from calliope_agent.inline.ask import Asker
from calliope_agent.inline.lane import Lane
from calliope_agent.keys import Key, KeyStore, UserKeys
from calliope_agent.paths import Paths
from calliope_agent.provider import Provider, need_of
from calliope_agent.redact import Redactor
from calliope_agent.settings import Loaded, Settings
from calliope_agent.stored_keys import StoredKeys
from calliope_agent.upstream import check as checks
from calliope_agent.upstream.attempt import Attempt, Call, Seen
from calliope_agent.upstream.check import Verdict
from calliope_agent.upstream.local_models import LocalModels
from calliope_agent.upstream.ways import Ways

if TYPE_CHECKING:
    from calliope_agent.upstream.doors import Doors

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.5


class Agent:
    """One process's agent. ``own_origins`` are the addresses it serves, which are no provider's."""

    def __init__(
        self,
        environ: Mapping[str, str],
        loaded: Loaded,
        paths: Paths,
        *,
        own_origins: tuple[str, ...] = (),
    ) -> None:
        self.environ = environ
        self.paths = paths
        self.hop = secrets.token_hex(8)
        self.redactor = Redactor()
        for secret in (loaded.settings.agent_token, loaded.settings.manage_token, loaded.settings.metrics_token):
            if secret is not None:
                self.redactor.add(secret)
        self.keys = KeyStore(
            environ, paths.config, _policy(loaded.settings), loaded.settings.keys_passphrase, self.redactor
        )
        self.records = Records()
        self.configuration = Configuration(environ, loaded, paths, self.keys, own_origins)
        self.ledger = Ledger(lambda: datetime.now(UTC), self.configuration.prices)
        self._ledger_file = LedgerFile(self.ledger, paths.state / "ledger")
        self.metrics = Metrics()
        self.flights = Flights(loaded.settings.resume_grace_s)
        self.stopping = False
        local = LocalModels(loaded.settings.local_model, paths.data, paths.runtime, environ)
        self.ways = Ways(environ, local, self.redactor.scrub, self.hop)
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self.breaker = Breaker(self._now)
        self.keeper = Keeper(_cache(loaded.settings, paths), time.time)
        clockwork = Clockwork(self._now, asyncio.sleep, random.random)
        keys = StoredKeys(self.keys)
        self.line = Line(self.ways.door_for, keys, self._landed, self.breaker, clockwork)
        self.dispatch = Dispatch(self.line, self.flights, self.keeper, keys, lambda: self.settings)
        self.lane = Lane(Asker(self.fly, self._inline_target), clock=self._now, sleep=asyncio.sleep)
        self._followed = loaded.settings
        self._looked_at = float("-inf")
        self._refreshing = asyncio.Lock()

    @property
    def loaded(self) -> Loaded:
        return self.configuration.loaded

    @property
    def settings(self) -> Settings:
        return self.configuration.loaded.settings

    @property
    def catalog(self) -> Catalog:
        """There from the first `refresh` on, like the next two."""
        return self.configuration.catalog

    @property
    def router(self) -> Router:
        return self.configuration.router

    @property
    def doors(self) -> Doors:
        return self.ways.doors

    @property
    def local(self) -> LocalModels:
        return self.ways.local

    @property
    def own_origins(self) -> tuple[str, ...]:
        return self.configuration.own_origins

    async def refresh(self, *, now: bool = False) -> Router:
        """The router of this moment: files and keys looked at again when half a second is over, or ``now``."""
        if not now and self._now() - self._looked_at < LOOK_AGAIN_S:
            return self.router
        async with self._refreshing:
            if now or self._now() - self._looked_at >= LOOK_AGAIN_S:
                await self._refresh()
                self._looked_at = self._now()
        return self.router

    async def fly(self, call: Call, asked: str | None, wishes: Wishes, *, client_retries: int | None = None) -> Reader:
        """Route the call and have it served. Raises what the route raises, `ServerStopping` while draining."""
        if self.stopping:
            raise errors.ServerStopping("The agent is stopping. Ask again in a moment.", headers={"retry-after": "1"})
        router = await self.refresh()
        record = self.note(call.kind, call, asked or "")
        record.client_retries = client_retries
        try:
            plan = router.plan(asked, call.kind)
            record.role, record.asked = plan.role, plan.asked
            return await self.dispatch.serve(call, plan, wishes, record, router)
        except errors.AgentError as exc:
            record.end("error", exc.status, exc.code, exc.message)
            raise

    def note(self, kind: str, call: Call, asked: str) -> Record:
        """A new record of this moment, kept among the last ones."""
        clock = time.perf_counter  # uvloop's own clock ticks in milliseconds
        record = Record(call.id, kind, asked, call.stream, time.time(), clock, clock())
        record.ended = self._ended
        self.records.add(record)
        return record

    async def check(self, provider: Provider) -> Verdict:
        """Ask the provider now, whatever was known of it before. See `check.check`."""
        router = await self.refresh(now=True)
        target = checks.tested(provider)
        self.keys.rejected(need_of(provider))
        try:
            key = await StoredKeys(self.keys).find(target)
        except errors.KeyMissing as exc:
            return Verdict("no_key", exc.message)
        call = checks.question(f"check_{secrets.token_hex(8)}", target)
        attempt = Attempt(call, target, key.value if key else None, limits_of(target, router.settings))
        return await checks.check(attempt, self.doors.native[attempt.call.wire], self.ways.door_for)

    def changed(self, provider: str) -> None:
        """Forget what was learnt about a provider whose key or address is another one now."""
        self.breaker.forget(provider)
        self.lane.forget()

    async def stop(self, drain_s: float) -> None:
        """Take no new work, let streams finish for ``drain_s`` seconds, then end them with `ServerStopping`."""
        self.stopping = True
        deadline = self._now() + drain_s
        while len(self.flights) and self._now() < deadline:
            landing = [asyncio.ensure_future(one.gone()) for one in self.flights.running]
            await asyncio.wait(landing, timeout=deadline - self._now())
        for flight in self.flights.running:
            flight.stop(errors.ServerStopping("The agent was stopped before the answer was whole. Ask again."))

    async def close(self) -> None:
        await self.lane.aclose()
        await self.ways.close()
        await self.keeper.close()
        await self._ledger_file.close()

    async def _refresh(self) -> None:
        await self.ways.open()
        await self._ledger_file.load()
        changed = await self.configuration.look()
        if self._followed is not self.settings:
            before, self._followed = self._followed, self.settings
            await self._follow(before)
        for name in changed:
            self.changed(name)

    def _inline_target(self) -> str | None:
        target = self.router.roles().get("inline")
        return target.name if target is not None else None

    def _ended(self, record: Record) -> None:
        """Counted in the loop's next turn: the caller's answer goes first."""
        asyncio.get_running_loop().call_soon(self._count, record)

    def _count(self, record: Record) -> None:
        self.metrics.ended(record)
        if record.kind != "inline":  # a suggestion spends nothing itself: the call it made has a record of its own
            self.ledger.ended(record)
            self._ledger_file.changed()

    async def _follow(self, before: Settings) -> None:
        """What was built from settings that are now others is built anew."""
        kept = (self.settings.cache, self.settings.cache_max_mb, self.settings.store_content)
        if kept != (before.cache, before.cache_max_mb, before.store_content):
            old, self.keeper.cache = self.keeper.cache, _cache(self.settings, self.paths)
            await old.close()
        if self.settings.log_level != before.log_level:
            logging.getLogger().setLevel(self.settings.log_level)

    def _landed(self, flight: Flight, target: Target, key: Key | None, seen: Seen) -> None:
        self.dispatch.keep(flight, target, key, seen)


def _cache(given: Settings, paths: Paths) -> Cache:
    return open_cache(
        given.cache, paths.state / "cache", given.cache_max_mb * 1_000_000, store_content=given.store_content
    )


def _policy(given: Settings) -> UserKeys:
    return cast("UserKeys", given.user_keys)  # `parse.one_of` allows exactly these words
