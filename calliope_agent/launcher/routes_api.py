"""The reference's endpoints: health, status, restart and the small ones beside them.

Decisions
1. /health asks nobody: no login, no hub, no cookie, so it answers while the IDE still starts and while the hub is away.
2. /api/status is Jupyter's own model with ours added: Jupyter's clients and the reference's go on working.
3. Restart means the agent and the IDE, never Jupyter: the hub would take its end for the server's.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import jupyter_server
from jupyter_server.auth.decorator import allow_unauthenticated, authorized
from jupyter_server.base.handlers import APIHandler, APIVersionHandler, JupyterHandler
from jupyter_server.services.api.handlers import APIStatusHandler
from jupyter_server.utils import ensure_async
from tornado import web

from calliope_agent import __version__
from calliope_agent.launcher import visitor
from calliope_agent.launcher.front import health
from calliope_agent.launcher.session import Session

RESOURCE = "waiide"
ENDPOINTS = (
    "/health", "/api", "/api/health", "/api/status", "/api/services", "/api/user", "/api/restart", "/calliope/",
)  # fmt: skip


class Health(JupyterHandler):
    """Liveness."""

    async def prepare(self, **_: Any) -> None:
        """No identity provider: no call to the hub, no cookie."""

    @allow_unauthenticated
    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish(health())

    head = get


class Status(APIStatusHandler):
    """The state of everything, from real probes; asking is no activity."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        session: Session = self.settings[Session.KEY]
        application: Any = self.application
        manager: Any = self.kernel_manager
        kernels = await ensure_async(manager.list_kernels())
        self.finish(
            json.dumps(
                {
                    "started": self.settings["started"].isoformat(),
                    "last_activity": application.last_activity().isoformat(),
                    "kernels": len(kernels),
                    "connections": sum(kernel["connections"] for kernel in kernels),
                    **await session.probe(),
                    **_names(session),
                    "environment": {"user": session.user, "server_name": session.server_name},
                    "note": self.settings.get("calliope_note", ""),
                }
            )
        )


class Overview(APIVersionHandler):
    """``/api``: Jupyter's version for anybody (the hub waits for it), the rest for who may enter."""

    @allow_unauthenticated
    async def get(self) -> None:  # type: ignore[override]
        answer: dict[str, Any] = {"version": jupyter_server.__version__}
        if self.current_user is not None:
            session: Session = self.settings[Session.KEY]
            answer |= await session.probe() | _names(session)
            answer |= {"status": answer["state"], "endpoints": list(ENDPOINTS)}
            answer["mode"] = "hub" if session.under_hub else "standalone"
            answer["service_prefix"] = self.base_url
        self.finish(json.dumps(answer))


class Services(APIHandler):
    auth_resource: ClassVar[str] = RESOURCE
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        session: Session = self.settings[Session.KEY]
        services = (await session.probe())["services"]
        self.finish(json.dumps({"services": services, "total_services": len(services)}))


class User(APIHandler):
    auth_resource: ClassVar[str] = RESOURCE
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        session: Session = self.settings[Session.KEY]
        who = visitor.of(self.request)
        if who is None:
            raise web.HTTPError(403)
        self.finish(
            json.dumps({"name": who.name, "kind": who.kind, "admin": who.admin, "owner": who.owner, **_names(session)})
        )


class Restart(APIHandler):
    auth_resource: ClassVar[str] = RESOURCE

    @web.authenticated
    @authorized
    async def post(self) -> None:
        session: Session = self.settings[Session.KEY]
        who = visitor.of(self.request)
        if who is None or not (who.admin or (who.owner and session.restart_role == "owner")):
            raise web.HTTPError(403, "only an administrator may restart; WAIIDE_RESTART_ROLE=owner allows the owner")
        try:
            answer = await session.client.ask({"do": "restart"})
        except (ConnectionError, TimeoutError) as exc:
            raise web.HTTPError(503, "the launcher does not answer; nothing was restarted as far as is known") from exc
        self.set_status(202)
        self.finish(json.dumps({"status": "restarting", "services": answer.get("restarting", [])}))


def _names(session: Session) -> dict[str, str]:
    return {"user": session.user, "server": session.server_name, "waiide_version": __version__}
