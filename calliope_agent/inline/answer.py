"""The text to insert inside a chat model's answer: between the tags, without an echo of the cursor's line.

Decisions
1. Without the opening tag nothing is given out before the end: whether a first line is code or talk is known only
   then. A fenced block is taken from within the talk; an answer with neither tag nor fence is taken whole.
"""

from __future__ import annotations

import re

from calliope_agent.inline.prompt import CLOSE_TAG, OPEN_TAG

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
_LEAST_ECHO = 3


class ChatAnswer:
    """Feeds an answer through; ``line_before`` is the cursor's line up to the cursor."""

    def __init__(self, line_before: str) -> None:
        line = line_before.strip()
        self._echoes = tuple({line_before, line_before.lstrip()}) if len(line) >= _LEAST_ECHO else ()
        self._held = ""
        self._opened = False
        self._echo_done = not self._echoes

    def feed(self, piece: str) -> str:
        """The further text that is certainly meant for the document."""
        self._held += piece
        if not self._opened:
            talk, tag, rest = self._held.partition(OPEN_TAG)
            self._opened = bool(tag)
            self._held = rest if tag else talk
        return self._body(ended=False) if self._opened else ""

    def end(self) -> str:
        """What is left when the model has said all."""
        if not self._opened:
            fence = _FENCE.search(self._held)
            self._held = fence.group(1) if fence else self._held.partition(CLOSE_TAG)[0]
        return self._body(ended=True)

    def _body(self, *, ended: bool) -> str:
        if not self._echo_done:
            if not ended and any(echo.startswith(self._held) for echo in self._echoes):
                return ""
            self._echo_done = True
            self._held = self._without_echo()
        text, self._held = self._held, ""
        return text

    def _without_echo(self) -> str:
        for echo in sorted(self._echoes, key=len, reverse=True):
            if self._held.startswith(echo):
                return self._held[len(echo) :]
        return self._held


class PlainAnswer:
    """A FIM model's answer: all of it is the text."""

    def feed(self, piece: str) -> str:
        return piece

    def end(self) -> str:
        return ""


Answer = ChatAnswer | PlainAnswer
