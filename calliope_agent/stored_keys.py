"""The key store, asked by target: what the line of a request wants to know of it."""

from __future__ import annotations

from calliope_agent.catalog import Target
from calliope_agent.keys import Key, KeyStore
from calliope_agent.provider import need_of


class StoredKeys:
    """See `completion.line.TargetKeys`."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def find(self, target: Target) -> Key | None:
        """Raises `KeyMissing`, with every reason, where the provider needs a key and there is none."""
        need = need_of(target.provider)
        key = await self._store.find(need)
        if key is None and target.provider.key_required and not target.provider.credentials:
            return await self._store.require(need)
        return key

    def rejected(self, target: Target) -> None:
        self._store.rejected(need_of(target.provider))
