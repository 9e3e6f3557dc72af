"""What of the answers is kept, and when a kept one may be given again.

Decisions
1. With CALLIOPE_CACHE=on only what the caller asked to be the same every time is kept: temperature 0, embeddings, token counts.
   An absent temperature is the provider's default, which is above 0.
2. An answer is kept under the target that gave it: a fallback's answer is not the first target's.
3. Kept are verified answers with content and whole tool arguments; never errors, cuts, and what a provider could not verify.
4. Writing happens after the answer, in the background: nobody waits for a disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from calliope_agent.catalog import Target
from calliope_agent.completion import entry as entries
from calliope_agent.completion import reshape
from calliope_agent.completion.cache import Cache
from calliope_agent.completion.cachekey import Place, key_of
from calliope_agent.completion.entry import Entry
from calliope_agent.completion.flight import Flight
from calliope_agent.completion.wishes import Wishes
from calliope_agent.keys import Key
from calliope_agent.settings import Settings
from calliope_agent.upstream.attempt import Call, Plain, Seen

log = logging.getLogger(__name__)

ALWAYS_SAME = frozenset({"embeddings", "count_tokens"})
REFUSALS = frozenset({"content_filter", "refusal"})


@dataclass(slots=True)
class Keeper:
    """``now`` is seconds since 1970."""

    cache: Cache
    now: Callable[[], float]
    writing: set[asyncio.Task[None]] = field(default_factory=set)

    def may_keep(self, call: Call, wishes: Wishes, settings: Settings) -> bool:
        """Whether this call's answer may be kept, or be one answer with another call's."""
        return not wishes.no_store and _is_cacheable(call, settings)

    def key(self, call: Call, target: Target, key: Key | None) -> bytes | None:
        """The cache's key at this target of a call that `may_keep` allows; None where the call has no canonical form."""
        provider = target.provider
        identity = key.identity if key is not None else ""
        place = Place(call.kind, call.wire, provider.name, provider.base_url, target.model.name, identity)
        return key_of(place, call.body, call.headers)

    async def find(self, key: bytes, call: Call, wishes: Wishes) -> Entry | None:
        """A kept answer that fits the call's form and the caller's directives."""
        if wishes.no_cache:
            return None
        raw = await self.cache.get(key)
        entry = entries.decode(raw) if raw is not None else None
        if entry is None or (wishes.max_age_s is not None and self.now() - entry.stored_at > wishes.max_age_s):
            return None
        return reshape.fitted(entry, call)

    def age_s(self, entry: Entry) -> int:
        return max(0, int(self.now() - entry.stored_at))

    def keep(self, key: bytes, flight: Flight, target: Target, seen: Seen, ttl_s: float) -> None:
        """Keep a landed flight's answer, in the background, if it deserves it."""
        if not _deserves(target, seen) or not flight.log.whole:
            return
        entry = self._entry(flight, target, seen)
        if entry is not None:
            task = asyncio.get_running_loop().create_task(self.cache.put(key, entries.encode(entry), ttl_s))
            self.writing.add(task)
            task.add_done_callback(self.writing.discard)

    async def close(self) -> None:
        if self.writing:
            await asyncio.wait(self.writing, timeout=1)
        await self.cache.close()

    def _entry(self, flight: Flight, target: Target, seen: Seen) -> Entry | None:
        plain, frames = flight.plain, tuple(flight.log.frames())
        if plain is None and not frames:
            return None
        return Entry(
            wire=flight.call.wire,
            kind="stream" if plain is None else "plain",
            target=target.name,
            stored_at=self.now(),
            frames=() if plain is not None else frames,
            body=plain.body if plain is not None else None,
            content_type=plain.content_type if plain is not None else "",
            finish=seen.finish,
            usage=seen.usage,
            model=seen.model,
        )


def plain_of(entry: Entry) -> Plain | None:
    return Plain(entry.body, entry.content_type) if entry.body is not None else None


def _is_cacheable(call: Call, settings: Settings) -> bool:
    if settings.cache == "off":
        return False
    if call.kind in ALWAYS_SAME or settings.cache == "all":
        return True
    raw = call.body.get("temperature")
    return raw is not None and _is_zero(raw)


def _is_zero(raw: msgspec.Raw) -> bool:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return False  # the provider tells what is wrong with it
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def _deserves(target: Target, seen: Seen) -> bool:
    verified = seen.finish is not None and target.provider.verifies_finish
    return verified and seen.has_content and not seen.arguments_incomplete and seen.finish not in REFUSALS
