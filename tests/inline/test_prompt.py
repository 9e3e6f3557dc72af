"""Windows and calls: what a model is shown, on which wire, and what it is told to stop at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.errors import ConfigError
from calliope_agent.inline.place import Window, place_of
from calliope_agent.inline.prompt import CLOSE_TAG, HOLE, call_of, way_of
from calliope_agent.inline.request import InlineCall, InlineRequest, Snippet
from calliope_agent.inline.template import shipped

ASKED = InlineRequest("before ", " after", "mistral/codestral-2501", path="a.py", language="python", stop=("END",))


def call(request: InlineRequest, window: Window | None = None) -> InlineCall:
    place = place_of(request, window or Window())
    return call_of(request, place, way_of(request, shipped()), 96)


def test_an_endpoint_gets_prompt_and_suffix() -> None:
    made = call(replace(ASKED, fim="endpoint"))
    assert made == InlineCall("mistral/codestral-2501", "fim", 96, 0.0, ("END",), "before ", " after")


def test_a_completions_wire_with_suffix_gets_both() -> None:
    made = call(replace(ASKED, fim="suffix", max_tokens=7, temperature=0.2))
    assert (made.kind, made.prompt, made.suffix, made.max_tokens) == ("completions", "before ", " after", 7)
    assert made.temperature == 0.2


@pytest.mark.parametrize("fim", ["auto", "template", "template:codestral"])
def test_a_template_makes_one_prompt_and_its_tokens_are_stops(fim: str) -> None:
    made = call(replace(ASKED, fim=fim))
    assert (made.kind, made.prompt, made.suffix) == ("completions", "[SUFFIX] after[PREFIX]before ", None)
    assert made.stop[:3] == ("END", "[PREFIX]", "[SUFFIX]")


@pytest.mark.parametrize("fim", ["chat", "auto"])
def test_a_chat_model_gets_a_hole_and_closes_a_tag(fim: str) -> None:
    made = call(replace(ASKED, target="openai/gpt-5.2", fim=fim, context=(Snippet("b.py", "other"),)))
    assert made.kind == "chat"
    assert made.stop == ("END", CLOSE_TAG)
    user = made.messages[-1]["content"]
    assert user.endswith(f"before {HOLE} after")
    assert "File: a.py" in user
    assert "Language: python" in user
    assert "From b.py:\nother" in user


def test_a_hole_mark_in_the_text_is_not_a_second_hole() -> None:
    made = call(replace(ASKED, fim="chat", prefix=f"x{HOLE}y"))
    assert made.messages[-1]["content"].count(HOLE) == 1


def test_an_unknown_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="no FIM template is called 'nope'"):
        way_of(replace(ASKED, fim="template:nope"), shipped())


def test_other_files_are_bounded_together() -> None:
    context = (Snippet("b.py", "b" * 3000), Snippet("c.py", "c" * 3000), Snippet("d.py", "d" * 900))
    made = call(replace(ASKED, target="local/qwen2.5-coder", context=context))
    assert [letter * 900 in made.prompt for letter in "bcd"] == [True, False, True]


def test_line_ends_are_one_kind() -> None:
    place = place_of(replace(ASKED, prefix="a\r\nb", suffix="\r\nc"), Window())
    assert (place.before, place.after, place.line_before) == ("a\nb", "\nc", "b")


def test_a_set_closer_does_not_push_out_the_windows_last_line() -> None:
    suffix = "".join(f"\nline {number}" for number in range(50))
    for limit in range(20, 60):
        plain, closed = (place_of(replace(ASKED, suffix=text), Window(9, limit)) for text in (suffix, ')")' + suffix))
        assert closed.after == ')")' + plain.after


def test_the_windows_start_moves_in_steps() -> None:
    document = "".join(f"line {number}\n" for number in range(200))
    places = [place_of(replace(ASKED, prefix=document[:end]), Window(400, 100)) for end in range(900, 1000)]
    assert len({document.index(place.before[:30]) for place in places}) <= 3


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab\n", max_size=80), st.text(alphabet="ab\n", max_size=80), st.integers(1, 60))
def test_a_window_is_the_text_next_to_the_cursor_in_whole_lines(prefix: str, suffix: str, limit: int) -> None:
    place = place_of(replace(ASKED, prefix=prefix, suffix=suffix), Window(limit, limit))
    assert prefix.endswith(place.before)
    assert suffix.startswith(place.after)
    assert len(place.before) <= limit
    assert len(place.after) <= limit
    assert place.cut_before == (len(prefix) > limit)
    assert len(suffix) <= limit or len(place.after) == limit or place.after.endswith("\n")
    start = len(prefix) - len(place.before)
    if place.cut_before and "\n" in prefix[start:-1]:
        assert prefix[start - 1] == "\n"
