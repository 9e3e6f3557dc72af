"""Trimming: how much of a model's text fits at the cursor.

The result is always a start of the model's text without white space at its end. The text ends

* before a stop sequence or special token;
* where the text reaches what already stands right of the cursor: its first unmatched closing bracket, the quote that
  closes the string, the rest of the line;
* before a line that equals the next line of the document, or that closes a bracket which that line closes;
* before a line that leaves the block (a line with the block's closing bracket is taken along);
* after ``max_lines`` lines with content, or after the line in single-line mode;
* after the first of three equal lines.

Decisions
1. Characters go through one by one and text is given out only when no rule can take it back. So a streamed suggestion
   equals the trimmed whole however it is cut into pieces, and its end is known at the first character that decides
   it.
2. One bracket too many is worse than one too few: the person types a bracket, but has to find a surplus one.
"""

from __future__ import annotations

from calliope_agent.inline.rules import CLOSERS, PAIRS, Rules, indent_of, is_escaped, is_header, width
from calliope_agent.inline.stops import StopCut


def trim(text: str, rules: Rules) -> str:
    """The part of a whole text that fits."""
    trimmer = Trimmer(rules)
    return trimmer.feed(text) + trimmer.end()


class Trimmer:
    """Trims text as it comes. ``finished``: no further text matters. ``shortened``: a bound of lines ended it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._stops = StopCut(rules.stops)
        self._text = ""
        self._given = 0
        self._start = 0
        self._head = rules.line_before
        self._lines = 0
        self._depth = 0
        self._depths: list[int] = []
        self._own_closers = rules.own_closers
        self._in_string = rules.in_string
        self._least = 0
        self._last_line = False
        self._previous = ""
        self._run = 1
        self._run_end = 0
        self.finished = False
        self.shortened = False

    def feed(self, piece: str) -> str:
        """The further text that is certain."""
        if not self.finished and not self._take(self._stops.feed(piece)) and self._stops.finished:
            self._close(len(self._text))
        return self._give(self._certain())

    def end(self) -> str:
        """The remaining text; the model has said all."""
        if not self.finished and not self._take(self._stops.end()):
            self._close(len(self._text))
        return self._give(len(self._text))

    def _give(self, upto: int) -> str:
        piece = self._text[self._given : upto]
        self._given = max(self._given, upto)
        return piece

    def _take(self, text: str) -> bool:
        """Whether a rule has ended the text."""
        for char in text:
            if char == "\n":
                self._newline()
            else:
                self._character(char)
            if self.finished:
                return True
        return False

    def _character(self, char: str) -> None:
        if not char.isspace() and self._start and not self._line.strip() and self._leaves(char):
            self._cut(self._start)
            return
        if self._meets_rest(char):
            self._close(len(self._text))
            return
        self._depths.append(self._depth)
        self._text += char
        self._depth += (char in PAIRS) - (char in CLOSERS and self._depth > 0)
        self._meet_whole_rest()

    def _newline(self) -> None:
        if not self._rules.multi:
            self.shortened = True
            self._close(len(self._text))
            return
        if self._repeats(self._full()):
            return
        self._lines += bool(self._line.strip())
        blank_before = self._text.endswith("\n\n") and not self._line
        self.shortened = self._lines >= self._rules.max_lines
        if self.shortened or self._last_line or (self._rules.scoped and blank_before):
            self._cut(len(self._text))
            return
        if not self._start:
            line = self._head + self._line
            self._least = width(indent_of(line)) + is_header(line)
        self._text += "\n"
        self._start = len(self._text)
        self._head = ""

    @property
    def _line(self) -> str:
        return self._text[self._start :]

    def _full(self) -> str:
        """The current line as it would stand in the document; empty where the suggestion adds nothing to it."""
        return (self._head + self._line).rstrip() if self._line.strip() else ""

    def _leaves(self, char: str) -> bool:
        """The line that begins with ``char`` belongs to the document after the suggestion, or to another block."""
        indent = self._line
        if char not in CLOSERS:
            return self._rules.scoped and width(indent) < self._least
        if not self._depth and self._rules.below.startswith(indent + char):
            return True
        self._last_line = self._rules.scoped and not self._depth and width(indent) < self._least
        return False

    def _meets_rest(self, char: str) -> bool:
        if self._in_string and char == self._rules.rest[0]:
            return not is_escaped(self._head + self._line)
        if char not in CLOSERS or self._depth:
            return False
        if self._own_closers:
            self._own_closers -= 1
            return False
        return self._rules.rest.lstrip().startswith(char)

    def _meet_whole_rest(self) -> None:
        rest = self._rules.rest
        if not self._rules.multi and self._rules.rest_is_significant and self._text.endswith(rest):
            start = len(self._text) - len(rest)
            if not self._depths[start]:
                self._close(start)

    def _repeats(self, full: str) -> bool:
        """Ends the text if the finished line ``full`` is the document's next one, or the third of its kind."""
        if full and full == self._rules.below:
            self._cut(self._start)
            return True
        if full and full == self._previous:
            self._run += 1
        else:
            self._run, self._run_end = 1, len(self._text)
        self._previous = full
        if self._run == 3:
            self._cut(self._run_end)
            return True
        return False

    def _close(self, end: int) -> None:
        """Ends the text at ``end`` and looks at the last line once more: it may be shorter than it was."""
        self._text = self._text[:end]
        if self._rules.rest_is_mark and not self._rules.multi:
            self._text = _bare(self._text, self._rules.rest.strip())
        if not self._repeats(self._full()):
            self._cut(len(self._text))

    def _cut(self, end: int) -> None:
        self._text = self._text[:end].rstrip()
        self.finished = True

    def _certain(self) -> int:
        """How much of the text no rule can take back."""
        keep = len(self._text)
        if self.finished:
            return keep
        line = self._head + self._line
        if self._rules.below and _may_equal(line, self._rules.below):
            keep = self._start
        if self._previous and _may_equal(line, self._previous):
            keep = min(keep, self._run_end)
        if not self._rules.multi and self._rules.rest:
            keep = min(keep, self._before_rest())
        return len(self._text[:keep].rstrip())

    def _before_rest(self) -> int:
        """Where the end of the text may turn out to be the rest of the line."""
        text, rest = self._text, self._rules.rest
        if self._rules.rest_is_mark:
            mark = rest.strip()
            return min(len(_bare(text[: len(text) - size], mark)) for size in _begun(text, mark))
        if self._rules.rest_is_significant:
            return len(text) - max(_begun(text, rest))
        return len(text)


def _may_equal(line: str, target: str) -> bool:
    """``line``, once complete or shortened, may equal ``target``."""
    return target.startswith(line) or line.startswith(target)


def _begun(text: str, rest: str) -> list[int]:
    """The lengths of all ends of ``text`` that begin ``rest``, nought included."""
    return [size for size in range(min(len(rest), len(text) + 1)) if text.endswith(rest[:size])]


def _bare(text: str, mark: str) -> str:
    """``text`` without white space and marks at its end."""
    while True:
        shorter = text.rstrip().removesuffix(mark)
        if shorter == text:
            return text
        text = shorter
