"""The Jupyter Server extension: our routes before Jupyter's, headers on every answer, the idle clock.

Decisions
1. Without the launcher's descriptor the extension does nothing and says so: it is no extension for other servers.
2. The hub's token leaves the process's environment once Jupyter has read it, so that terminals and kernels start
   without it; the process itself cannot be read by others of the same user (`isolated`).
3. Security headers are an OutputTransform, the one step that every answer of the application passes: pages, errors,
   redirects, 304, proxied ones and the 101 of a websocket.
4. The launcher leaves the main port when Jupyter is about to serve it (`handover`), not when this extension loads: under
   a hub that is away, Jupyter waits in between, and /health must go on answering.
"""

from __future__ import annotations

import asyncio
import os
import re
from datetime import UTC, datetime
from typing import Any

from tornado import httputil, routing, web

from calliope_agent.launcher import activity, handover, routes, routes_api, visitor
from calliope_agent.launcher.control import FD_VARIABLE, Client
from calliope_agent.launcher.gate import Gate, Refuse, Rules
from calliope_agent.launcher.headers import SECURITY
from calliope_agent.launcher.session import Session

IDLE_LOOKS_S = 5.0
SECRETS = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "JUPYTER_TOKEN", FD_VARIABLE)
LOCAL_ONLY = (
    "All servers of this hub share one origin; use a subdomain per user between people who do not trust each other."
)


class OnEveryAnswer(web.OutputTransform):
    """Security headers, and the visitor's name for the logged-in visitor."""

    server_name = ""

    def __init__(self, request: httputil.HTTPServerRequest) -> None:
        self._request = request

    def transform_first_chunk(
        self,
        status_code: int,
        headers: httputil.HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: ARG002 - tornado's signature
    ) -> tuple[int, httputil.HTTPHeaders, bytes]:
        for name, value in SECURITY.items():
            headers[name] = value
        headers.setdefault("Content-Security-Policy", "frame-ancestors 'self'")
        who = visitor.of(self._request)
        if who is not None:
            headers["X-JupyterHub-User"] = _header_safe(who.name)
            headers["X-JupyterHub-Server"] = _header_safe(self.server_name)
        return status_code, headers, chunk


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """``app`` is Jupyter's ServerApp."""
    descriptor = os.environ.get(FD_VARIABLE, "")
    if not descriptor.isdigit():
        app.log.warning("%s: not started by `calliope-agent launch`, so nothing is added", __name__)
        return
    session = Session(Client(int(descriptor)))
    web_app = app.web_app
    web_app.settings[Session.KEY] = session
    shared_origin = [LOCAL_ONLY] if session.under_hub and not _own_origin(session) else []
    web_app.settings["calliope_note"] = " ".join([*shared_origin, *session.notes])
    if web_app.settings["calliope_note"]:
        app.log.warning(LOCAL_ONLY)
    session.admission.install(app.identity_provider)
    OnEveryAnswer.server_name = session.server_name
    web_app.add_transform(OnEveryAnswer)
    _add_routes(web_app, session)
    handover.install(app, handover.inherited(os.environ), session.take_port)
    app.io_loop.add_callback(_start, app, session)


def _add_routes(web_app: Any, session: Session) -> None:
    base = web_app.settings["base_url"]
    below = re.escape(base)
    foreign = bool(web_app.settings.get("allow_origin") or web_app.settings.get("allow_origin_pat"))
    rules = Rules(base, session.ide_port, session.private_ports, foreign_origins=foreign)
    web_app.add_handlers(".*$", _rules(base, below, session))
    known = web_app.default_router.rules
    # Extensions load by name and the first rule wins: ours go before those that are already there, the gate before all.
    known.insert(0, known.pop(-2))
    known.insert(0, routing.Rule(Gate(rules), Refuse))


def _rules(base: str, below: str, session: Session) -> list[Any]:
    ide = rf"{below}proxy/{session.ide_port}"
    hub = session.hub_base
    old: list[Any] = [
        (rf"{below}{routes.OLD_PATHS}(?:/.*)?", routes.Redirect, {"base": base, "target": base, "drop": 1}),
        (ide, routes.Redirect, {"base": base, "target": f"{base}proxy/{session.ide_port}/", "drop": 2}),
        (rf"{below}calliope", routes.Redirect, {"base": base, "target": f"{base}calliope/", "drop": 1}),
        (rf"{below}hub/api/oauth2/.*", routes.Redirect, {"base": base, "target": hub, "drop": 0}),
    ]
    if base != "/":
        old.append((below.rstrip("/"), routes.Redirect, {"base": base.rstrip("/"), "target": base, "drop": 0}))
    unused = routing.Rule(OldPort(rf"{below}proxy/{routes.OLD_PORT}(?:/.*)?$", session.ide_port), routes.Redirect)
    unused.target_kwargs = {"base": base, "target": base, "drop": 2}
    return [
        *((rf"{path}health", routes_api.Health) for path in {"/", below, rf"{below}api/"}),
        (rf"{below}api/?", routes_api.Overview),
        (rf"{below}api/status", routes_api.Status),
        (rf"{below}api/services", routes_api.Services),
        (rf"{below}api/user", routes_api.User),
        (rf"{below}api/restart", routes_api.Restart),
        *old,
        unused,
        (rf"{below}calliope/.*", routes.AgentDoor),
        (rf"{ide}/.*", routes.IdeUnderProxy),
        (rf"{below}(?!{routes.RESERVED}).*", routes.IdeRoot),
    ]


class OldPort(routing.PathMatches):
    """The IDE's address of old, as long as nothing of the person's listens there."""

    def __init__(self, pattern: str, ide_port: int) -> None:
        super().__init__(pattern)
        self._ide_port = ide_port

    def match(self, request: httputil.HTTPServerRequest) -> dict[str, Any] | None:
        found = super().match(request)
        return found if found is not None and routes.old_port_is_unused(self._ide_port) else None


async def _start(app: Any, session: Session) -> None:
    _forget_secrets(app)
    running = (
        asyncio.create_task(session.client.listen(session.take), name="launcher"),
        asyncio.create_task(_watch_idleness(app, session), name="idleness"),
    )
    app.web_app.settings["calliope_tasks"] = running


def _forget_secrets(app: Any) -> None:
    """Read what Jupyter reads late, then take the names away from what it starts."""
    providers = [app.identity_provider, *(a for apps in app.extension_manager.extension_apps.values() for a in apps)]
    for provider in providers:
        hub_auth = getattr(provider, "hub_auth", None)
        if hub_auth is not None:
            _ = hub_auth.api_token
    _ = app.identity_provider.token
    for name in SECRETS:
        os.environ.pop(name, None)


async def _watch_idleness(app: Any, session: Session) -> None:
    """A running answer or kernel is activity, for the hub too; the end comes by the launcher."""
    settings = app.web_app.settings
    while True:
        await asyncio.sleep(IDLE_LOOKS_S)
        now = datetime.now(UTC)
        kernels = await asyncio.ensure_future(_kernels(settings))
        if activity.busy_kernels(kernels) or await session.running_streams():
            activity.note(settings, "calliope", now)
        if activity.is_over(app.web_app.last_activity(), now, session.idle_shutdown_s):
            why = f"nobody was active for {session.idle_shutdown_s:g} s (WAIIDE_IDLE_SHUTDOWN_S)"
            await session.client.ask({"do": "stop", "why": why})
            return


async def _kernels(settings: Any) -> list[dict[str, Any]]:
    found = settings["kernel_manager"].list_kernels()
    return list(await found if asyncio.iscoroutine(found) else found)


def _own_origin(session: Session) -> bool:
    """With a subdomain per user the hub says its own host, else everything is relative to one origin."""
    return session.hub_base.startswith(("http://", "https://"))


def _header_safe(text: str) -> str:
    return "".join(char for char in text if char.isascii() and char.isprintable())
