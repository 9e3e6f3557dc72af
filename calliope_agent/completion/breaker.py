"""A breaker per target: failures inside a window open it, a probe after a while decides, success resets.

Decisions
1. Counted are faults of the target (overload, unreachable, timeouts, cuts), never a caller's mistake, a key's, or a cancellation.
2. A rate limit with a time is not a fault but an appointment: the target rests until then.
3. Half-open lets one probe through; the others see it still open, so that a sick provider is not greeted by a crowd. A probe that
   never came back (its key could not be looked up, its caller left) is forgotten after as long as the target rests.
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
    limited: bool = False
    probed_at: float | None = None


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
        now = self._clock()
        if state.open_until > now:
            return state.open_until - now
        if state.opened:
            if state.probed_at is not None and now - state.probed_at < self._open_s:
                return 1.0
            state.probed_at = now
        return 0.0

    def is_open(self, target: str) -> bool:
        """Whether the target failed so often, or its probe failed, that asking again only tries everybody's patience."""
        state = self._states.get(target)
        return state is not None and state.opened and state.open_until > self._clock()

    def refusal(self, target: str, wait_s: float) -> errors.UpstreamError:
        """The error of a target that is left alone: because it said so, or because it fails."""
        state = self._states.get(target)
        if state is not None and state.limited:
            return errors.RateLimited(
                f"{target} asked not to be asked for {wait_s:.0f} s more. Wait, or name another model.",
                retry_after_s=wait_s,
            )
        return errors.CircuitOpen(
            f"{target} failed often lately and is left alone for {wait_s:.0f} s more. Wait, or name another model.",
            retry_after_s=wait_s,
        )

    def succeeded(self, target: str) -> None:
        self._states.pop(target, None)

    def failed(self, target: str, error: errors.UpstreamError) -> None:
        now = self._clock()
        if isinstance(error, errors.RateLimited):
            self._rest(target, now, error.retry_after_s)
            return
        if not isinstance(error, FAULTS):
            self.released(target)
            return
        state = self._states.setdefault(target, _State())
        state.failures = [when for when in state.failures if now - when < self._window_s] + [now]
        if state.probed_at is not None or len(state.failures) >= self._threshold:
            state.opened, state.limited, state.probed_at = True, False, None
            state.open_until = now + self._open_s

    def _rest(self, target: str, now: float, asked_s: float | None) -> None:
        self.released(target)
        until = now + min(asked_s or 0.0, MAX_REST_S)
        state = self._states.setdefault(target, _State()) if asked_s else None
        if state is not None and until > state.open_until:
            state.open_until, state.limited = until, True

    def released(self, target: str) -> None:
        """The attempt ended without a verdict (cancelled, or the caller's mistake): another probe may go."""
        state = self._states.get(target)
        if state is not None:
            state.probed_at = None

    def forget(self, provider: str) -> None:
        """Another key or address: what its targets did before says nothing any more."""
        for target in [name for name in self._states if name.startswith(f"{provider}/")]:
            del self._states[target]
