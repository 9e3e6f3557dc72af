"""What an idle tab sends is no activity; what a person does is. The frames were taken from code-server 4.139."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent.launcher import activity

REGULAR, ACK, KEEP_ALIVE = 1, 3, 9


def frame(kind: int, body: bytes = b"") -> bytes:
    return bytes([kind]) + bytes(8) + len(body).to_bytes(4, "big") + body


QUIET = [
    frame(KEEP_ALIVE),
    frame(ACK),
    frame(REGULAR, b"\x05\x00\x00\x00\xf4"),
    frame(REGULAR, b"\x07\x00\x00\x00\xf4"),
    frame(REGULAR, b"\x04\x04\x06d\x06\xf5\x04\x01\ttelemetry\x01\x04ping\x00"),
    frame(REGULAR, b"\x01\x00\x00\x00\x9fv\x18$onDidChangeWindowActive\x00\x00\x00\x07[false]"),
]
BUSY = [
    frame(REGULAR, b"\x01\x00\x00\x00\x9fv\x18$onDidChangeWindowActive\x00\x00\x00\x06[true]"),
    frame(REGULAR, b"\x01\x00\x00\x00\xa0f\x14$acceptModelChanged\x00\x00\x00\x02[]"),
    frame(REGULAR, b"\x04\x04\x06d\x06\xf5\x04\x01\x12remoteterminal\x01\x06$input"),
    b"a frame of another IDE",
    "text",
]


@pytest.mark.parametrize("message", [*QUIET, b"".join(QUIET), b""])
def test_an_idle_tab_is_quiet(message: bytes) -> None:
    assert activity.is_quiet(message)


@pytest.mark.parametrize("message", [*BUSY, QUIET[0] + BUSY[1], None])  # type: ignore[operator]
def test_a_person_is_not(message: bytes | str | None) -> None:
    assert not activity.is_quiet(message)


@given(st.lists(st.sampled_from(QUIET), max_size=6), st.sampled_from(BUSY[:3]))
def test_one_keystroke_among_housekeeping_is_seen(quiet: list[bytes], busy: bytes) -> None:
    assert not activity.is_quiet(b"".join([*quiet, busy, *quiet]))


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(message: bytes) -> None:
    assert activity.is_quiet(message) in (True, False)


def test_a_limit_of_zero_is_never_reached() -> None:
    now = datetime.now(UTC)
    assert not activity.is_over(now - timedelta(days=9), now, 0)
    assert activity.is_over(now - timedelta(seconds=11), now, 10)
    assert not activity.is_over(now - timedelta(seconds=9), now, 10)
