"""The bench's table: a row per budget of the design, with the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.agent_bench import Figures

PEERS = ("direct", "nginx", "prototype", "agent")


@dataclass(frozen=True, slots=True)
class Row:
    """``value`` is held against ``limit``; both are None where a figure is only told."""

    what: str
    figures: Mapping[str, float]
    budget: str = "-"
    value: float | None = None
    limit: float | None = None

    @property
    def verdict(self) -> str:
        if self.value is None or self.limit is None:
            return "-"
        return "pass" if self.value < self.limit else f"over by {(self.value / self.limit - 1) * 100:.0f} %"


def rows(found: Figures) -> list[Row]:
    """Budgets that need nginx are left open where it was not measured."""
    added_p50 = found.plain_p50_ms["agent"] - found.plain_p50_ms["direct"]
    added_p99 = found.plain_p99_ms["agent"] - found.plain_p99_ms["direct"]
    added_burst = found.burst_chunk_us["agent"] - found.burst_chunk_us["direct"]
    nginx_8 = found.ttfb_8_ms.get("nginx")
    beside = found.beside_p99_ms["agent"] - found.alone_p99_ms["agent"]
    beside_direct = found.beside_p99_ms["direct"] - found.alone_p99_ms["direct"]
    return [
        Row("process start to /health, s", found.ready_s, "< 0.5", found.ready_s["agent"], 0.5),
        Row("memory, idle, MiB", found.idle_mib, "< 70", found.idle_mib["agent"], 70),
        Row("memory, after 40 streams, MiB", found.after_mib, "< 70", found.after_mib["agent"], 70),
        Row("plain request, p50, ms", found.plain_p50_ms, f"+{added_p50:.2f} < +0.7", added_p50, 0.7),
        Row("plain request, p99, ms", found.plain_p99_ms, f"+{added_p99:.2f}"),
        Row("plain request, asked in turns, p50, ms", found.cold_p50_ms),
        Row("burst, wall per chunk, µs", found.burst_chunk_us, f"+{added_burst:.1f} < +15", added_burst, 15),
        _cpu("CPU per spaced chunk, 1 stream, µs", found.cpu_chunk_us),
        _cpu("CPU per spaced chunk, 8 streams, µs", found.cpu_chunk_8_us),
        Row("first byte, 1 burst, p50, ms", found.ttfb_1_ms),
        Row(
            "first byte, 8 bursts at once, p50, ms",
            found.ttfb_8_ms,
            "<= 2x nginx",
            found.ttfb_8_ms["agent"] if nginx_8 else None,
            2 * nginx_8 if nginx_8 else None,
        ),
        Row("first byte, one alone, p99, ms", found.alone_p99_ms),
        Row(
            "first byte, one beside 8 others, p99, ms",
            found.beside_p99_ms,
            f"+{beside:.1f} (direct +{beside_direct:.1f}) < +5",
            beside - max(0.0, beside_direct),
            5,
        ),
    ]


def _cpu(what: str, figures: Mapping[str, float]) -> Row:
    return Row(what, figures, "<= prototype + 30 %", figures["agent"], figures["prototype"] * 1.3)


def table(found: list[Row]) -> str:
    """Markdown, so that the README holds the very same lines."""
    lines = [
        "| what | " + " | ".join(PEERS) + " | budget | verdict |",
        "|---|" + "---:|" * len(PEERS) + "---|---|",
    ]
    for row in found:
        cells = [_cell(row.figures.get(name)) for name in PEERS]
        lines.append(f"| {row.what} | {' | '.join(cells)} | {row.budget} | {row.verdict} |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
