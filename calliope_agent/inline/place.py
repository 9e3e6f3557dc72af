"""A place: the window of a document around its cursor, as the model sees it and as reuse compares it.

Decisions
1. Windows are counted in characters, not tokens: no tokenizer fits all models, and 3 to 4 characters a token is
   near enough for a bound.
2. The start of the prefix window moves in steps of a quarter window: a start that moved with every line would make
   each prompt new to the provider's (and a local model's) prompt cache.
3. Line ends are LF inside the lane. Editors write the document's own line end when they insert.
4. The key holds what else shapes the answer: target, way of asking, file, sampling, stops. It holds no version of
   another document: one edit elsewhere would then forget every suggestion. The suffix is compared, never left out:
   the same prefix over another suffix wants another text.
5. Closing brackets and quotes at the very start of the suffix do not count for its window: an editor that sets one must
   not push out a line at the window's end, or the suffix would seem another.
"""

from __future__ import annotations

from dataclasses import dataclass

from calliope_agent.inline.request import InlineRequest

_CLOSING = ")]}\"'`"
_MOST_CLOSERS = 8

Key = tuple[str, str, str, str, int | None, float, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Window:
    """How much of the document is looked at, in characters."""

    before: int = 6000
    after: int = 2000


@dataclass(frozen=True, slots=True)
class Place:
    """``before`` and ``after`` are the window; ``cut_before``: the document goes on above it."""

    key: Key
    before: str
    after: str
    cut_before: bool = False

    @property
    def line_before(self) -> str:
        """The cursor's line up to the cursor."""
        return self.before[self.before.rfind("\n") + 1 :]

    @property
    def lines_above(self) -> str:
        """The end of what stands above the cursor's line: equal for two keystrokes on one line."""
        return self.before[: len(self.before) - len(self.line_before)][-200:]

    def typed(self, text: str) -> Place:
        """The place after ``text`` was typed here."""
        return Place(self.key, self.before + text, self.after, self.cut_before)


def place_of(request: InlineRequest, window: Window) -> Place:
    """The window of one request."""
    before, cut_before = _tail(request.prefix.replace("\r\n", "\n"), window.before)
    after = _head(request.suffix.replace("\r\n", "\n"), window.after)
    document = request.path or request.editor
    key = (
        request.target,
        request.fim,
        document,
        request.language,
        request.max_tokens,
        request.temperature,
        request.stop,
    )
    return Place(key, before, after, cut_before)


def _tail(text: str, limit: int) -> tuple[str, bool]:
    """At most ``limit`` characters from the end, from the start of a line where there is one."""
    excess = len(text) - limit
    if excess <= 0:
        return text, False
    step = max(1, limit // 4)
    start = -(-excess // step) * step
    newline = text.find("\n", start - 1, len(text) - 1)
    return text[newline + 1 if newline >= 0 else start :], True


def _head(text: str, limit: int) -> str:
    """At most ``limit`` characters from the start, up to the end of a line where there is one."""
    closers = len(text) - len(text[:_MOST_CLOSERS].lstrip(_CLOSING) + text[_MOST_CLOSERS:])
    if len(text) <= limit + closers:
        return text
    newline = text.rfind("\n", closers + 1, limit + closers)
    return text[: newline + 1 if newline >= 0 else limit + closers]
