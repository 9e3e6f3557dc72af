"""A suggestion on its way to the caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from calliope_agent.inline.request import Finish, Source, Suggestion


class SuggestionStream:
    """The text in pieces, once; ``source`` and ``finish`` hold at the end. Close it where it is left early.

    ``answered``: the lane need not look further.
    """

    def __init__(self, pieces: Callable[[SuggestionStream], AsyncGenerator[str, None]]) -> None:
        self.source: Source = "upstream"
        self.finish: Finish = "stop"
        self.text = ""
        self.answered = False
        self._pieces = pieces(self)

    def __aiter__(self) -> SuggestionStream:
        return self

    async def __anext__(self) -> str:
        piece = await anext(self._pieces)
        self.text += piece
        return piece

    async def aclose(self) -> None:
        """The caller has gone."""
        await self._pieces.aclose()

    def suggestion(self) -> Suggestion:
        return Suggestion(self.text, self.source, self.finish)
