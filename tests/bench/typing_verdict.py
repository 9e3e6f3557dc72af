"""What a replay showed: each shown text is traced to the call that explains it, or counted as stale.

The check is written apart from the lane's own code, over whole documents instead of windows.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass

from tests.bench.typing_edits import Edit
from tests.bench.typing_model import Asked, Model

OPENERS = {")": "(", "]": "[", "}": "{"}
CLOSERS = {*OPENERS, '"', "'"}


@dataclass
class Shown:
    """What one keystroke got: text and seconds to its first piece and to its end, if it came in time."""

    text: str = ""
    first_s: float = 0.0
    whole: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table; shares are between 0 and 1, times in milliseconds."""

    contender: str
    luck: str
    right: float
    keystrokes: int
    answered: float
    shown: float
    calls_per_100: float
    wasted: float
    idle: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    stale: int
    cancelled: int
    cancel_ms: float


def explains(asked: Asked, edit: Edit, text: str) -> int:
    """How many characters of the call's text were typed when ``text`` was shown, or -1 where it does not explain it."""
    prompt, suffix = asked.call.prompt, asked.call.suffix or ""
    for count in range(len(asked.text) + 1):
        if not asked.text.startswith(text, count):
            continue
        meant = prompt + asked.text[:count]
        size = min(len(meant), len(edit.before))
        same_prefix = size > 500 or len(meant) == len(edit.before)
        if not same_prefix or meant[-size:] != edit.before[-size:]:
            continue
        if _same_suffix(suffix, edit.after, asked.text[:count], text):
            return count
    return -1


def _same_suffix(suffix: str, after: str, typed: str, text: str) -> bool:
    if _is_window(suffix, after):
        return True
    for size in range(1, 5):
        closers = after[:size]
        opened = all(typed.count(OPENERS.get(char, char)) for char in closers)
        if opened and set(closers) <= CLOSERS and _is_window(suffix, after[size:]):
            return _stays_inside(typed, text, closers[0])
    return False


def _is_window(suffix: str, after: str) -> bool:
    """The call saw all of it, or the window that a call sees of a long one."""
    return suffix == after or (len(suffix) > 1000 and after.startswith(suffix))


def _stays_inside(typed: str, text: str, closer: str) -> bool:
    """The text does not close what the editor's closer is there to close."""
    opener = OPENERS.get(closer)
    if opener is None:
        escapes = re.compile(r"\\.", re.DOTALL)
        return closer not in escapes.sub("", ("\\" if _is_odd(typed) else "") + text)
    return all(text.count(closer, 0, end) <= text.count(opener, 0, end) for end in range(len(text) + 1))


def _is_odd(typed: str) -> bool:
    """The text begins after a backslash that escapes its first character."""
    return bool(re.search(r"(?<!\\)(?:\\\\)*\\\Z", typed))


def judge(name: str, luck: str, right: float, edits: list[Edit], run: tuple[Model, list[Shown]]) -> Row:
    """The figures of one replay."""
    model, shown = run
    paid = {asked.keystroke for asked in model.asked}
    seen = [(index, item) for index, item in enumerate(shown) if item.whole]
    stale = sum(not _explained(model.asked, edits[index], item.text) for index, item in seen)
    times = sorted(item.first_s * 1000 for _, item in seen) or [0.0]
    cancelled = [asked for asked in model.asked if asked.cancelled]
    calls = max(1, len(model.asked))
    return Row(
        name,
        luck,
        right,
        len(edits),
        sum(index not in paid for index, _ in seen) / len(edits),
        len(seen) / len(edits),
        100 * len(model.asked) / len(edits),
        sum(not asked.shown for asked in model.asked) / calls,
        sum(asked.shown and not asked.typed_into for asked in model.asked) / calls,
        statistics.median(times),
        times[int(0.95 * (len(times) - 1))],
        stale,
        len(cancelled),
        max((_cancel_ms(asked, edits) for asked in cancelled), default=0.0),
    )


def _explained(calls: list[Asked], edit: Edit, text: str) -> bool:
    for asked in reversed(calls):
        if asked.document == edit.document and asked.at <= edit.at_s + 60:
            count = explains(asked, edit, text)
            if count >= 0:
                asked.shown = True
                asked.typed_into = asked.typed_into or count > 0
                return True
    return False


def _cancel_ms(asked: Asked, edits: list[Edit]) -> float:
    """From the last keystroke before the end of the call; a call that ended with its text found out itself."""
    before = [edit.at_s for edit in edits if edit.at_s <= asked.ended_at]
    return 1000 * (asked.ended_at - before[-1]) if not asked.text else 0.0
