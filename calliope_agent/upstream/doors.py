"""All doors of a process, opened together.

Decisions
1. Whoever starts the agent imports this module in a thread, behind the first /health: nobody needs a door before the first request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from calliope_agent.upstream.attempt import Door, Wire
from calliope_agent.upstream.client import Client
from calliope_agent.upstream.litellm_door import LitellmDoor
from calliope_agent.upstream.native import NativeDoor
from calliope_agent.upstream.place import Places

WIRES: tuple[Wire, ...] = ("openai", "anthropic")


@dataclass(frozen=True, slots=True)
class Doors:
    """``native`` by wire's name; ``litellm`` for everything that they cannot take."""

    native: Mapping[str, NativeDoor]
    litellm: LitellmDoor

    def of(self, wire: str) -> Door:
        return self.native.get(wire) or self.litellm

    async def close(self) -> None:
        doors: tuple[Door, ...] = (*self.native.values(), self.litellm)
        for door in doors:
            await door.close()


def open_doors(environ: Mapping[str, str], places: Places, scrub: Callable[[str], str], hop: str) -> Doors:
    """``scrub`` is the redaction boundary, ``hop`` the word by which this process knows its own requests."""
    client = Client(environ)
    native: dict[str, NativeDoor] = {wire: NativeDoor(wire, client, places, scrub, hop) for wire in WIRES}
    return Doors(native, LitellmDoor(places, scrub, native))
