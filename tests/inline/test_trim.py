"""Trimming: the rules one by one, then what holds for every text."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.inline.place import Window, place_of
from calliope_agent.inline.request import InlineRequest, Mode
from calliope_agent.inline.rules import Rules, rules_of
from calliope_agent.inline.trim import Trimmer, trim

STOPS = ("<|endoftext|>", "<|fim_middle|>", "\n+++++ ")


def rules(document: str, mode: Mode = "auto", max_lines: int = 3) -> Rules:
    """The rules at the bar in ``document``."""
    prefix, _, suffix = document.partition("¦")
    place = place_of(InlineRequest(prefix, suffix, "test/model"), Window())
    return rules_of(place, mode, max_lines, STOPS)


CASES = [
    # special tokens and stop sequences
    ("x = ¦", "1<|endoftext|>\ny = 2", "1"),
    ("x = ¦", "1\n+++++ other.py\n", "1"),
    # white space at the end
    ("x = ¦", "1  \n\n", "1"),
    ("x = ¦", " \n  ", ""),
    # lines
    ("x = ¦", "1\ny = 2\nz = 3\na = 4", "1\ny = 2\nz = 3"),
    ("def f():¦", "\n    a()\n    b()\n    c()\n    d()", "\n    a()\n    b()\n    c()"),
    # mid-line: one line only, and nothing that the rest of the line says
    ("x = ¦ + total", "count\ny = 2", "count"),
    ("x = ¦ + total", "count + total", "count"),
    ("x = ¦ + total  # sum", "count + total  # sum of all", "count"),
    ("foo(¦)", "a, b)", "a, b"),
    ("foo(¦)", "bar(a), b)", "bar(a), b"),
    ("foo(¦)", "bar(a)", "bar(a)"),
    ("foo(bar(¦)", "a))", "a)"),
    ("foo(¦):", "a, b):\n    return a", "a, b"),
    ("bar(¦, b)", "foo(a, b)", "foo(a, b)"),
    ("bar(¦, b)", "a, b)", "a"),
    ('print("¦")', 'hello")', "hello"),
    ('print("¦")', 'say \\"hi\\""', 'say \\"hi\\"'),
    ('print("¦")', 'a\\\\" + b', "a\\\\"),
    ('print("\\¦")', '\\" + b', "\\"),
    ("x = ¦;", "1;", "1"),
    ("x = ¦;", "1; ;", "1"),
    ("f = {¦}", "\n  a: 1,\n  b: 2\n}", "\n  a: 1,\n  b: 2"),
    # the suffix's start
    ("a = 1\n¦\nc = 3\n", "b = 2\nc = 3\nd = 4", "b = 2"),
    ("a = 1\n    ret¦\n    return x\n", "urn x", ""),
    ("foo(\n    a,\n    ¦\n) -> None", "b,\n)", "b,"),
    ("function f() {\n  ¦\n}\n", "return 1;\n}\n", "return 1;"),
    ("function f() {\n  ¦\n}\n", "if (x) {\n    y\n  }\n}\n", "if (x) {\n    y\n  }"),
    # leaving the block
    ("def f():\n    ¦\n", "return 1\nx = 2", "return 1"),
    ("def f():\n    if x:¦\n", "\n        y\n    else:\n", "\n        y"),
    ("function f() {¦", "\n  return 1;\n}\n\nf();", "\n  return 1;\n}"),
    ("# Note:¦", "\nx = 1", "\nx = 1"),
    ("x = 1¦", "\n\n\n\ny = 2", ""),
    # repetition
    ("¦", "a = 1\na = 1\na = 1\na = 1", "a = 1"),
    ("¦", "a = 1\na = 1\nb = 1", "a = 1\na = 1\nb = 1"),
]


@pytest.mark.parametrize(("document", "text", "kept"), CASES)
def test_a_rule(document: str, text: str, kept: str) -> None:
    assert trim(text, rules(document)) == kept


@pytest.mark.parametrize(("document", "text", "kept"), CASES)
def test_a_rule_while_the_text_comes_character_by_character(document: str, text: str, kept: str) -> None:
    trimmer = Trimmer(rules(document))
    assert "".join([trimmer.feed(char) for char in text] + [trimmer.end()]) == kept


def test_single_line_mode_ends_at_the_line() -> None:
    assert trim("1\ny = 2", rules("x = ¦", "single")) == "1"
    assert trim("\ny = 2", rules("x = 1¦", "single")) == ""


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("x = ¦ + y", "a\n"),
        ("foo(¦)", "a, b)"),
        ("def f():\n    ¦\n", "return 1\nx"),
        ("x = ¦", "1<|endoftext|>"),
        ("x = ¦", "1\n2\n3\n"),
        ('f("¦")', 'a"'),
    ],
)
def test_the_end_is_known_at_the_character_that_decides_it(document: str, text: str) -> None:
    trimmer = Trimmer(replace(rules(document), stops=STOPS[:2]))
    trimmer.feed(text[:-1])
    assert not trimmer.finished
    trimmer.feed(text[-1])
    assert trimmer.finished


def test_text_that_nothing_can_take_back_is_given_at_once() -> None:
    trimmer = Trimmer(rules("def f():\n    ¦\n"))
    assert trimmer.feed("return 1") == "return 1"
    assert trimmer.feed(" + ") == " +"
    assert trimmer.feed("2") == " 2"


def test_only_a_bound_of_lines_shortens() -> None:
    bounded, whole = Trimmer(rules("¦", max_lines=1)), Trimmer(rules("¦", max_lines=2))
    bounded.feed("a\nb")
    whole.feed("a\nb")
    whole.end()
    assert bounded.shortened
    assert not whole.shortened


# Few letters, so that lines repeat, equal the suffix and overlap with it often.
CODE = st.text(alphabet="ab ();\"'}:{,\n<|endoftx>\t#+=", max_size=60)
WORDS = st.lists(
    st.sampled_from(
        [
            "a",
            "ab",
            "    ",
            "\n",
            "\n    ",
            "(",
            ")",
            "a)",
            "}",
            "{",
            ";",
            '"',
            " = a",
            "\na\n",
            "<|end",
            "oftext|>",
            ":",
            ", b)",
        ]
    ),
    max_size=14,
).map("".join)
TEXT = CODE | WORDS
MODES: st.SearchStrategy[Mode] = st.sampled_from(["auto", "single", "multi"])


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    document = draw(TEXT) + "¦" + draw(TEXT)
    place_mode = draw(MODES)
    return rules(document, place_mode, draw(st.integers(1, 4)))


@settings(max_examples=400, deadline=None)
@given(TEXT, any_rules())
def test_the_result_is_a_start_of_the_text_and_trimming_it_again_changes_nothing(text: str, given_rules: Rules) -> None:
    kept = trim(text, given_rules)
    assert text.startswith(kept)
    assert kept == kept.rstrip()
    assert trim(kept, given_rules) == kept


@settings(max_examples=400, deadline=None)
@given(TEXT, any_rules(), st.lists(st.integers(0, 60), max_size=12))
def test_streamed_equals_whole_however_it_is_cut(text: str, given_rules: Rules, cuts: list[int]) -> None:
    trimmer = Trimmer(given_rules)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    given_out = ""
    for start, end in itertools.pairwise(bounds):
        given_out += trimmer.feed(text[start:end])
    given_out += trimmer.end()
    assert given_out == trim(text, given_rules)


@settings(max_examples=200, deadline=None)
@given(TEXT, any_rules())
def test_no_stop_and_no_line_too_many_is_ever_shown(text: str, given_rules: Rules) -> None:
    kept = trim(text, given_rules)
    assert not any(stop in kept for stop in STOPS)
    lines = [line for line in kept.split("\n") if line.strip()]
    assert len(lines) <= (given_rules.max_lines if given_rules.multi else 1)
