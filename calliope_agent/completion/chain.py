"""Whom a request may ask: its targets in order, what speaks against each of them now, and what came of those that were asked.

Decisions
1. When every target failed, the first one's error is told, since that is the model the person asked for; the others are listed.
2. An explicitly named model is asked even when its breaker is open and no other target remains: the person may know better.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from calliope_agent import errors
from calliope_agent.catalog import Target
from calliope_agent.completion.breaker import Breaker
from calliope_agent.completion.record import Record
from calliope_agent.completion.route import Plan
from calliope_agent.settings import Settings

AWAY = (errors.Unreachable, errors.UpstreamTimeout, errors.CircuitOpen, errors.Overloaded)


@dataclass(slots=True)
class Chain:
    """``local`` is the embedded model's target, asked when all others are away and CALLIOPE_OFFLINE says so."""

    plan: Plan
    settings: Settings
    local: Target | None
    breaker: Breaker
    record: Record
    failures: list[tuple[Target, errors.UpstreamError]] = field(default_factory=list)

    def targets(self) -> list[Target]:
        """The plan's, and the local one behind them where it may help out."""
        targets = list(self.plan.targets)
        offline = self.settings.offline == "local" and not self.plan.explicit
        if offline and self.local is not None and self.local.name not in {target.name for target in targets}:
            targets.append(self.local)
        return targets

    def may_ask(self, target: Target, left: int) -> bool:
        """Whether the target fits this call now; what speaks against it is noted or counted as its failure."""
        if target is self.local and not self._all_away():
            return False
        if not self._is_wide_enough(target):
            self.record.notes.append(f"{target.name} skipped: its window is not larger")
            return False
        wait_s = self.breaker.wait_s(target.name)
        if wait_s <= 0:
            return True
        if self.plan.explicit and target is self.plan.targets[0] and left == 0:
            self.record.notes.append(f"{target.name} failed often lately and is asked all the same, since it was named")
            return True
        error = self.breaker.refusal(target.name, wait_s)
        noted = self.record.begin(target.name, None)
        noted.note, noted.code, noted.ended_ms = error.message, error.code, noted.started_ms
        self.failed(target, error)
        self._falls_back_from(target, error)
        return False

    def failed(self, target: Target, error: errors.UpstreamError) -> None:
        """The target was asked, or left alone, in vain."""
        self.failures.append((target, error))

    def goes_on(self, target: Target, error: errors.UpstreamError) -> bool:
        """Whether the next target may be asked after this failure; the record is told why it was."""
        refused = isinstance(error, errors.ContentRefused)
        if not (self.settings.fallback_on_refusal if refused else error.falls_back):
            return False
        self._falls_back_from(target, error)
        return True

    def end(self) -> errors.UpstreamError:
        """What to raise when there is nobody left to ask."""
        return self.failures[-1][1] if self.failures else errors.CircuitOpen("Every target is left alone for a while.")

    def verdict(self, last: errors.UpstreamError) -> errors.UpstreamError:
        """The error that stands for all failures; ``last`` where there is no other."""
        error = self.failures[0][1] if self.failures else last
        others = [f"{target.name}: {failure.code}" for target, failure in self.failures if failure is not error]
        if others:
            error.message = f"{error.message} Also tried: {', '.join(others)}."
        return error

    def _falls_back_from(self, target: Target, error: errors.UpstreamError) -> None:
        self.record.fallback_cause = self.record.fallback_cause or f"{error.code} at {target.name}"

    def _all_away(self) -> bool:
        away = bool(self.failures) and all(isinstance(error, AWAY) for _, error in self.failures)
        if away:
            self.record.notes.append("every remote target is away, so the local model answers (CALLIOPE_OFFLINE=local)")
        return away

    def _is_wide_enough(self, target: Target) -> bool:
        """Wider than every target that the prompt was too long for. Unknown windows get the benefit of the doubt."""
        narrow = (one.model.context_tokens for one, error in self.failures if isinstance(error, errors.ContextTooLong))
        window = target.model.context_tokens
        return all(window is None or other is None or window > other for other in narrow)
