"""The doors to IDE and agent, and the redirects of old addresses.

Decisions
1. The IDE is served in place at the root, everything but Jupyter's own first segments (`RESERVED`): a redirect would
   show another address than the one the person bookmarked, and VS Code emits relative addresses only.
2. ``/calliope/`` needs three things for a change: the owner's login, our own page's Origin, and the write token that
   only the page holds. That token is the XSRF check of this path; it is bound to this process and never in a cookie.
3. A token in the address is moved into the cookie at once by a redirect: addresses are stored, shown and sent as
   Referer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.utils import ensure_async
from tornado import web

from calliope_agent.launcher import activity, headers, pages, ports, visitor
from calliope_agent.launcher.gate import SAFE
from calliope_agent.launcher.proxy import Refused, StreamProxy
from calliope_agent.launcher.session import Session

RESERVED = (
    r"(?:api(?:/|$)|proxy(?:/|$)|calliope(?:/|$)|hub(?:/|$)|health$|oauth_callback$|login$|logout$|files/|view/|nbconvert/|"
    r"kernelspecs/|custom/|nbextensions/|static/|metrics$|terminals/|server-proxy/|lab(?:/|$)|tree(?:/|$)|doc(?:/|$)|"
    r"notebooks/|edit/|consoles/)"
)
OLD_PATHS = r"(?:ide|WAIIDE|vscode|waiide)"
OLD_PORT = 8081
WRITE_TOKEN = "X-Calliope-Write-Token"  # noqa: S105 - a header's name
TAIL_S = 2.0
BROWSER_ONLY = frozenset({"origin", "referer", "host"})


class Door(StreamProxy):
    """What IDE and agent have in common: who may come in."""

    @property
    def session(self) -> Session:
        session: Session = self.settings[Session.KEY]
        return session

    async def admit(self) -> None:
        if not self.check_host():
            raise Refused(403, "this Host is not served")
        user = await ensure_async(self.identity_provider.get_user(self))
        self.current_user = self._jupyter_current_user = user
        if user is None:
            self._send_to_login()
            return
        if not await ensure_async(self.authorizer.is_authorized(self, user, "execute", "waiide")):
            raise Refused(403, "you may not use this server")
        if self.is_websocket and not (self.token_authenticated or self.check_origin()):
            raise Refused(403, "this Origin may not do this")
        if self.request.method == "GET" and "token" in self.request.query_arguments and not self.is_websocket:
            self.away = self._without_token()

    def incoming(self, received: headers.Pairs) -> headers.Pairs:
        passed = super().incoming(received)
        policies = [value for name, value in passed if name.lower() == "content-security-policy"]
        kept = [(name, value) for name, value in passed if name.lower() != "content-security-policy"]
        return [*kept, ("Content-Security-Policy", headers.framing(", ".join(policies) or None, self.ancestors))]

    ancestors = "'self'"

    def _send_to_login(self) -> None:
        mode = self.request.headers.get("Sec-Fetch-Mode", "navigate")
        if self.is_websocket or self.request.method not in ("GET", "HEAD") or mode != "navigate":
            raise Refused(403, "log in first")
        self.away = str(self.get_login_url())
        if not self.session.under_hub:
            self.away += "?" + urlencode({"next": str(self.request.uri)})

    def _without_token(self) -> str:
        path, _, query = str(self.request.uri).partition("?")
        rest = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "token"]
        return path + ("?" + urlencode(rest) if rest else "")


class IdeRoot(Door):
    """The IDE at the root of the instance."""

    @property
    def backend(self) -> Any:  # type: ignore[override]
        return self.session.ide

    @property
    def prefix(self) -> str:
        return str(self.base_url)

    def moved(self, message: str | bytes | None) -> None:
        if not activity.is_quiet(message):
            activity.note(self.settings, "waiide", datetime.now(UTC))

    def watchers(self) -> tuple[Any, ...]:
        return (self._watch_login(),) if self.session.under_hub else ()

    async def no_backend(self, cause: str) -> None:
        who = visitor.of(self.request)
        tail = await self._last_lines() if who is not None and who.owner else []
        self.set_status(503)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", pages.POLICY)
        self.set_header("Retry-After", "2")
        self.set_header("Cache-Control", "no-store")
        children: Mapping[str, Mapping[str, Any]] = self.session.state["children"]
        self.finish(pages.ide_away(children, cause, tail, f"{self.base_url}api/status"))

    async def _last_lines(self) -> list[str]:
        """Of the IDE's log, from the launcher; none when that does not answer: the page matters more."""
        try:
            told = await self.session.client.ask({"do": "tail", "name": "ide"}, TAIL_S)
        except (ConnectionError, TimeoutError) as exc:
            self.log.warning("the launcher does not tell the IDE's last lines: %r", exc)
            return []
        return list(told.get("lines", []))[-40:]

    async def _watch_login(self) -> None:
        """A revoked login ends an open shell too, as late as everything else: when the hub's word is old."""
        provider: Any = self.identity_provider
        while True:
            await asyncio.sleep(provider.hub_auth.cache_max_age)
            if not await visitor.still_welcome(self):
                self.close(1008, "the login has ended")
                return


class IdeUnderProxy(IdeRoot):
    """The IDE at ``/proxy/8071/``, as the reference has it."""

    @property
    def prefix(self) -> str:
        return f"{self.base_url}proxy/{self.session.ide_port}/"

    def target(self) -> str:
        """``static/X``, as the reference has it, is below the build's own folder in today's VS Code."""
        path = super().target()
        return f"/{self.session.ide_static}{path[1:]}" if path.startswith("/static/") else path


class AgentDoor(Door):
    """``/calliope/``: the agent's settings page and API for the owner."""

    ancestors = "'none'"

    @property
    def backend(self) -> Any:  # type: ignore[override]
        if self.session.agent is None:
            raise Refused(404, "there is no agent in this server: USE_ALL_COMPONENTS is false")
        return self.session.agent

    @property
    def prefix(self) -> str:
        return f"{self.base_url}calliope/"

    async def admit(self) -> None:
        await super().admit()
        if self.away is not None:
            return
        who = visitor.of(self.request)
        if who is None or not who.owner:
            raise Refused(403, "only the owner of this server may see the agent's settings")
        if self.is_websocket:
            raise Refused(426, "the agent speaks no websocket")
        if not self.token_authenticated:
            self._check_page()
        _ = self.backend

    def outgoing(self) -> headers.Pairs:
        who = visitor.of(self.request)
        return [
            *((name, value) for name, value in super().outgoing() if not _browsers(name)),
            ("Authorization", f"Bearer {self.session.manage_token.reveal()}"),
            ("X-JupyterHub-User", who.name if who else ""),
            ("X-JupyterHub-Server", self.session.server_name),
            *([(WRITE_TOKEN, self.session.write_token.reveal())] if self._is_page else []),
        ]

    @property
    def patience_s(self) -> float | None:
        """A question to a model may take as long as the operator allows it: that bound is the agent's."""
        return super().patience_s if self.request.method in SAFE else None

    async def no_backend(self, cause: str) -> None:
        self.set_status(503)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", pages.POLICY.replace("'self'", "'none'"))
        self.set_header("Retry-After", "2")
        told = f"{cause} It is starting, or has failed; see {self.base_url}api/status."
        self.finish(pages.message("The AI agent does not answer", told))

    def _check_page(self) -> None:
        sent = self.request.headers
        if self.request.method not in SAFE and not self.session.may_write(sent.get(WRITE_TOKEN, "")):
            raise Refused(403, "the page's write token is missing or old; load the page again")
        if self._is_page and sent.get("Sec-Fetch-Dest", "document") != "document":
            raise Refused(403, "the settings page opens only by itself, in no frame and by no script")

    @property
    def _is_page(self) -> bool:
        """The one answer that the write token goes into; a browser tells what it wants it for."""
        return self.request.method == "GET" and str(self.request.uri).partition("?")[0] == self.prefix


class Redirect(web.RequestHandler):
    """Moves to ``target`` and what follows ``drop`` segments of the address below ``base``, not decoded, query kept."""

    def initialize(self, base: str, target: str, drop: int) -> None:
        self._base, self._target, self._drop = base, target, drop

    @allow_unauthenticated
    def get(self, *_args: str) -> None:
        path, mark, query = str(self.request.uri).partition("?")
        rest = path.removeprefix(self._base).split("/")[self._drop :]
        self.redirect(self._target + "/".join(rest).lstrip("/") + mark + query)

    head = get


def old_port_is_unused(ide_port: int) -> bool:
    return ide_port != OLD_PORT and ports.is_free(OLD_PORT)


def _browsers(name: str) -> bool:
    return name.lower() in BROWSER_ONLY or name.lower().startswith("sec-")
