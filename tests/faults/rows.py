"""The rows of the matrix: what the provider does, and what the caller must see, streamed and plain.

A case's answer is a script of tests/upstream; the same script means the same on both wires. ``but`` holds what differs on one way,
by the way's slug, each for a reason that stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.outcomes import Broken, Expected, Failed, Whole
from tests.faults.ways import KEYS, Way
from tests.upstream import (
    Answer,
    done_only,
    error_event,
    hang,
    hang_up,
    html,
    huge,
    malformed,
    nothing,
    raw,
    reset,
    status,
    text,
    tool_call,
)

PLANTED = "sk-canary-planted-by-the-provider-91c3"
SECRETIVE = f"internal failure at host canary-db-7 with {PLANTED}"
QUOTED = f"the field n is wrong; you sent {KEYS['first']} and {PLANTED}"
HELLO = text("Hel", "lo")
LONGER = text("Hel", "lo", " never sent")
MANY = 700_000  # two pieces are more than the rig's bound of one megabyte


@dataclass(frozen=True)
class Case:
    """One script and its result."""

    answer: Answer
    expected: Expected
    provider: str = "first"
    but: Mapping[str, Expected] = field(default_factory=dict)
    waits: tuple[float, ...] = ()
    told_wait: str | None = None

    def expected_on(self, way: Way) -> Expected:
        return self.but.get(way.slug, self.expected)


@dataclass(frozen=True)
class Row:
    """One fault, in what a provider does to a stream and what comes nearest to it in one whole body."""

    name: str
    stream: Case
    plain: Case


def both(name: str, answer: Answer, expected: Expected, provider: str = "first") -> Row:
    case = Case(answer, expected, provider)
    return Row(name, case, case)


def _refusal(name: str, code: int, expected: Expected, message: str = SECRETIVE, error_code: str | None = None) -> Row:
    answer = status(code, message=message, error_code=error_code)
    return both(name, answer.echoing_key() if message is SECRETIVE else answer, expected)


def _waiting(name: str, headers: Mapping[str, str], code: int, expected: Expected, wait: float, told: str) -> Row:
    answer = status(code, message=SECRETIVE, headers=headers).echoing_key()
    case = Case(answer, expected, waits=(wait, wait), told_wait=told)
    return Row(name, case, case)


def _answers(name: str, answer: Answer, expected: Expected, plain: Expected | None = None) -> Row:
    return Row(name, Case(answer, expected), Case(answer, plain or expected))


# Who wants only the end of the message is told so by message_stop; the OpenAI wire's end is its finish reason.
_CUT_AFTER_FINISH = Broken("Hello", "truncated", "stop")
_NEEDS_STOP = {"anthropic": _CUT_AFTER_FINISH, "chat-to-anthropic": _CUT_AFTER_FINISH}
# litellm reads every 200 that it cannot make sense of as an answer without a finish.
_NO_FINISH = {"litellm": Failed("truncated")}


_JSON_ERROR = raw(b'{"error": {"message": "%s", "code": 503}}' % SECRETIVE.encode())


_CUT_500 = Case(status(500, message=SECRETIVE).cut_at(10), Failed("overloaded"), but=_NO_FINISH)


def _objects(finish: str, broken: str) -> Mapping[str, Expected]:
    """A tool call of a whole message is an object on the Anthropic wire: it cannot be half. A broken one is told as such."""
    told = json.dumps({"arguments_incomplete": broken})
    empty = Whole("read({})", finish)
    return {
        "anthropic": empty,
        "chat-to-anthropic": empty,
        "messages-to-openai": Whole(f"read({told})", finish, flagged=True),
    }


LIES = (
    Row(
        "clean end after two words, no finish reason",
        Case(HELLO.without_finish().without_done(), Broken("Hello", "truncated")),
        # A whole response has no reason but a status, and without it is none.
        Case(HELLO.without_finish(), Failed("truncated"), but={"responses": Failed("malformed")}),
    ),
    Row(
        "two words and the end marker, no finish reason",
        Case(HELLO.without_finish(), Broken("Hello", "truncated")),
        Case(HELLO.cut_after(1), Failed("malformed"), but=_NO_FINISH),
    ),
    Row(
        "end marker only",
        Case(done_only(), Failed("truncated")),
        Case(raw(b"{}"), Failed("malformed"), but=_NO_FINISH),
    ),
    Row(
        "200 and nothing at all",
        Case(nothing(), Failed("truncated")),
        Case(raw(b""), Failed("truncated")),
    ),
    both("200 and an HTML page", html(), Failed("not_a_model")),
    Row(
        "200 and an HTML page that says it is the right type",
        Case(raw(b"<!DOCTYPE html><p>Log in", "text/event-stream"), Failed("truncated")),
        Case(raw(b"<!DOCTYPE html><p>Log in"), Failed("not_a_model"), but=_NO_FINISH),
    ),
    Row(
        "finish reason but no end marker",
        Case(HELLO.without_done(), Whole("Hello"), but=_NEEDS_STOP),
        Case(HELLO.without_done(), Whole("Hello")),
    ),
    _answers("finish reason sent twice", HELLO.finish_with("stop", times=2), Whole("Hello")),
    _answers("role-only start, three times", HELLO.opening(3), Whole("Hello")),
    _answers("verified finish without any text", text(), Whole("")),
    _answers("finish reason content_filter", HELLO.finish_with("content_filter"), Whole("Hello", "content_filter")),
    _answers("usage absent", HELLO.without_usage(), Whole("Hello")),
)

BREAKS = (
    Row(
        "connection closed after two words",
        Case(LONGER.drop_after(2), Broken("Hello", "truncated")),
        Case(LONGER.drop_after(2), Failed("truncated")),
    ),
    Row(
        "connection reset after two words",
        Case(LONGER.reset_after(2), Broken("Hello", "truncated")),
        Case(LONGER.reset_after(2), Failed("truncated")),
    ),
    Row(
        "connection closed after the role",
        Case(HELLO.drop_after(0), Failed("truncated")),
        Case(HELLO.drop_after(0), Failed("truncated")),
    ),
    Row(
        "broken chunked framing after two words",
        # Under litellm the broken framing leaves aiohttp's reader waiting: only the silence is noticed.
        Case(LONGER.garble_after(2), Broken("Hello", "truncated"), "brief", {"litellm": Broken("Hello", "stalled")}),
        Case(HELLO.cut_at(0, "reset"), Failed("truncated")),
    ),
    Row(
        "error object after two words",
        Case(HELLO.then_error(503, SECRETIVE), Broken("Hello", "overloaded")),
        Case(HELLO.then_error(503, SECRETIVE), Failed("overloaded")),
    ),
    Row(
        "error object as the first event",
        Case(error_event(503, SECRETIVE), Failed("overloaded")),
        Case(error_event(503, SECRETIVE), Failed("overloaded")),
    ),
    Row(
        "rate limit as the first event",
        Case(error_event(429, SECRETIVE), Failed("rate_limited")),
        Case(error_event(429, SECRETIVE), Failed("rate_limited")),
    ),
    Row(
        "error object after the role",
        Case(text().then_error(529, SECRETIVE), Failed("overloaded")),
        Case(text().then_error(529, SECRETIVE), Failed("overloaded")),
    ),
    Row(
        "200 and a JSON error where a stream belongs",
        Case(_JSON_ERROR, Failed("overloaded"), but=_NO_FINISH),
        Case(_JSON_ERROR, Failed("overloaded"), but=_NO_FINISH),
    ),
    Row(
        "malformed event first",
        Case(malformed(), Failed("malformed")),
        Case(raw(b'{"choices": [{'), Failed("malformed"), but=_NO_FINISH),
    ),
    Row(
        "malformed event after two words",
        Case(HELLO.then_raw(b'data: {"choices": [{"delta": {"content": "canary\n\n'), Broken("Hello", "malformed")),
        Case(raw(b"[1, 2]"), Failed("malformed"), but=_NO_FINISH),
    ),
    Row(
        "tool arguments cut, finish reason length",
        Case(
            tool_call("read", '{"path": "a').finish_with("length"), Whole('read({"path": "a)', "length", flagged=True)
        ),
        Case(
            tool_call("read", '{"path": "a').finish_with("length"),
            Whole('read({"path": "a)', "length", flagged=True),
            but=_objects("length", '{"path": "a'),
        ),
    ),
    Row(
        "tool call with broken JSON arguments",
        Case(tool_call("read", '{"path": ', "a}"), Whole('read({"path": a})', "tool_calls", flagged=True)),
        Case(
            tool_call("read", '{"path": ', "a}"),
            Whole('read({"path": a})', "tool_calls", flagged=True),
            but=_objects("tool_calls", '{"path": a}'),
        ),
    ),
    Row(
        "answer larger than the bound",
        Case(text("x" * MANY, "y" * MANY), Broken("x" * MANY, "answer_too_large")),
        Case(huge(2 * MANY), Failed("answer_too_large"), but=_NO_FINISH),
    ),
    Row(
        "more than the bound before the first word",
        Case(
            Answer().then_raw(b": " + b"x" * 2 * MANY + b"\n\n"),
            Failed("answer_too_large"),
            but={"litellm": Whole("")},  # litellm drops comments before we could count them
        ),
        Case(text("x" * 2 * MANY), Failed("answer_too_large")),
    ),
)

SILENCES = (
    Row(
        "no answer to the request",
        Case(hang(), Failed("upstream_timeout"), "slow"),  # thinking is no stall: that begins with the first byte
        Case(hang(), Failed("upstream_timeout", at_once=True), "late"),
    ),
    Row(
        "no event after the headers",
        Case(HELLO.opening(0).stall_after(0), Failed("upstream_timeout"), "slow"),
        Case(HELLO.stall_after(0), Failed("upstream_timeout", at_once=True), "late"),
    ),
    Row(
        "stall after the role",
        Case(HELLO.stall_after(0), Failed("stalled"), "silent"),
        Case(HELLO.stall_after(0), Failed("upstream_timeout", at_once=True), "late"),
    ),
    Row(
        "stall after two words",
        Case(LONGER.stall_after(2), Broken("Hello", "stalled"), "silent"),
        Case(LONGER.stall_after(2), Failed("upstream_timeout", at_once=True), "late"),
    ),
    Row(
        "no first word in time",
        Case(HELLO.stall_after(0), Failed("upstream_timeout"), "slow"),
        Case(HELLO.stall_after(0), Failed("upstream_timeout", at_once=True), "late"),
    ),
)

REFUSALS = (
    _waiting("429 with Retry-After: 2", {"Retry-After": "2"}, 429, Failed("rate_limited"), 2, "2"),
    _waiting("429 with retry-after-ms: 1500", {"retry-after-ms": "1500"}, 429, Failed("rate_limited"), 1.5, "2"),
    _waiting("503 with Retry-After: 3", {"Retry-After": "3"}, 503, Failed("overloaded"), 3, "3"),
    _refusal("429 without a time", 429, Failed("rate_limited")),
    _refusal("429 insufficient_quota", 429, Failed("quota_exhausted"), error_code="insufficient_quota"),
    _refusal("500", 500, Failed("overloaded")),
    Row("500 whose body breaks off", _CUT_500, _CUT_500),
    _refusal("502", 502, Failed("overloaded")),
    _refusal("529", 529, Failed("overloaded")),
    _refusal("401", 401, Failed("key_rejected")),
    _refusal("403", 403, Failed("key_rejected")),
    _refusal("402", 402, Failed("quota_exhausted")),
    _refusal("404", 404, Failed("model_gone"), QUOTED),
    both("404 and an HTML page", html(404), Failed("not_a_model")),
    _refusal("400", 400, Failed("upstream_refused"), QUOTED),
    _refusal("413", 413, Failed("upstream_refused"), QUOTED),
    _refusal("422", 422, Failed("upstream_refused"), QUOTED),
    _refusal("400 prompt too long", 400, Failed("context_length_exceeded"), f"prompt is too long; {QUOTED}"),
    _refusal("400 content policy", 400, Failed("content_refused"), f"refused by our content policy; {QUOTED}"),
    both(
        "302 elsewhere", raw(b"", "text/plain", 302).with_headers({"Location": "/v1/elsewhere"}), Failed("not_a_model")
    ),
    both(
        "307 elsewhere", raw(b"", "text/plain", 307).with_headers({"Location": "/v1/elsewhere"}), Failed("not_a_model")
    ),
    both("connection refused", HELLO, Failed("unreachable", reaches=False), "dead"),
    both("connection closed without an answer", hang_up(), Failed("unreachable")),
    both("connection reset without an answer", reset(), Failed("unreachable")),
)

GROUPS: Mapping[str, tuple[Row, ...]] = {
    "The provider's end of the answer": LIES,
    "The answer breaks": BREAKS,
    "Silence": SILENCES,
    "The provider refuses or is not there": REFUSALS,
}
# These wait for time to pass, so they are played all at once.
SLOW = SILENCES
ROWS = tuple(row for group in GROUPS.values() for row in group)
# What ends most answers in practice. Rows that only repeat one of these in other words cost the suite more than they would tell.
ESSENTIAL = frozenset(
    {
        "clean end after two words, no finish reason",
        "200 and nothing at all",
        "200 and an HTML page",
        "connection closed after two words",
        "connection reset after two words",
        "error object after two words",
        "error object as the first event",
        "malformed event after two words",
        *(row.name for row in SILENCES),
        "429 with Retry-After: 2",
        "500",
        "401",
        "400 prompt too long",
        "connection refused",
        "connection closed without an answer",
    }
)


def rows_of(way: Way) -> tuple[Row, ...]:
    """The rows that are played on a way."""
    return tuple(row for row in ROWS if row.name in ESSENTIAL) if way.essential else ROWS
