"""The rules of trimming for one place: what stands around the cursor, and how far a suggestion may go."""

from __future__ import annotations

from dataclasses import dataclass

from calliope_agent.inline.place import Place
from calliope_agent.inline.request import Mode

PAIRS = {"(": ")", "[": "]", "{": "}"}
CLOSERS = frozenset(PAIRS.values())
QUOTES = frozenset("\"'`")
COMMENTS = ("#", "//", "*", "/*", "--")
SIGNIFICANT = 4


@dataclass(frozen=True, slots=True)
class Rules:
    """``rest`` is what stands right of the cursor on its line, ``below`` the first line after it that is not blank.

    ``multi`` allows further lines, ``max_lines`` bounds the lines with content, ``scoped`` ends at the block's end.
    """

    line_before: str = ""
    rest: str = ""
    below: str = ""
    multi: bool = True
    max_lines: int = 3
    scoped: bool = True
    stops: tuple[str, ...] = ()

    @property
    def own_closers(self) -> int:
        """How many brackets the line left open that the rest of the line does not close."""
        return max(0, open_brackets(self.line_before)[0] - open_brackets(self.rest)[1])

    @property
    def in_string(self) -> bool:
        """The cursor stands in a string that the rest of the line closes."""
        return self.rest[:1] in QUOTES and self.line_before.count(self.rest[:1]) % 2 == 1

    @property
    def rest_is_significant(self) -> bool:
        return len(self.rest.strip()) >= SIGNIFICANT

    @property
    def rest_is_mark(self) -> bool:
        """A short rest without brackets to balance or quotes to pair, such as ``;`` or ``,``."""
        return bool(self.rest.strip()) and not self.rest_is_significant and not (CLOSERS | QUOTES) & set(self.rest)


def rules_of(place: Place, mode: Mode, max_lines: int, stops: tuple[str, ...], *, scoped: bool = True) -> Rules:
    """The rules at ``place``. Several lines only where nothing, or closing brackets and marks, stand right of the
    cursor.
    """
    rest, _, following = place.after.partition("\n")
    below = next((line.rstrip() for line in following.split("\n") if line.strip()), "")
    closes = rest.lstrip()[:1] in CLOSERS and not any(char.isalnum() for char in rest)
    multi = mode != "single" and (closes or not rest.strip())
    return Rules(place.line_before, rest.rstrip(), below, multi, max_lines, scoped, stops)


def open_brackets(text: str) -> tuple[int, int]:
    """How many brackets ``text`` leaves open, and how many it closes that it did not open.

    Brackets inside strings count too: telling strings apart needs the language's grammar, and a wrong guess there
    costs one bracket of one suggestion.
    """
    opened = closed = 0
    for char in text:
        if char in PAIRS:
            opened += 1
        elif char in CLOSERS and opened:
            opened -= 1
        elif char in CLOSERS:
            closed += 1
    return opened, closed


def is_escaped(before: str) -> bool:
    """A quote after ``before`` is escaped: an odd number of backslashes stands there."""
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def indent_of(line: str) -> str:
    """The white space at the line's start."""
    return line[: len(line) - len(line.lstrip())]


def width(indent: str) -> int:
    """Columns, a tab being four."""
    return len(indent.expandtabs(4))


def is_header(line: str) -> bool:
    """The line opens a block, so that what follows stands deeper."""
    text = line.strip()
    return text.endswith((":", "{", "[", "(")) and not text.startswith(COMMENTS)
