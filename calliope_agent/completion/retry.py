"""How often one target is asked, and how long between: tenacity's stop, wait and retry, filled with our rules.

Decisions
1. Retry-After is obeyed exactly, never shortened, and lengthened only by our own backoff. Where it does not fit the deadline, or
   another target remains and it is longer than `PATIENCE_S`, the target is given up now: a person is waiting.
2. Full jitter on an exponential base, so that a hub's fifty containers do not come back in step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_base

from calliope_agent.errors import UpstreamError

BASE_S = 0.25
MAX_S = 8.0
PATIENCE_S = 5.0
PER_TARGET = 2


@dataclass(slots=True)
class Budget:
    """What all attempts of a request share. ``deadline`` is on the clock's scale, in seconds."""

    attempts_left: int
    deadline: float
    clock: Callable[[], float]

    def allowed(self, targets_left: int) -> int:
        """Attempts for the next target, when ``targets_left`` others come after it."""
        if targets_left == 0:
            return max(1, self.attempts_left)
        return max(1, min(PER_TARGET, self.attempts_left - targets_left))

    def remaining_s(self) -> float:
        return self.deadline - self.clock()


class Wait(wait_base):
    """Exponential with jitter, at least as long as the provider asked."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random

    def __call__(self, retry_state: RetryCallState) -> float:
        backoff = min(MAX_S, BASE_S * 2 ** (retry_state.attempt_number - 1)) * (0.5 + self._random() / 2)
        return max(float(backoff), asked_wait_s(retry_state.outcome.exception() if retry_state.outcome else None))


def asked_wait_s(error: BaseException | None) -> float:
    return (error.retry_after_s or 0.0) if isinstance(error, UpstreamError) else 0.0


def worth_retrying(error: BaseException, budget: Budget, *, more_targets: bool) -> bool:
    """Whether the same target should be asked again after ``error``."""
    if not isinstance(error, UpstreamError) or not error.retryable:
        return False
    patience = min(PATIENCE_S, budget.remaining_s()) if more_targets else budget.remaining_s()
    return asked_wait_s(error) < patience


@dataclass(frozen=True, slots=True)
class Policy:
    """The retry of one target, ready to run."""

    attempts: int
    wait: Wait
    may_retry: Callable[[BaseException], bool]
    sleep: Callable[[float], Awaitable[None]]
    before_sleep: Callable[[RetryCallState], None]

    async def run(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Raises the last attempt's error when there is to be no other.

        tenacity takes over with the first failure: its machinery costs more than all our own work on a healthy request.
        """
        try:
            await attempt()
        except UpstreamError as exc:
            failures = [exc]
        else:
            return

        async def again() -> None:
            if failures:
                raise failures.pop()
            await attempt()

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.attempts),
            wait=self.wait,
            retry=retry_if_exception(self.may_retry),
            sleep=self.sleep,
            before_sleep=self.before_sleep,
            reraise=True,
        )
        await retrying(again)
