"""Counters and one histogram of this process, in Prometheus' text format (version 0.0.4).

Decisions
1. Written here, forty lines: the client library would be a dependency and a registry of globals for five series.
2. Labels come from closed sets, but targets: a caller may name any model, so beyond `MAX_TARGETS` they are counted together.
3. No label ever holds a key, a key's label or a caller's text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from calliope_agent.completion.record import Record

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MAX_TARGETS = 200
OTHER = "(others)"
Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Metrics:
    """Fed by every record that ends."""

    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    buckets: Counter[float] = field(default_factory=Counter)
    ttft_sum_s: float = 0.0
    ttft_count: int = 0
    _targets: set[str] = field(default_factory=set)

    def ended(self, record: Record) -> None:
        """Count one request that has come to its end."""
        self.requests[record.kind, record.outcome, record.cache] += 1
        for attempt in record.attempts:
            self.attempts[self._target(attempt.target), attempt.code or "ok"] += 1
        if record.ttft_ms is not None and record.outcome == "complete":
            seconds = record.ttft_ms / 1000
            self.ttft_sum_s += seconds
            self.ttft_count += 1
            self.buckets[next((bound for bound in BUCKETS_S if seconds <= bound), float("inf"))] += 1

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Every series; ``gauges`` maps further names to their help and value of this moment."""
        lines = _series(
            "calliope_requests_total",
            "counter",
            "Requests that came to their end.",
            (
                ((("kind", kind), ("outcome", outcome), ("cache", cache)), count)
                for (kind, outcome, cache), count in self.requests.items()
            ),
        )
        lines += _series(
            "calliope_attempts_total",
            "counter",
            "Attempts at providers by how they ended.",
            (((("target", target), ("code", code)), count) for (target, code), count in self.attempts.items()),
        )
        lines += self._histogram("calliope_ttft_seconds")
        for name, (text, value) in gauges.items():
            lines += _series(name, "counter" if name.endswith("_total") else "gauge", text, [((), value)])
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        lines = [f"# HELP {name} Time to the first content, in seconds.", f"# TYPE {name} histogram"]
        below = 0
        for bound in BUCKETS_S:
            below += self.buckets[bound]
            lines.append(_line(f"{name}_bucket", (("le", f"{bound:g}"),), below))
        lines.append(_line(f"{name}_bucket", (("le", "+Inf"),), self.ttft_count))
        return [
            *lines,
            _line(f"{name}_sum", (), round(self.ttft_sum_s, 6)),
            _line(f"{name}_count", (), self.ttft_count),
        ]

    def _target(self, name: str) -> str:
        if name not in self._targets and len(self._targets) >= MAX_TARGETS:
            return OTHER
        self._targets.add(name)
        return name


def _series(name: str, kind: str, text: str, rows: Iterable[tuple[Labels, float]]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(_line(name, labels, value) for labels, value in rows)]


def _line(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{inner}}} {value:g}" if inner else f"{name} {value!r}"


def _escaped(text: str) -> str:
    """As the format wants it: backslash, quote and line feed."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
