"""The one error tree.

::

    AgentError
    ├── InvalidRequest 400        the body or a parameter; names the field
    ├── Unauthenticated 401       no token, or a wrong one
    ├── Forbidden 403             Origin or scope
    ├── UnknownModel 404          lists near names
    ├── NotFound 404              no such stream, request, provider
    ├── MethodNotAllowed 405
    ├── BodyTooSlow 408           a caller that stopped in the middle of its request
    ├── Conflict 409              what is there does not allow the change: set elsewhere, or to be mended first
    ├── Superseded 409            a newer keystroke took this one's place
    ├── BodyTooLarge 413
    ├── UnsupportedMediaType 415
    ├── Misdirected 421           Host
    ├── Cancelled 499             by its caller, with DELETE
    ├── UpgradeRefused 426        websocket where only HTTP is spoken
    ├── ServerStopping 503
    ├── Loop 508                  the agent was asked to call itself
    ├── ReaderTooSlow 503         fell too far behind a shared stream
    ├── ConfigError 500           settings, files, start-up; names file and line
    └── UpstreamError 502
        ├── KeyMissing 424, KeyRejected 424, LocalModelAbsent 424
        ├── QuotaExhausted 402    not retried, falls back
        ├── RateLimited 429, Overloaded 503, CircuitOpen 503
        ├── Unreachable 502, UpstreamTimeout 504
        ├── Truncated 502, Stalled 504, Malformed 502, NotAModel 502, AnswerTooLarge 502
        ├── ModelGone 404
        └── UpstreamRefused 400 ── ContextTooLong 400, ContentRefused 400

``status`` is what the client sees, ``code`` is stable and machine-readable, ``retryable`` says whether the *same*
target may be asked again, ``falls_back`` whether the next target may be. Every message says what to do next.

Decisions
1. ``Malformed`` and ``AnswerTooLarge``: a broken event is not a cut one, and the mending differs.
2. ``UpstreamRefused`` (a provider's plain 400 or 422): a provider's "bad request" is never taken for ours.
"""

from __future__ import annotations

from collections.abc import Mapping


class AgentError(Exception):
    """Base of everything this package raises on purpose."""

    status: int = 500
    code: str = "internal_error"
    retryable: bool = False
    falls_back: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = dict(headers or {})


class InvalidRequest(AgentError):
    """The request's body or a parameter is not of the promised shape."""

    status = 400
    code = "invalid_request"


class Unauthenticated(AgentError):
    """No token, or one this server did not issue."""

    status = 401
    code = "unauthenticated"


class Forbidden(AgentError):
    """A foreign Origin, or a token without the scope."""

    status = 403
    code = "forbidden"


class UnknownModel(AgentError):
    """No provider of the catalog offers the model."""

    status = 404
    code = "model_not_found"


class NotFound(AgentError):
    """No such path, stream, request or provider."""

    status = 404
    code = "not_found"


class MethodNotAllowed(AgentError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class BodyTooSlow(AgentError):
    """The request's body did not arrive in time; its connection is closed (RFC 9110 §15.5.9)."""

    status = 408
    code = "body_too_slow"


class Conflict(AgentError):
    """What is there does not allow the change: a value is set elsewhere, a name is taken, a file must be mended first."""

    status = 409
    code = "conflict"


class Superseded(AgentError):
    """A newer keystroke of the same editor and document took this request's place."""

    status = 409
    code = "superseded"


class BodyTooLarge(AgentError):
    """The request's body is over the bound."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaType(AgentError):
    """The request's body is not ``application/json``."""

    status = 415
    code = "unsupported_media_type"


class Misdirected(AgentError):
    """The Host header names somebody else (RFC 9110 §15.5.20)."""

    status = 421
    code = "misdirected_host"


class Cancelled(AgentError):
    """The answer was cancelled by its caller (``DELETE /v1/streams/{id}``); 499 as nginx has it for such ends."""

    status = 499
    code = "cancelled"


class UpgradeRefused(AgentError):
    """A websocket upgrade where only plain HTTP is spoken."""

    status = 426
    code = "upgrade_refused"


class ServerStopping(AgentError):
    """The server is draining and takes no new work."""

    status = 503
    code = "server_stopping"


class Loop(AgentError):
    """A provider's address is this very server (RFC 5842 §7.2)."""

    status = 508
    code = "loop_detected"


class ReaderTooSlow(AgentError):
    """This reader fell further behind a shared stream than its log holds."""

    status = 503
    code = "reader_too_slow"


class ConfigError(AgentError):
    """A setting or a file is wrong; the message names it with its line."""

    status = 500
    code = "config_error"


class UpstreamError(AgentError):
    """A provider failed. ``provider_status`` is its HTTP status where it gave one, ``retry_after_s`` its wish."""

    status = 502
    code = "upstream_error"
    retryable = True
    falls_back = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        provider_status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, param=param, headers=headers)
        self.provider_status = provider_status
        self.retry_after_s = retry_after_s


class KeyMissing(UpstreamError):
    """The provider needs a key and none is set."""

    status = 424
    code = "key_missing"
    retryable = False


class KeyRejected(UpstreamError):
    """The provider answered 401 or 403 to our key."""

    status = 424
    code = "key_rejected"
    retryable = False


class LocalModelAbsent(UpstreamError):
    """The embedded model's engine or weights are missing or broken; the message names the command that mends it."""

    status = 424
    code = "local_model_absent"
    retryable = False


class QuotaExhausted(UpstreamError):
    """The account has no money or quota left; waiting will not help."""

    status = 402
    code = "quota_exhausted"
    retryable = False


class RateLimited(UpstreamError):
    """Too many requests; waiting helps."""

    status = 429
    code = "rate_limited"


class Overloaded(UpstreamError):
    """The provider says it is overloaded or failing (5xx, 529)."""

    status = 503
    code = "overloaded"


class CircuitOpen(UpstreamError):
    """This target failed so often lately that it is left alone for a while."""

    status = 503
    code = "circuit_open"
    retryable = False


class Unreachable(UpstreamError):
    """No connection: refused, no route, no name, TLS, or an address we do not call."""

    status = 502
    code = "unreachable"


class UpstreamTimeout(UpstreamError):
    """No first token in time, or the whole deadline is over."""

    status = 504
    code = "upstream_timeout"


class Truncated(UpstreamError):
    """The answer ended without the provider's word that it was complete."""

    status = 502
    code = "truncated"


class Stalled(UpstreamError):
    """No bytes for the idle time in the middle of an answer."""

    status = 504
    code = "stalled"


class Malformed(UpstreamError):
    """An event or a body that no model's wire allows."""

    status = 502
    code = "malformed"


class NotAModel(UpstreamError):
    """Something answered, but not a model: a captive portal, a login page, a wrong path."""

    status = 502
    code = "not_a_model"
    retryable = False


class AnswerTooLarge(UpstreamError):
    """One answer or one event is over the bound."""

    status = 502
    code = "answer_too_large"
    retryable = False


class ModelGone(UpstreamError):
    """The provider does not know the model (any more)."""

    status = 404
    code = "model_gone"
    retryable = False


class UpstreamRefused(UpstreamError):
    """The provider finds the request itself wrong."""

    status = 400
    code = "upstream_refused"
    retryable = False
    falls_back = False


class ContextTooLong(UpstreamRefused):
    """The prompt does not fit the model's window; a target with a larger one may be asked."""

    code = "context_length_exceeded"
    falls_back = True


class ContentRefused(UpstreamRefused):
    """The provider's policy refuses the request; falls back only where configured."""

    code = "content_refused"
