"""Ways to answer keystrokes from one model: our lane, and two caches as gateways and editors have them.

The caches show text by the same trimming rules as the lane, so that only reuse and cancelling differ. Each cancels the
call of the older keystroke when a newer one comes, as editors do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from calliope_agent.errors import Superseded
from calliope_agent.inline.lane import Lane, LaneSettings
from calliope_agent.inline.place import Place, Window, place_of
from calliope_agent.inline.prompt import call_of, way_of
from calliope_agent.inline.request import InlineRequest
from calliope_agent.inline.rules import rules_of
from calliope_agent.inline.template import shipped
from calliope_agent.inline.trim import Trimmer, trim
from tests.bench.typing_edits import Edit
from tests.bench.typing_model import Model

LINES = 3


class Contender(Protocol):
    def pieces(self, edit: Edit) -> AsyncGenerator[str, None]:
        """The suggestion for one keystroke; ends early without text where a newer one took its place."""


def request_of(edit: Edit) -> InlineRequest:
    return InlineRequest(
        edit.before,
        edit.after,
        "bench/model",
        fim="suffix",
        path=edit.document,
        language="python",
        editor=f"bench {edit.document}",
        max_lines=LINES,
    )


class OurLane:
    """`calliope_agent.inline.lane` as the server uses it."""

    def __init__(self, model: Model, settings: LaneSettings | None = None) -> None:
        self._lane = Lane(model, clock=asyncio.get_running_loop().time, sleep=asyncio.sleep, settings=settings)

    async def pieces(self, edit: Edit) -> AsyncGenerator[str, None]:
        try:
            async with aclosing(self._lane.stream(request_of(edit))) as stream:
                async for piece in stream:
                    yield piece
        except Superseded:
            return


class Cache:
    """Exact match on prefix and suffix, or (``by_prefix``) the longest known prefix whatever the suffix."""

    def __init__(self, model: Model, *, by_prefix: bool, debounce_s: float = 0.0) -> None:
        self._model = model
        self._by_prefix = by_prefix
        self._debounce_s = debounce_s
        self._known: dict[tuple[str, str], str] = {}
        self._running: asyncio.Task[object] | None = None

    async def pieces(self, edit: Edit) -> AsyncGenerator[str, None]:
        request = request_of(edit)
        place = place_of(request, Window())
        if self._running:
            self._running.cancel()
        known = self._find(edit)
        if known:
            yield trim(known, rules_of(place, "auto", LINES, ()))
            return
        self._running = asyncio.current_task()
        await asyncio.sleep(self._debounce_s)
        async with aclosing(self._asked(request, place, edit)) as pieces:
            async for piece in pieces:
                yield piece

    async def _asked(self, request: InlineRequest, place: Place, edit: Edit) -> AsyncGenerator[str, None]:
        way = way_of(request, shipped())
        trimmer = Trimmer(rules_of(place, "auto", LINES, way.stops))
        text = ""
        async with aclosing(self._model(call_of(request, place, way, 160))) as upstream:
            async for piece in upstream:
                text += piece
                if shown := trimmer.feed(piece):
                    yield shown
        if shown := trimmer.end():
            yield shown
        self._known[edit.before, "" if self._by_prefix else edit.after] = text
        self._running = None

    def _find(self, edit: Edit) -> str:
        if not self._by_prefix:
            return self._known.get((edit.before, edit.after), "")
        for (before, _), text in sorted(self._known.items(), key=lambda item: -len(item[0][0])):
            typed = edit.before[len(before) :]
            if edit.before.startswith(before) and text.startswith(typed) and len(text) > len(typed):
                return text[len(typed) :]
        return ""
