"""A chat model's answer: tags, talk, fences and echoes, however it is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.inline.answer import ChatAnswer


def whole(line_before: str, *pieces: str) -> str:
    answer = ChatAnswer(line_before)
    return "".join([answer.feed(piece) for piece in pieces] + [answer.end()])


@pytest.mark.parametrize(
    ("line_before", "text", "meant"),
    [
        ("x = ", "<insert>  1\n  2", "  1\n  2"),
        ("x = ", "Sure, here it is: <insert>1", "1"),
        ("x = ", "```python\n1\n```", "1"),
        ("x = ", "Here:\n```\n1\n2\n```\nThat adds two.", "1\n2"),
        ("x = ", "1 + 2", "1 + 2"),
        ("x = ", "1</insert> done", "1"),
        ("    return ", "<insert>    return x", "x"),
        ("    return ", "<insert>return x", "x"),
        ("a ", "<insert>a a", "a a"),
        ("x = ", "<insert>", ""),
    ],
)
def test_the_meant_text(line_before: str, text: str, meant: str) -> None:
    assert whole(line_before, text) == meant
    assert whole(line_before, *text) == meant


def test_tagged_text_streams() -> None:
    answer = ChatAnswer("x = ")
    assert answer.feed("<ins") == ""
    assert answer.feed("ert>1 +") == "1 +"
    assert answer.feed(" 2") == " 2"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \n`", max_size=30), st.integers(0, 50), st.booleans())
def test_pieces_change_nothing(body: str, cut: int, tagged: bool) -> None:
    text = ("<insert>" if tagged else "") + body
    assert whole("    ab ", text[:cut], text[cut:]) == whole("    ab ", text)
