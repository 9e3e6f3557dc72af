"""Who may come in: Host, Origin, token and scope, before any body is read.

Decisions
1. The Host's port is not compared: DNS rebinding is about names, and port forwards of the person's own change ports.
2. Any Origin that is not this server's own is refused, localhost's other ports included: a page of the person's dev server is not
   the person (opencode's CVE-2026-22812 began there).
3. ``HEAD /`` is open like ``/health``: Claude Code asks it before it has a token, and it tells nothing.
4. Of a header that is there twice every value has to pass: which one counts is what smuggling lives on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from calliope_agent.api.headers import Headers
from calliope_agent.errors import Forbidden, Misdirected, Unauthenticated
from calliope_agent.secret import Secret

Scope = Literal["complete", "manage", "metrics"]
_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?")
_HOW = 'Use the token of `calliope-agent token`, or `eval "$(calliope-agent env)"`.'


@dataclass(frozen=True, slots=True)
class Tokens:
    """What callers may show; a missing metrics token means that only the others read /metrics."""

    complete: Secret
    manage: Secret
    metrics: Secret | None = None

    def scope(self, shown: str) -> Scope | None:
        """All are compared, so that the time tells nothing about which one was near."""
        is_manage = self.manage.matches(shown)
        is_complete = self.complete.matches(shown)
        is_metrics = self.metrics is not None and self.metrics.matches(shown)
        if is_manage:
            return "manage"
        if is_complete:
            return "complete"
        return "metrics" if is_metrics else None


def check_host(headers: Headers) -> None:
    """Raises `Misdirected` unless there is one Host, a name of the loopback."""
    given = headers.getlist("host")
    if len(given) != 1 or _HOST.fullmatch(given[0].lower()) is None:
        raise Misdirected("This server answers only to 127.0.0.1 and localhost. Use that name in the base URL.")


def check_origin(headers: Headers) -> None:
    """Raises `Forbidden` for a foreign page's request. Programs send neither header."""
    if not all(_is_own(origin, headers.get("host", "")) for origin in headers.getlist("origin")):
        raise Forbidden("Requests of other web pages are refused. Call this server from a program, not from a page.")
    if not all(site in ("none", "same-origin") for site in headers.getlist("sec-fetch-site")):
        raise Forbidden("Cross-site requests are refused. Call this server from a program, not from a page.")


def check_token(headers: Mapping[str, str], tokens: Tokens, needed: Scope) -> Scope:
    """The caller's scope. Raises `Unauthenticated` or `Forbidden`."""
    shown = _shown(headers)
    if shown is None:
        raise Unauthenticated(f"This server needs a token. {_HOW}")
    scope = tokens.scope(shown)
    if scope is None:
        raise Unauthenticated(f"This token is not one of this server's. {_HOW}")
    if scope in {"manage", needed} or (needed == "metrics" and scope == "complete"):
        return scope
    raise Forbidden(
        f"This needs a token with the scope {needed!r}; yours has {scope!r}. Settings are changed in the settings page or "
        "with the calliope-agent command."
    )


def _shown(headers: Mapping[str, str]) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or None


def _is_own(origin: str, host: str) -> bool:
    """By comparison alone, the host having passed `check_host`: an Origin is scheme and host, nothing else."""
    return origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}
