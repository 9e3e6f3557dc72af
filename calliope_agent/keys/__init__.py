"""Keys of providers: where they come from, whom they may go to, where a person's own are kept."""

from calliope_agent.keys.need import Key, KeyNeed
from calliope_agent.keys.source import Provenance
from calliope_agent.keys.store import KeyStore, StoreReport, UserKeys

__all__ = ["Key", "KeyNeed", "KeyStore", "Provenance", "StoreReport", "UserKeys"]
