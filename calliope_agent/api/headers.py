"""A request's headers, decoded once.

Decisions
1. Starlette's `Headers` decodes and compares the whole list at every look, a miss costs an exception on top, and a request is looked
   at some twenty times. Names come in small letters (ASGI's promise), and every look here is written so.
2. As there, the first of two counts; `getlist` gives them all to who has to refuse a second one.
"""

from __future__ import annotations

from collections.abc import Iterable


class Headers(dict[str, str]):
    """Name in small letters → first value."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = list(raw)
        # Later ones are overwritten by earlier ones.
        super().__init__((name.decode("latin-1"), value.decode("latin-1")) for name, value in reversed(self._raw))

    def getlist(self, name: str) -> list[str]:
        """Every value, in the order they came."""
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for known, value in self._raw if known == wanted]
