"""The line of a request: route → flight → [ fallback → breaker → retry ( door ) ].

Decisions
1. The one deadline ends at the first content: a healthy long stream is never cut. Plain answers have it to their end.
2. Events before the first content are held back, so that a retry starts with a clean sheet and nobody sees two beginnings.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from tenacity import RetryCallState

from calliope_agent import errors
from calliope_agent.catalog import Target
from calliope_agent.completion.breaker import Breaker
from calliope_agent.completion.chain import Chain
from calliope_agent.completion.flight import Flight
from calliope_agent.completion.record import AttemptRecord, Record
from calliope_agent.completion.retry import Budget, Policy, Wait, worth_retrying
from calliope_agent.completion.route import Plan
from calliope_agent.keys import Key
from calliope_agent.settings import Settings
from calliope_agent.upstream.attempt import Attempt, Call, Door, Limits, Seen

log = logging.getLogger(__name__)

Landed = Callable[[Flight, Target, Key | None, Seen], None]
DoorFor = Callable[[Call, Target], Door]


@dataclass(frozen=True, slots=True)
class Clockwork:
    """Time and chance, given from outside. ``now`` is monotonic seconds of the running loop."""

    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]


class TargetKeys(Protocol):
    """Keys by target."""

    async def find(self, target: Target) -> Key | None:
        """None where the target needs none. Raises `KeyMissing`."""
        ...

    def rejected(self, target: Target) -> None:
        """The provider refused the key: what can be asked anew is asked anew at the next request."""
        ...


@dataclass(slots=True)
class Line:
    """Runs flights. ``door_for`` answers per call and target, ``landed`` is told of every whole answer."""

    door_for: DoorFor
    keys: TargetKeys
    landed: Landed
    breaker: Breaker
    clockwork: Clockwork

    def start(self, flight: Flight, plan: Plan, settings: Settings, local: Target | None = None) -> asyncio.Task[None]:
        """Begin the flight in a task of its own."""
        chain = Chain(plan, settings, local, self.breaker, flight.record)
        run = _Run(self, flight, chain, settings)
        task = asyncio.get_running_loop().create_task(run.fly(), name=f"flight {flight.call.id}")
        flight.fly(task)
        return task


@dataclass(slots=True)
class _Run:
    """One flight's way through its targets."""

    line: Line
    flight: Flight
    chain: Chain
    settings: Settings

    @property
    def record(self) -> Record:
        return self.flight.record

    async def fly(self) -> None:
        """The task: ends the flight in exactly one way, whatever happens."""
        now = self.line.clockwork.now
        targets = self.chain.targets()
        budget = Budget(self.settings.max_attempts + len(targets) - 1, now() + self._deadline_s(), now)
        try:
            async with asyncio.timeout_at(budget.deadline) as deadline:
                await self._walk(targets, budget, deadline)
        except TimeoutError:
            self._give_up(_too_late())
        except errors.UpstreamError as exc:
            self._give_up(exc)
        except errors.AgentError as exc:
            self.flight.fail(exc)
        except asyncio.CancelledError:
            self.flight.cancelled()
        except Exception:  # the one broad catch: a mistake of ours must not leave a reader waiting
            log.exception("request %s failed inside the agent", self.flight.call.id)
            self.flight.fail(
                errors.AgentError("The agent made a mistake; its log has the details under this request's id.")
            )

    def _deadline_s(self) -> float:
        return self.chain.plan.targets[0].provider.timeouts.deadline_s or self.settings.request_deadline_s

    async def _walk(self, targets: list[Target], budget: Budget, deadline: asyncio.Timeout) -> None:
        for index, target in enumerate(targets):
            left = len(targets) - index - 1
            if not self.chain.may_ask(target, left):
                continue
            try:
                await self._ask(target, budget, left, deadline)
            except errors.UpstreamError as exc:
                self.chain.failed(target, exc)
                if self.flight.committed or left == 0 or not self.chain.goes_on(target, exc):
                    raise
            else:
                return
        raise self.chain.end()

    async def _ask(self, target: Target, budget: Budget, left: int, deadline: asyncio.Timeout) -> None:
        """All attempts of one target. Raises the last one's error."""
        key = await self.line.keys.find(target)

        def may_retry(error: BaseException) -> bool:
            enough = self.flight.committed or (left > 0 and self.line.breaker.is_open(target.name))
            return not enough and worth_retrying(error, budget, more_targets=left > 0)

        async def once() -> None:
            budget.attempts_left -= 1
            await self._attempt(target, key, deadline)

        await Policy(
            attempts=budget.allowed(left),
            wait=Wait(self.line.clockwork.random),
            may_retry=may_retry,
            sleep=self.line.clockwork.sleep,
            before_sleep=self._note_wait,
        ).run(once)

    def _note_wait(self, state: RetryCallState) -> None:
        if state.next_action is not None and self.record.attempts:
            self.record.attempts[-1].waited_ms = state.next_action.sleep * 1000

    async def _attempt(self, target: Target, key: Key | None, deadline: asyncio.Timeout) -> None:
        attempt = Attempt(
            self.flight.call, target, key.value if key else None, limits_of(target, self.settings), Seen()
        )
        noted = self.record.begin(target.name, key.label if key else None)
        try:
            await self._through_door(attempt, key, deadline)
        except errors.UpstreamError as exc:
            _note_end(noted, attempt.seen, self.record, exc)
            self.line.breaker.failed(target.name, exc)
            if isinstance(exc, errors.KeyRejected):
                self.line.keys.rejected(target)
            raise
        except asyncio.CancelledError:
            noted.code = "cancelled"
            late = _too_late() if deadline.expired() else None
            _note_end(noted, attempt.seen, self.record, late)
            self.line.breaker.failed(target.name, late) if late else self.line.breaker.released(target.name)
            raise
        _note_end(noted, attempt.seen, self.record)
        self.line.breaker.succeeded(target.name)

    async def _through_door(self, attempt: Attempt, key: Key | None, deadline: asyncio.Timeout) -> None:
        self.record.target = attempt.target.name
        plain = None
        if attempt.call.stream:
            await self._stream(attempt, deadline)
        else:
            plain = await self.line.door_for(attempt.call, attempt.target).plain(attempt)
        self._remember(attempt)
        self.flight.land(plain)
        self.line.landed(self.flight, attempt.target, key, attempt.seen)

    async def _stream(self, attempt: Attempt, deadline: asyncio.Timeout) -> None:
        held: list[bytes] = []
        write = self.flight.log.write
        door = self.line.door_for(attempt.call, attempt.target)
        first_token_s = attempt.limits.first_token_s
        try:
            async with asyncio.timeout(first_token_s) as first_token, aclosing(door.stream(attempt)) as parts:
                async for part in parts:
                    if self.flight.committed:
                        await write(part.frames)
                        continue
                    held += part.frames
                    if part.content:
                        first_token.reschedule(None)
                        deadline.reschedule(None)
                        self.flight.commit(held)
        except TimeoutError as exc:
            if not first_token.expired():
                raise
            raise errors.UpstreamTimeout(
                f"No content came within {first_token_s:g} s. Ask again, or a faster model."
            ) from exc
        if not self.flight.committed:
            self.flight.commit(held)

    def _remember(self, attempt: Attempt) -> None:
        seen = attempt.seen
        self.record.told(seen.finish, seen.usage)
        if seen.arguments_incomplete:
            self.record.notes.append("arguments_incomplete: a tool call's arguments are not valid JSON")

    def _give_up(self, last: errors.UpstreamError) -> None:
        """The budget is spent, so the client is told not to multiply it."""
        error = last if self.flight.committed else self.chain.verdict(last)
        error.headers["x-should-retry"] = "false"
        if error.retry_after_s is not None:
            error.headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        self.flight.fail(error)


def limits_of(target: Target, settings: Settings) -> Limits:
    """The settings, and the provider's own where its file has them."""
    own = target.provider.timeouts
    return Limits(
        connect_s=own.connect_s or settings.connect_timeout_s,
        first_token_s=own.first_token_s or settings.first_token_timeout_s,
        idle_s=own.idle_s or settings.idle_timeout_s,
        answer_bytes=settings.max_answer_mb << 20,
    )


def _too_late() -> errors.UpstreamTimeout:
    return errors.UpstreamTimeout("The deadline was over before an answer came. Ask again, or a faster model.")


def _note_end(noted: AttemptRecord, seen: Seen, record: Record, error: errors.UpstreamError | None = None) -> None:
    noted.ended_ms = record.now_ms()
    noted.status = seen.status
    noted.provider_request_id = seen.provider_request_id
    if error is not None:
        noted.code = error.code
        noted.note = error.message
