"""A breaker per target: failures inside a window open it, a probe after a while decides, success resets.

Decisions
1. Counted are faults of the target (overload, unreachable, timeouts, cuts), never a caller's mistake, a key's, or a cancellation.
2. A rate limit with a time is not a fault but an appointment: the target rests until then.
3. Half-open lets one probe through; the others see it still open, so that a sick provider is not greeted by a crowd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from calliope_agent import errors

FAULTS = (
    errors.Overloaded,
    errors.Unreachable,
    errors.UpstreamTimeout,
    errors.Stalled,
    errors.Truncated,
    errors.Malformed,
    errors.NotAModel,
)
MAX_REST_S = 300.0


@dataclass(slots=True)
class _State:
    failures: list[float] = field(default_factory=list)
    open_until: float = 0.0
    opened: bool = False
    probing: bool = False


class Breaker:
    """``threshold`` faults within ``window_s`` open a target for ``open_s``. ``clock`` gives seconds, monotonic."""

    def __init__(
        self, clock: Callable[[], float], *, threshold: int = 5, window_s: float = 60.0, open_s: float = 30.0
    ) -> None:
        self._clock = clock
        self._threshold = threshold
        self._window_s = window_s
        self._open_s = open_s
        self._states: dict[str, _State] = {}

    def wait_s(self, target: str) -> float:
        """Seconds until the target may be asked; 0 means now. Asking when 0 takes the half-open probe, if there is one."""
        state = self._states.get(target)
        if state is None:
            return 0.0
        left = state.open_until - self._clock()
        if left > 0:
            return left
        if state.opened and state.probing:
            return 1.0
        state.probing = state.opened
        return 0.0

    def succeeded(self, target: str) -> None:
        self._states.pop(target, None)

    def failed(self, target: str, error: errors.UpstreamError) -> None:
        now = self._clock()
        if isinstance(error, errors.RateLimited):
            if error.retry_after_s is not None:
                state = self._states.setdefault(target, _State())
                state.probing = False
                state.open_until = max(state.open_until, now + min(error.retry_after_s, MAX_REST_S))
            return
        if not isinstance(error, FAULTS):
            self.released(target)
            return
        state = self._states.setdefault(target, _State())
        state.failures = [when for when in state.failures if now - when < self._window_s] + [now]
        if state.probing or len(state.failures) >= self._threshold:
            state.opened, state.probing = True, False
            state.open_until = now + self._open_s

    def released(self, target: str) -> None:
        """The attempt ended without a verdict (cancelled, or the caller's mistake): another probe may go."""
        state = self._states.get(target)
        if state is not None:
            state.probing = False

    def forget(self, provider: str) -> None:
        """Another key or address: what its targets did before says nothing any more."""
        for target in [name for name in self._states if name.startswith(f"{provider}/")]:
            del self._states[target]
