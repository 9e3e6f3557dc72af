"""Why an answer is what it is: one record a request, the last 500 kept in memory.

Decisions
1. A request's id is the caller's to choose, so two records may have the same one: both are kept, and the newer one is found.
2. Of what a provider said only short things are kept: 500 records of its megabytes would be more than all the rest of the agent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

KEPT = 500
USAGE_BYTES = 4096
CacheDecision = Literal["bypass", "miss", "hit", "join", "replay", "typed-through"]
Outcome = Literal["running", "complete", "error", "cancelled"]


@dataclass(slots=True)
class AttemptRecord:
    """One try of one target. Times are milliseconds since the request came in."""

    target: str
    key: str | None
    started_ms: float
    ended_ms: float | None = None
    status: int | None = None
    code: str | None = None
    waited_ms: float = 0.0
    note: str | None = None
    provider_request_id: str | None = None


@dataclass(slots=True)
class Record:
    """One request's story. ``clock`` gives seconds, monotonic; ``arrived_at`` those since 1970 in UTC; ``ended`` is called once."""

    id: str
    kind: str
    asked: str
    stream: bool
    arrived_at: float
    clock: Callable[[], float] = field(repr=False)
    started: float = 0.0
    role: str | None = None
    target: str | None = None
    outcome: Outcome = "running"
    status: int | None = None
    code: str | None = None
    message: str | None = None
    fallback_cause: str | None = None
    cache: CacheDecision = "bypass"
    age_s: int | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ttft_ms: float | None = None
    total_ms: float | None = None
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    client_retries: int | None = None
    ended: Callable[[Record], None] | None = field(default=None, repr=False)

    def now_ms(self) -> float:
        return (self.clock() - self.started) * 1000

    def begin(self, target: str, key: str | None) -> AttemptRecord:
        attempt = AttemptRecord(target, key, self.now_ms())
        self.attempts.append(attempt)
        return attempt

    def told(self, finish: str | None, usage: Mapping[str, Any] | None) -> None:
        """What the provider said at the end, unless it is longer than anything of the kind."""
        self.finish = finish[:64] if finish is not None else None
        self.usage = usage if usage is None or len(msgspec.json.encode(usage)) <= USAGE_BYTES else None

    def settle(self) -> None:
        """The first content, or the whole plain answer, is there."""
        if self.ttft_ms is None:
            self.ttft_ms = self.now_ms()

    def end(
        self, outcome: Outcome, status: int | None = None, code: str | None = None, message: str | None = None
    ) -> None:
        if self.outcome == "running":
            self.outcome, self.status, self.code, self.message = outcome, status, code, message
            self.total_ms = self.now_ms()
            if self.ended is not None:
                self.ended(self)

    @property
    def overhead_ms(self) -> float | None:
        """What is ours of the time to the first token: all of it but the attempts and the waits between them."""
        if self.ttft_ms is None:
            return None
        theirs = sum(
            min(one.ended_ms if one.ended_ms is not None else self.ttft_ms, self.ttft_ms)
            - one.started_ms
            + one.waited_ms
            for one in self.attempts
            if one.started_ms <= self.ttft_ms
        )
        return max(0.0, self.ttft_ms - theirs)

    def as_dict(self) -> dict[str, Any]:
        """For ``GET /v1/requests/{id}``: names as in the fields, times rounded to microseconds, None where unknown."""
        return {
            "id": self.id,
            "kind": self.kind,
            "asked": self.asked,
            "role": self.role,
            "target": self.target,
            "stream": self.stream,
            "arrived_at": _iso(self.arrived_at),
            "outcome": self.outcome,
            "status": self.status,
            "code": self.code,
            "message": self.message,
            "fallback_cause": self.fallback_cause,
            "cache": self.cache,
            "age_s": self.age_s,
            "attempts": [_attempt_dict(one) for one in self.attempts],
            "notes": list(self.notes),
            "ttft_ms": _rounded(self.ttft_ms),
            "total_ms": _rounded(self.total_ms),
            "overhead_ms": _rounded(self.overhead_ms),
            "finish": self.finish,
            "usage": self.usage,
            "client_retries": self.client_retries,
        }

    def cache_status(self) -> str:
        """The Cache-Status header (RFC 9211)."""
        told = {
            "hit": "hit",
            "miss": "fwd=uri-miss",
            "join": "fwd=uri-miss; collapsed",
            "replay": "hit; detail=idempotency-key",
            "typed-through": "hit; detail=typed-through",
            "bypass": "fwd=bypass",
        }
        return f"calliope-agent; {told[self.cache]}"

    def server_timing(self) -> str:
        """The Server-Timing header (W3C): our own share and each attempt, in milliseconds."""
        parts = [f"total;dur={self.now_ms():.2f}"]
        if self.overhead_ms is not None:
            parts.append(f"overhead;dur={self.overhead_ms:.2f}")
        for number, one in enumerate(self.attempts, 1):
            end = one.ended_ms if one.ended_ms is not None else self.now_ms()
            parts.append(f"attempt{number};dur={end - one.started_ms:.2f}")
        return ", ".join(parts)


class Records:
    """The last `KEPT` records, newest last."""

    def __init__(self, kept: int = KEPT) -> None:
        self._records: deque[Record] = deque(maxlen=kept)

    def add(self, record: Record) -> None:
        self._records.append(record)

    def get(self, identifier: str) -> Record | None:
        """The newest of that id."""
        return next((record for record in reversed(self._records) if record.id == identifier), None)

    def newest(self, count: int = KEPT) -> list[Record]:
        """Newest first."""
        return list(reversed(self._records))[:count]


def _attempt_dict(one: AttemptRecord) -> dict[str, Any]:
    return {
        "target": one.target,
        "key": one.key,
        "started_ms": _rounded(one.started_ms),
        "ended_ms": _rounded(one.ended_ms),
        "status": one.status,
        "code": one.code,
        "waited_ms": _rounded(one.waited_ms),
        "note": one.note,
        "provider_request_id": one.provider_request_id,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
