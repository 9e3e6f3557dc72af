"""Where one attempt goes: usually the provider's base URL, for an embedded model the child that has to be started first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from calliope_agent.secret import Secret
from calliope_agent.upstream.attempt import Attempt


@dataclass(frozen=True, slots=True)
class Place:
    """``key`` is set where the place brings its own (a child's), else the attempt's key counts."""

    base_url: str
    unix_socket: str | None = None
    key: Secret | None = None


Places = Callable[[Attempt], Awaitable[Place]]
