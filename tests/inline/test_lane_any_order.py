"""Keystrokes, deletions, jumps, leaving callers and budgets in any order: nothing stale, nothing left running."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.errors import AgentError, Overloaded
from calliope_agent.inline.lane import Lane, LaneSettings
from calliope_agent.inline.request import InlineCall, InlineRequest, Suggestion
from tests.bench.typing_edits import Edit
from tests.bench.typing_model import Asked
from tests.bench.typing_verdict import explains
from tests.bench.virtual_loop import run

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["follow", "follow", "type", "delete", "jump", "suffix", "leave", "budget", "fresh"]),
        st.integers(0, 7),
        st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.3]),
    ),
    max_size=25,
)
ALPHABET = 'ab()\n "'


class Model:
    """Answers by the prompt's own lot: some text in pieces, sometimes an error in the middle."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.asked: list[Asked] = []
        self.running = 0

    async def __call__(self, call: InlineCall) -> AsyncGenerator[str, None]:
        rng = random.Random(f"{self._seed}{call.prompt}|{call.suffix}")
        asked = Asked(call, "a.py", 0, 0.0)
        self.asked.append(asked)
        self.running += 1
        try:
            for _ in range(rng.randrange(5)):
                await asyncio.sleep(rng.choice((0, 0.02, 0.1)))
                if rng.random() < 0.03:
                    raise Overloaded("busy")
                piece = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 5)))
                asked.text += piece
                yield piece
        finally:
            self.running -= 1


@dataclass
class Editor:
    """One document with a cursor, and what was last shown there."""

    before: str = "a = b\n"
    after: str = "\nb = a\n"
    hint: str = ""

    def act(self, action: str, number: int) -> None:
        if action == "follow" and self.hint:
            self.before += self.hint[: 1 + number % 3]
        elif action == "type":
            self.before += ALPHABET[number % len(ALPHABET)]
        elif action == "delete":
            self.before = self.before[: -1 - number % 3]
        elif action == "jump":
            whole = self.before + self.after
            at = number * len(whole) // 8
            self.before, self.after = whole[:at], whole[at:]
        elif action == "suffix":
            self.after += ALPHABET[number % len(ALPHABET)]


async def play(actions: list[tuple[str, int, float]], seed: int, prefetch_chars: int) -> None:
    model = Model(seed)
    loop = asyncio.get_running_loop()
    lane = Lane(
        model, clock=loop.time, sleep=asyncio.sleep, settings=LaneSettings(prefetch_chars=prefetch_chars, concurrency=2)
    )
    editor = Editor()
    tasks: list[tuple[Edit, asyncio.Task[Suggestion]]] = []
    for action, number, wait_s in actions:
        editor.act(action, number)
        request = InlineRequest(
            editor.before, editor.after, "test/m", fim="suffix", path="a.py", editor=f"e{number % 2}"
        )
        request = replace(request, budget_s=0.05 if action == "budget" else None, reuse=action != "fresh")
        edit = Edit(loop.time(), "typed", "a.py", editor.before, editor.after, None)
        tasks.append((edit, asyncio.create_task(lane.suggest(request))))
        await asyncio.sleep(wait_s)
        if action == "leave":
            tasks[-1][1].cancel()
        elif tasks[-1][1].done() and not tasks[-1][1].exception():
            editor.hint = tasks[-1][1].result().text
    await _judge(model, tasks)
    await lane.aclose()
    assert model.running == 0


async def _judge(model: Model, tasks: list[tuple[Edit, asyncio.Task[Suggestion]]]) -> None:
    for edit, task in tasks:
        try:
            found = await task
        except (AgentError, asyncio.CancelledError):
            continue
        assert not found.text or any(explains(asked, edit, found.text) >= 0 for asked in model.asked)


@settings(max_examples=150, deadline=None)
@given(ACTIONS, st.integers(0, 1000), st.sampled_from([0, 4]))
def test_nothing_is_stale_and_nothing_is_left_running(
    actions: list[tuple[str, int, float]], seed: int, prefetch_chars: int
) -> None:
    run(play(actions, seed, prefetch_chars))
