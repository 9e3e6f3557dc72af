"""Typed-through: what is left of a suggestion when the person has typed its beginning.

Decisions
1. Valid means: the same key, the same suffix, and a prefix that is the old one plus characters which the suggestion
   begins with. Nothing is guessed from distances or line numbers, so a jump, a deletion or an edit above that the
   model had seen finds nothing.
2. Windows of one document may begin at different lines (ours move in steps, an editor may send its last lines only).
   Then the shared part must be equal and at least `LEAST_OVERLAP` long, and the new window may show less than the old
   one, not more, unless ours cut it. Two readings of one place (a long run of equal lines) count as none.
3. The one change of the suffix that is accepted: the closing brackets or quotes that editors set behind the cursor
   for the ones just typed. The suggestion is then cut where it closes them itself, so that old prefix, typed text,
   rest and closers still spell the suggestion. Without this every typed bracket would throw the suggestion away.
"""

from __future__ import annotations

from dataclasses import dataclass

from calliope_agent.inline.place import Place
from calliope_agent.inline.rules import CLOSERS, PAIRS, QUOTES, is_escaped

LEAST_OVERLAP = 512
_ANCHOR = 128
_MOST_TYPED = 2000
_MOST_CLOSERS = 4


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed since a place, and the closers that the editor set behind the cursor meanwhile."""

    text: str
    closers: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a suggestion. ``settled``: an empty text is the answer, since only the set closers follow."""

    text: str
    settled: bool = False


def typed_since(origin: Place, now: Place) -> Typed | None:
    """What leads from one place to the other by typing alone, or none."""
    if origin.key != now.key:
        return None
    text = _growth(origin, now)
    if text is None:
        return None
    if origin.after == now.after:
        return Typed(text)
    closers = _closers_for(text)
    if not closers or len(closers) > _MOST_CLOSERS or not now.after.startswith(closers):
        return None
    return Typed(text, closers) if now.after[len(closers) :] == origin.after else None


def left_of(suggestion: str, typed: Typed) -> Left | None:
    """The suggestion without its typed beginning, or none where it does not begin so."""
    if not suggestion.startswith(typed.text):
        return None
    left = suggestion[len(typed.text) :]
    return _up_to_closer(typed.text, left, typed.closers[0]) if typed.closers else Left(left)


def may_follow(suggestion: str, typed: Typed) -> bool:
    """A running suggestion that is shorter than what was typed may still grow into it."""
    return len(suggestion) < len(typed.text) and typed.text.startswith(suggestion)


def _growth(origin: Place, now: Place) -> str | None:
    if not origin.cut_before and not now.cut_before and now.before.startswith(origin.before):
        return now.before[len(origin.before) :]
    if len(origin.before) < LEAST_OVERLAP:
        return None
    ends = [end for end in _ends(now.before, origin.before[-_ANCHOR:]) if _aligned(origin, now.before[:end])]
    return now.before[ends[0] :] if len(ends) == 1 else None


def _ends(text: str, anchor: str) -> list[int]:
    """Where ``anchor`` ends in ``text``, from the last `_MOST_TYPED` characters."""
    found = []
    at = text.find(anchor, max(0, len(text) - _MOST_TYPED - len(anchor)))
    while at >= 0:
        found.append(at + len(anchor))
        at = text.find(anchor, at + 1)
    return found


def _aligned(origin: Place, before: str) -> bool:
    size = min(len(origin.before), len(before))
    shows_more = len(before) > len(origin.before)
    if size < LEAST_OVERLAP or (shows_more and not origin.cut_before):
        return False
    return before[-size:] == origin.before[-size:]


def _closers_for(text: str) -> str:
    """The closers of all brackets and quotes that ``text`` opens and does not close, innermost first."""
    stack: list[str] = []
    for char in text:
        if stack and char == stack[-1]:
            stack.pop()
        elif stack and stack[-1] in QUOTES:
            continue
        elif char in PAIRS:
            stack.append(PAIRS[char])
        elif char in QUOTES:
            stack.append(char)
        elif char in CLOSERS:
            return ""
    return "".join(reversed(stack))


def _up_to_closer(typed: str, left: str, closer: str) -> Left | None:
    """The text inside the set closers; none where the suggestion closes with something else."""
    depth = 0
    for at, char in enumerate(left):
        if closer in QUOTES:
            if char == closer and not is_escaped(typed + left[:at]):
                return Left(left[:at], settled=True)
        elif char in PAIRS:
            depth += 1
        elif char in CLOSERS and depth:
            depth -= 1
        elif char in CLOSERS:
            return Left(left[:at], settled=True) if char == closer else None
    return Left(left)
