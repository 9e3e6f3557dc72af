"""Where one key may come from, and what looking there gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from calliope_agent.secret import Secret

State = Literal["used", "shadowed", "unset", "ignored", "broken"]


@dataclass(frozen=True, slots=True)
class Look:
    """One source asked once.

    ``value`` is there only when the source may be used. ``broken`` means that somebody set a key here and it cannot be
    used: no source behind it is asked, because another key than the one that was meant is worse than none. ``note`` is
    a sentence for a person.
    """

    source: str
    value: Secret | None = None
    note: str = ""
    broken: bool = False

    @property
    def decides(self) -> bool:
        return self.value is not None or self.broken


@dataclass(frozen=True, slots=True)
class Provenance:
    """A line of "where does this key come from". ``label`` is the key's short form, never the key."""

    source: str
    state: State
    label: str | None
    note: str


def provenance(looks: list[Look]) -> list[Provenance]:
    """The first look with a value is the one in use, unless a broken one is before it."""
    lines: list[Provenance] = []
    decided = False
    for look in looks:
        state: State
        if look.value is not None:
            state = "shadowed" if decided else "used"
        elif look.broken:
            state = "broken"
        else:
            state = "ignored" if look.note else "unset"
        decided = decided or look.decides
        lines.append(Provenance(look.source, state, look.value.label if look.value else None, look.note))
    return lines
