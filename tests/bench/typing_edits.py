"""A seeded trace of a person filling holes in real files: every edit with its time and the document around the cursor.

Lines are taken out of a real file and typed again, one key at a time: slips and their correction, words taken back and
typed again, pasted lines, jumps to the other hole and back. The editor behaves as usual editors do: it indents new
lines and sets the closing bracket or quote behind the cursor, over which the person then types. Times between keys are
log-normal around 140 ms, longer between words, with pauses at line ends.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PAIRS = {"(": ")", "[": "]", "{": "}"}
DOCUMENT_CHARS = 12_000


@dataclass(frozen=True, slots=True)
class Edit:
    """One keystroke or paste. ``truth`` is what the person means to write at the cursor, none amid a slip."""

    at_s: float
    kind: str
    document: str
    before: str
    after: str
    truth: str | None


@dataclass
class Hole:
    """Text to be typed again; ``closers`` stand behind the cursor, ``closing`` are their places in ``truth``."""

    truth: str
    typed: str = ""
    closers: str = ""
    closing: list[int] = field(default_factory=list)

    @property
    def rest(self) -> str:
        """What is meant next, as far as the editor's closers let it be inserted here."""
        end = self.closing[-1] if self.closing else len(self.truth)
        return self.truth[len(self.typed) : end]

    @property
    def done(self) -> bool:
        return len(self.typed) >= len(self.truth)

    @property
    def line_left(self) -> str:
        return self.truth[len(self.typed) :].partition("\n")[0]


class Typist:
    """Types the holes of one document."""

    def __init__(self, document: str, fixed: list[str], holes: list[str], rng: random.Random) -> None:
        self._document = document
        self._fixed = fixed
        self._holes = [Hole(text) for text in holes]
        self._rng = rng
        self._at = 0
        self.now = 0.0

    def edits(self, start_s: float) -> Iterator[Edit]:
        """All edits until every hole is filled."""
        self.now = start_s
        while any(not hole.done for hole in self._holes):
            if self._hole.done or (self._hole.typed.endswith("\n") and self._rng.random() < 0.08):
                self._jump()
            else:
                yield from self._step()

    @property
    def _hole(self) -> Hole:
        return self._holes[self._at]

    def _jump(self) -> None:
        open_holes = [index for index, hole in enumerate(self._holes) if not hole.done]
        others = [index for index in open_holes if index != self._at] or open_holes
        self._at = self._rng.choice(others)
        self.now += self._rng.uniform(0.8, 3)

    def _step(self) -> Iterator[Edit]:
        hole, chance = self._hole, self._rng.random()
        at_line_start = not hole.typed.rpartition("\n")[2].strip()
        if chance < 0.02:
            yield from self._slip()
        elif chance < 0.025 and hole.typed[-4:].isalnum() and len(hole.typed) > 4:
            yield from self._take_back(4)
        elif at_line_start and chance > 0.96 and not hole.closers and len(hole.line_left) > 8:
            yield self._insert(hole.line_left, "pasted", self._rng.uniform(0.4, 1.5))
        elif hole.truth[len(hole.typed)] == "\n":
            yield from self._enter()
        elif not hole.typed.rpartition("\n")[2] and hole.line_left[0].isspace():
            yield self._insert(hole.line_left[: -len(hole.line_left.lstrip())], "typed", self._pace())
        else:
            yield self._key(hole.truth[len(hole.typed)])

    def _slip(self) -> Iterator[Edit]:
        wrong = "".join(self._rng.choice("aeinorst") for _ in range(self._rng.choice((1, 1, 2))))
        for end in range(1, len(wrong) + 1):
            yield self._edit("typed", self._pace(), extra=wrong[:end], off=True)
        self.now += self._rng.uniform(0.1, 0.5)
        for end in range(len(wrong) - 1, -1, -1):
            yield self._edit("deleted", self._rng.uniform(0.08, 0.18), extra=wrong[:end], off=end > 0)

    def _take_back(self, count: int) -> Iterator[Edit]:
        self.now += self._rng.uniform(0.2, 1)
        for _ in range(count):
            self._hole.typed = self._hole.typed[:-1]
            yield self._edit("deleted", self._rng.uniform(0.08, 0.18))

    def _enter(self) -> Iterator[Edit]:
        """The editor indents as the line before, deeper after a colon; what is too deep is taken back, a stop a key."""
        hole = self._hole
        following = hole.truth[len(hole.typed) + 1 :].partition("\n")[0]
        indent = following[: len(following) - len(following.lstrip())]
        line = (self._fixed[self._at] + hole.typed).rpartition("\n")[2]
        own = line[: len(line) - len(line.lstrip())] + ("    " if line.endswith(":") else "")
        if self._rng.random() < 0.5:
            self.now += self._rng.uniform(0.3, 2)
        if not following.strip():
            yield self._insert("\n" + indent, "typed", self._pace())
            return
        surplus = own[len(indent) :]
        shared = own[: len(indent)]
        hole.typed += "\n" + shared
        yield self._edit("typed", self._pace(), extra=surplus, off=bool(surplus))
        while surplus:
            surplus = surplus[:-4]
            yield self._edit("deleted", self._rng.uniform(0.1, 0.25), extra=surplus, off=bool(surplus))
        if len(shared) < len(indent):
            yield self._insert(indent[len(shared) :], "typed", self._pace())

    def _key(self, char: str) -> Edit:
        hole, index = self._hole, len(self._hole.typed)
        if hole.closing and hole.closing[-1] == index:
            hole.closing.pop()
            hole.closers = hole.closers[1:]
        elif not (hole.closers[:1] in {'"', "'"} and hole.closers):
            self._auto_close(char, index)
        pace = self._pace() * (1.5 if char == " " else 1)
        return self._insert(char, "typed", pace)

    def _auto_close(self, char: str, index: int) -> None:
        hole = self._hole
        line = hole.truth[index:].partition("\n")[0]
        outer = hole.closing[-1] - index if hole.closing else len(line)
        end = _closing(line[:outer])
        next_char = hole.closers[:1] or self._fixed[self._at + 1][:1]
        if end and (not next_char or next_char.isspace() or next_char in ")]}"):
            hole.closing.append(index + end)
            hole.closers = PAIRS.get(char, char) + hole.closers

    def _insert(self, text: str, kind: str, pace: float) -> Edit:
        self._hole.typed += text
        return self._edit(kind, pace)

    def _pace(self) -> float:
        pause = self._rng.uniform(0.8, 4) if self._rng.random() < 0.015 else 0.0
        return self._rng.lognormvariate(-1.966, 0.45) + pause

    def _edit(self, kind: str, pace: float, extra: str = "", *, off: bool = False) -> Edit:
        self.now += pace
        before, after = "", ""
        for index, hole in enumerate(self._holes):
            text = self._fixed[index] + hole.typed
            if index < self._at:
                before += text + hole.closers
            elif index == self._at:
                before += text + extra
                after = hole.closers
            else:
                after += text + hole.closers
            if index >= self._at:
                after += "" if index + 1 < len(self._holes) else self._fixed[-1]
        return Edit(self.now, kind, self._document, before, after, None if off else self._hole.rest)


def _closing(line: str) -> int:
    """Where the bracket or quote that begins ``line`` closes, 0 where it does not or is no such character."""
    first = line[:1]
    if first in {'"', "'"}:
        return 0 if line.startswith(first * 2) else max(0, line.find(first, 1))
    if first not in PAIRS:
        return 0
    depth = 0
    for at, char in enumerate(line):
        depth += (char in PAIRS) - (char in PAIRS.values())
        if not depth:
            return at if char == PAIRS[first] else 0
    return 0


def trace(files: list[Path], seed: int, holes: int = 2, hole_lines: tuple[int, int] = (5, 14)) -> list[Edit]:
    """One person's edits over ``files``, in order of time."""
    rng = random.Random(seed)
    edits: list[Edit] = []
    for path in files:
        fixed, texts = _with_holes(_part(path.read_text(), rng), holes, hole_lines, rng)
        start = edits[-1].at_s + 2 if edits else 0.0
        edits.extend(Typist(path.name, fixed, texts, rng).edits(start))
    return edits


def _part(text: str, rng: random.Random) -> str:
    """At most `DOCUMENT_CHARS` of a file, whole lines."""
    if len(text) <= DOCUMENT_CHARS:
        return text
    start = text.find("\n", rng.randrange(len(text) - DOCUMENT_CHARS)) + 1
    return text[start : text.rfind("\n", start, start + DOCUMENT_CHARS) + 1]


def _with_holes(text: str, count: int, hole_lines: tuple[int, int], rng: random.Random) -> tuple[list[str], list[str]]:
    """The text in ``count`` + 1 fixed parts and the holes between them, each from the start of a line to its end."""
    lines = text.splitlines(keepends=True)
    fixed, holes, at = [], [], 0
    for index in range(count):
        room = len(lines) * (index + 1) // count
        size = rng.randint(*hole_lines)
        start = rng.randrange(at + 2, max(at + 3, room - size - 2))
        fixed.append("".join(lines[at:start]))
        holes.append("".join(lines[start : start + size]).removesuffix("\n"))
        at = start + size
    fixed.append("\n" + "".join(lines[at:]))
    fixed[1:-1] = ["\n" + part for part in fixed[1:-1]]
    return fixed, holes
