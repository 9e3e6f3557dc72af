"""Tables for a terminal: columns as wide as their widest cell, foreign text without control characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from calliope_agent.log import one_line


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table, the last column ragged."""
    cells = [[one_line(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
