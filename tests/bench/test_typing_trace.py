"""The promise of the inline lane, on a short typing trace: most keystrokes need no upstream call, none is stale."""

from __future__ import annotations

import pytest

from calliope_agent.inline.request import InlineCall
from tests.bench.typing_edits import Edit, trace
from tests.bench.typing_model import Asked
from tests.bench.typing_trace import CONTENDERS, FILES, measure
from tests.bench.typing_verdict import explains

DOCUMENTS = list(FILES[1:3])


@pytest.fixture(scope="module")
def edits() -> list[Edit]:
    return trace(DOCUMENTS, seed=7)


def test_over_sixty_percent_answered_and_none_stale_with_a_model_that_is_right_half_the_time(edits: list[Edit]) -> None:
    row = measure("our lane", 0.5, "place", edits, seed=7)
    assert row.keystrokes > 500
    assert row.answered > 0.6
    assert row.stale == 0
    assert row.cancel_ms < 100


@pytest.mark.parametrize("right", [0.3, 0.8])
def test_none_stale_with_a_worse_and_a_better_model_and_behind_a_cache_only_where_that_costs_twice(
    edits: list[Edit], right: float
) -> None:
    rows = {name: measure(name, right, "line", edits, seed=7) for name in CONTENDERS}
    ours = rows.pop("our lane")
    assert ours.stale == 0
    for name, other in rows.items():
        # A model that is wrong for whole lines is asked less often (lane, Decision 4): who answers more then pays for it.
        behind = other.answered > ours.answered and "ahead" not in name
        assert not behind or (right < 0.5 and other.calls_per_100 > 2 * ours.calls_per_100), name
    assert ours.calls_per_100 < rows["exact match"].calls_per_100


def test_the_trace_is_the_same_for_the_same_seed(edits: list[Edit]) -> None:
    assert trace(DOCUMENTS, seed=7) == edits
    assert trace(DOCUMENTS, seed=8) != edits


def test_the_trace_ends_with_the_files_as_they_were(edits: list[Edit]) -> None:
    for path in DOCUMENTS:
        last = [edit for edit in edits if edit.document == path.name][-1]
        assert last.before + last.after in path.read_text()


@pytest.mark.parametrize(
    ("before", "after", "text", "typed"),
    [
        ("x = ", "\n", "abc", 0),
        ("x = a", "\n", "bc", 1),
        ("x = b", "\n", "bc", -1),
        ("x = a", "\ny", "bc", -1),
        ("y = a", "\n", "bc", -1),
        ("x = a", "\n", "bd", -1),
    ],
)
def test_the_judge_knows_a_stale_text(before: str, after: str, text: str, typed: int) -> None:
    call = Asked(_call("x = ", "\n"), "a.py", 0, 0.0, text="abc")
    assert explains(call, Edit(0, "typed", "a.py", before, after, None), text) == typed


def _call(prompt: str, suffix: str) -> InlineCall:
    return InlineCall("bench/model", "completions", 10, 0.0, (), prompt, suffix)
