"""A key that a person stored, as keyring and encrypted file hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calliope_agent.secret import Secret


@dataclass(frozen=True, slots=True)
class Stored:
    """``origin`` is the only place it may be sent to; ``set_at`` (seconds since 1970) decides between two backends."""

    provider: str
    origin: str
    value: Secret
    set_at: float

    def plain(self) -> dict[str, Any]:
        """For a backend that keeps it closed; nowhere else."""
        return {"origin": self.origin, "value": self.value.reveal(), "set_at": self.set_at}


def stored_of(provider: str, data: object) -> Stored | None:
    """None when it is not of that shape (somebody else's entry under our name)."""
    if not isinstance(data, Mapping):
        return None
    origin, value, set_at = data.get("origin"), data.get("value"), data.get("set_at")
    if not (isinstance(origin, str) and isinstance(value, str) and value and isinstance(set_at, int | float)):
        return None
    return Stored(provider, origin, Secret(value), float(set_at))
