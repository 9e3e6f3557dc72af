"""The matrix as a Markdown table, made from the rows that the tests play."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tests.faults.outcomes import Failed, Outcome
from tests.faults.rows import ESSENTIAL, GROUPS, MANY, Case, Row, rows_of
from tests.faults.ways import WAYS, Way

_HEAD = ("the provider", "a stream's caller sees", "a plain caller sees", "with a fallback")
_INTRODUCTION = """\
In parentheses: how often the provider was asked; with "+" the second provider too. An error is a status before anything was sent, or an
error event after what was sent. A plain answer has no events: there the provider does what comes nearest in one body. Where the ways
differ, they are named: {ways};
in the rows with † also {essential}."""


def table() -> str:
    """Every group of rows with its own heading line."""
    ways, essential = (", ".join(way.title for way in WAYS if way.essential is few) for few in (False, True))
    parts = [_INTRODUCTION.format(ways=ways, essential=essential)]
    for name, rows in GROUPS.items():
        lines = [f"| {name}: {_HEAD[0]} | " + " | ".join(_HEAD[1:]) + " |", "| --- | --- | --- | --- |"]
        lines += [_line(row) for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(row: Row) -> str:
    ways = [way for way in WAYS if row in rows_of(way)]
    name = f"{row.name} †" if row.name in ESSENTIAL else row.name
    cells = (name, _told(row.stream, ways), _told(row.plain, ways), _rescued(row))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _told(case: Case, ways: Iterable[Way]) -> str:
    """What most ways give, then each exception by the way's name."""
    common = _shown(case.expected.outcome(fallback=False))
    others = {way.title: _shown(case.expected_on(way).outcome(fallback=False)) for way in ways}
    exceptions = [f"{title}: {told}" for title, told in others.items() if told != common]
    return "; ".join([common, *exceptions])


def _rescued(row: Row) -> str:
    streamed, plain = (_fallback(case) for case in (row.stream, row.plain))
    return streamed if streamed == plain else f"stream: {streamed}; plain: {plain}"


def _fallback(case: Case) -> str:
    outcome = case.expected.outcome(fallback=True)
    if outcome.calls[1]:
        return f"the second answers ({outcome.calls[0]} + 1)"
    return "the same" if isinstance(case.expected, Failed) else "not needed" if outcome.code is None else "the same"


def _shown(outcome: Outcome) -> str:
    long = "x" * MANY
    return str(replace(outcome, said=outcome.said.replace(long, "xxx…")))


def differences(readme: str, marker: str = "faults") -> Iterable[str]:
    """Lines of the table that a README does not have between its markers."""
    opening, closing = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    section = readme.partition(opening)[2].partition(closing)[0]
    return [line for line in table().split("\n") if line and line not in section.split("\n")]
