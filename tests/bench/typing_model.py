"""A scripted model: right with probability p, one to three lines, first text after 150 to 600 ms, then 4 ms a token.

"Right" is the text that the person is about to write; "wrong" is other code from the same files. What it answers
depends on the seed and on what it is asked only, so that all contenders meet the same model. Two kinds of luck:
``place`` draws anew at every prompt, ``line`` once for a whole line, so that a model that is wrong on a line stays
wrong however often it is asked there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from calliope_agent.inline.request import InlineCall
from tests.bench.typing_edits import Edit

TOKEN_CHARS = 4
TOKEN_S = 0.004
_ANCHOR = 200


@dataclass
class Asked:
    """One upstream call: its text as far as it was given out, and how it ended."""

    call: InlineCall
    document: str
    keystroke: int
    at: float
    text: str = ""
    cancelled: bool = False
    ended_at: float = 0.0
    shown: bool = False
    typed_into: bool = False


class Model:
    """`now` and `keystroke` are set by the replay at every edit."""

    def __init__(self, right: float, luck: str, seed: int, noise: list[str]) -> None:
        self._right = right
        self._luck = luck
        self._seed = seed
        self._noise = noise
        self.asked: list[Asked] = []
        self.now: Edit
        self.keystroke = -1

    async def __call__(self, call: InlineCall) -> AsyncGenerator[str, None]:
        loop = asyncio.get_running_loop()
        asked = Asked(call, self.now.document, self.keystroke, loop.time())
        self.asked.append(asked)
        rng = random.Random(f"{self._seed}|{call.prompt}|{call.suffix}")
        text = self._text(call, rng)
        finished = False
        try:
            await asyncio.sleep(rng.uniform(0.150, 0.600))
            for start in range(0, len(text), TOKEN_CHARS):
                piece = text[start : start + TOKEN_CHARS]
                asked.text += piece
                yield piece
                await asyncio.sleep(TOKEN_S)
            finished = True
        finally:
            asked.cancelled = not finished
            asked.ended_at = loop.time()

    def _text(self, call: InlineCall, rng: random.Random) -> str:
        truth = self._truth(call.prompt)
        line = call.prompt.rpartition("\n")[0]
        lot = rng if self._luck == "place" else random.Random(f"{self._seed}|{line[-_ANCHOR:]}")
        right = lot.random() < self._right
        lines = rng.randint(1, 3)
        if right and truth is not None:
            return _first_lines(truth, lines)
        start = rng.randrange(len(self._noise) - lines)
        return "\n".join(self._noise[start : start + lines]).lstrip()

    def _truth(self, prompt: str) -> str | None:
        """What follows in the document after ``prompt``, which may be asked ahead of the cursor."""
        before, truth = self.now.before, self.now.truth
        at = prompt.rfind(before[-_ANCHOR:])
        ahead = prompt[at + len(before[-_ANCHOR:]) :]
        return truth[len(ahead) :] if at >= 0 and truth is not None and truth.startswith(ahead) else None


def _first_lines(text: str, count: int) -> str:
    kept: list[str] = []
    for line in text.split("\n"):
        kept.append(line)
        count -= bool(line.strip())
        if not count:
            break
    return "\n".join(kept)
