"""What is left of a suggestion after typing, and when nothing may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.inline.place import Place, Window, place_of
from calliope_agent.inline.request import InlineRequest, Snippet
from calliope_agent.inline.typed_through import Left, Typed, left_of, may_follow, typed_since


def request(document: str) -> InlineRequest:
    prefix, _, suffix = document.partition("¦")
    return InlineRequest(prefix, suffix, "test/model", path="a.py")


def at(document: str) -> Place:
    return place_of(request(document), Window())


def left(old: str, suggestion: str, new: str) -> Left | None:
    typed = typed_since(at(old), at(new))
    return left_of(suggestion, typed) if typed else None


@pytest.mark.parametrize(
    ("old", "suggestion", "new", "rest"),
    [
        ("x = ¦\n", "compute(y)", "x = com¦\n", "pute(y)"),
        ("x = ¦\n", "compute(y)", "x = ¦\n", "compute(y)"),
        ("x = ¦\n", "a\n    b", "x = a\n  ¦\n", "  b"),
        ("x = ¦\n", "ab", "x = ab¦\n", ""),
        # an editor's own closers: the rest stays inside them
        ("x = ¦\n", "foo(a, b)\ny", "x = foo(¦)\n", "a, b"),
        ("x = ¦\n", "foo(bar(a), b)\ny", "x = foo(¦)\n", "bar(a), b"),
        ("x = ¦\n", 'f("a", b)', 'x = f("¦")\n', "a"),
        ("x = ¦\n", "'\\\\':\ny", "x = '¦'\n", "\\\\"),
        ("x = ¦\n", "'\\\\':\ny", "x = '\\¦'\n", "\\"),
        ("x = ¦\n", "foo()\ny", "x = foo(¦)\n", ""),
        ("x = ¦\n", "foo(a)\ny", "x = foo(a)¦\n", "\ny"),
    ],
)
def test_the_rest_of_what_was_typed_through(old: str, suggestion: str, new: str, rest: str) -> None:
    found = left(old, suggestion, new)
    assert found is not None
    assert found.text == rest


@pytest.mark.parametrize(
    ("old", "suggestion", "new"),
    [
        ("x = ¦\n", "compute(y)", "x = cop¦\n"),  # another character
        ("x = c¦\n", "ompute(y)", "x = ¦\n"),  # a deletion before the suggestion's place
        ("x = ¦\n", "compute(y)", "x = ¦\ny = 1\n"),  # the suffix changed
        ("x = ¦\n", "compute(y)", "x = com¦)\n"),  # a bracket that nobody opened
        ("x = ¦\n", "foo[a]", "x = foo(¦)\n"),  # not what the suggestion says
        ("x = ¦\n", "foo(a}", "x = foo(¦)\n"),  # closes with another bracket
        ("a¦b\n", "x", "ab\na¦b\n"),  # the same line elsewhere
        ("import a\nx = ¦\n", "compute(y)", "import b\nx = com¦\n"),  # the model had seen another start
    ],
)
def test_nothing_is_left_where_the_place_is_another(old: str, suggestion: str, new: str) -> None:
    assert left(old, suggestion, new) is None


def test_another_document_or_model_shares_nothing() -> None:
    asked = request("x = ¦")
    others = (replace(asked, path="b.py"), replace(asked, target="test/other"), replace(asked, fim="chat"))
    assert [typed_since(at("x = ¦"), place_of(other, Window())) for other in others] == [None] * 3


def test_another_documents_edit_forgets_nothing() -> None:
    asked = request("x = ¦")
    edited = replace(asked, context=(Snippet("b.py", "changed"),))
    assert typed_since(place_of(asked, Window()), place_of(edited, Window())) == Typed("")


def test_an_editors_moving_window_still_fits_and_a_short_one_does_not() -> None:
    lines = [f"line number {number}\n" for number in range(80)]
    old = at("".join(lines) + "x = ¦")
    moved = at("".join(lines[5:]) + "x = com¦")
    assert typed_since(old, moved) == Typed("com")
    assert typed_since(old, at("".join(lines[70:]) + "x = com¦")) is None
    assert typed_since(moved, old) is None


def test_two_readings_of_one_place_count_as_none() -> None:
    assert typed_since(at("-\n" * 400 + "¦"), at("-\n" * 399 + "¦")) is None


def test_a_long_document_is_compared_by_its_window() -> None:
    head = "".join(f"value_{number} = {number}\n" for number in range(900))
    old = at(head + "x = ¦\n")
    assert old.cut_before
    for count in range(1, 400):
        typed = typed_since(old, at(head + "x = " + "y" * count + "¦\n"))
        assert typed == Typed("y" * count)
    assert typed_since(old, at("import z\n" + head + "x = y¦\n")) == Typed("y")
    assert typed_since(old, at(head.replace("value_899", "value_x") + "x = y¦\n")) is None


def test_any_change_inside_the_suffixs_window_counts() -> None:
    tail = "".join(f"line {number}\n" for number in range(400))
    old = at("x = ¦\n" + tail)
    for at_char in range(0, len(old.after) - 1, 7):
        changed = old.after[:at_char] + "?" + old.after[at_char + 1 :] + tail[len(old.after) - 1 :]
        assert typed_since(old, at("x = y¦" + changed)) is None
    assert typed_since(old, at("x = y¦\n" + tail + "more")) == Typed("y")
    assert typed_since(old, at("x = f(¦)\n" + tail)) == Typed("f(", ")")


def test_a_running_suggestion_may_grow_into_what_was_typed() -> None:
    assert may_follow("co", Typed("com"))
    assert may_follow("", Typed("com"))
    assert not may_follow("cx", Typed("com"))
    assert not may_follow("com", Typed("com"))


TEXT = st.text(alphabet="ab()[]'\"\n ,\\", max_size=30)


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, TEXT, st.integers(0, 30))
def test_reuse_is_the_suggestion_without_the_typed_characters(
    prefix: str, suffix: str, suggestion: str, count: int
) -> None:
    typed = suggestion[:count]
    found = left(f"{prefix}¦{suffix}", suggestion, f"{prefix}{typed}¦{suffix}")
    assert found == Left(suggestion[len(typed) :])


@settings(max_examples=500, deadline=None)
@given(st.tuples(TEXT, TEXT), st.tuples(TEXT, TEXT), TEXT)
def test_whatever_is_left_spells_the_suggestion_at_its_own_place(
    old: tuple[str, str], new: tuple[str, str], suggestion: str
) -> None:
    _holds_its_promise(old, new, suggestion)


@settings(max_examples=500, deadline=None)
@given(st.tuples(TEXT, TEXT), TEXT, st.integers(0, 30), st.text(alphabet=")]'\"", max_size=3))
def test_set_closers_never_bring_text_that_the_suggestion_did_not_mean(
    old: tuple[str, str], suggestion: str, count: int, closers: str
) -> None:
    _holds_its_promise(old, (old[0] + suggestion[:count], closers + old[1]), suggestion)


def _holds_its_promise(old: tuple[str, str], new: tuple[str, str], suggestion: str) -> None:
    found = left("¦".join(old), suggestion, "¦".join(new))
    if found is None:
        return
    meant = old[0] + suggestion
    assert meant.startswith(new[0] + found.text)
    added = new[1].removesuffix(old[1])
    assert new[1] == added + old[1]
    assert set(added) <= set(")]'\"")
    if added and found.settled:
        assert meant.startswith(new[0] + found.text + added[0])
