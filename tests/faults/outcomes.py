"""What a caller may get to see, and what each failure costs: the vocabulary of the matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

CALLS = 3
"""CALLIOPE_MAX_ATTEMPTS: how often a provider without a fallback is asked about a failure that may pass."""
CALLS_BEFORE_FALLBACK = 2


class Fate(NamedTuple):
    """``status`` is the caller's, ``passing`` says that the same target is asked again, ``falls_back`` that the next one is."""

    status: int
    passing: bool
    falls_back: bool


FATES = {
    "truncated": Fate(502, True, True),
    "malformed": Fate(502, True, True),
    "unreachable": Fate(502, True, True),
    "not_a_model": Fate(502, False, True),
    "answer_too_large": Fate(502, False, True),
    "overloaded": Fate(503, True, True),
    "stalled": Fate(504, True, True),
    "upstream_timeout": Fate(504, True, True),
    "rate_limited": Fate(429, True, True),
    "quota_exhausted": Fate(402, False, True),
    "key_rejected": Fate(424, False, True),
    "model_gone": Fate(404, False, True),
    "context_length_exceeded": Fate(400, False, True),
    "upstream_refused": Fate(400, False, False),
    "content_refused": Fate(400, False, False),
}


@dataclass(frozen=True)
class Outcome:
    """``said`` is the text and the tool calls that the caller read, ``finish`` the reason in OpenAI's words, ``code`` the error's.

    ``status`` 200 with a code is an error event after ``said``. ``calls`` counts the requests at the first and the second provider.
    """

    status: int
    said: str
    finish: str | None
    code: str | None
    calls: tuple[int, int]
    flagged: bool = False

    def __str__(self) -> str:
        calls = " + ".join(str(count) for count in self.calls if count) or "0"
        told = f"“{self.said}”" if self.said else "no text"
        flag = ", flagged `arguments_incomplete`" if self.flagged else ""
        if self.code is None:
            return f"{told}, `{self.finish}`{flag} ({calls})"
        if self.status == 200:
            finished = f", `{self.finish}`" if self.finish else ""
            return f"{told}{finished}, then error event `{self.code}` ({calls})"
        return f"{self.status} `{self.code}` ({calls})"


RESCUED = "From the second"


@dataclass(frozen=True)
class Whole:
    """A complete answer, as the provider gave it."""

    said: str
    finish: str = "stop"
    flagged: bool = False

    def outcome(self, *, fallback: bool) -> Outcome:
        del fallback
        return Outcome(200, self.said, self.finish, None, (1, 0), self.flagged)


@dataclass(frozen=True)
class Broken:
    """Content came and then a failure: an error event ends the stream, nobody is asked again."""

    said: str
    code: str
    finish: str | None = None

    def outcome(self, *, fallback: bool) -> Outcome:
        del fallback
        return Outcome(200, self.said, self.finish, self.code, (1, 0))


@dataclass(frozen=True)
class Failed:
    """No content came: the failure has its own HTTP status, or the next target answers.

    ``at_once`` says that the time of the whole request is over with the first attempt. ``reaches`` is False where no provider
    notices the attempt.
    """

    code: str
    at_once: bool = False
    reaches: bool = True

    def outcome(self, *, fallback: bool) -> Outcome:
        fate = FATES[self.code]
        again = fate.passing and not self.at_once
        if fallback and fate.falls_back and not self.at_once:
            asked = CALLS_BEFORE_FALLBACK if again else 1
            return replace(Whole(RESCUED).outcome(fallback=True), calls=(asked * self.reaches, 1))
        asked = CALLS if again else 1
        return Outcome(fate.status, "", None, self.code, (asked * self.reaches, 0))


Expected = Whole | Broken | Failed
