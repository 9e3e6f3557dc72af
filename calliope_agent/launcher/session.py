"""What the extension knows of the launcher: its greeting, the children's states, and the two backends."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from calliope_agent.launcher.backend import Backend
from calliope_agent.launcher.control import Client
from calliope_agent.launcher.visitor import Admission
from calliope_agent.secret import Secret

IDE_PROBE, AGENT_PROBE = "/healthz", "/health"


class Session:
    """One per Jupyter process; kept in the web application's settings under `KEY`."""

    KEY = "calliope_session"

    def __init__(self, client: Client) -> None:
        self.client = client
        told = client.ask_now({"do": "hello"})
        self.port: int = told["port"]
        self.ide_port: int = told["ide_port"]
        self.user: str = told["user"]
        self.server_name: str = told["server_name"]
        self.under_hub: bool = told["under_hub"]
        self.hub_base: str = told["hub_base"]
        self.restart_role: str = told["restart_role"]
        self.idle_shutdown_s: float = told["idle_shutdown_s"]
        self.notes: list[str] = told["notes"]
        self.ide_static: str = told["ide_static"]
        self.agent_url: str = told["agent_url"]
        self.manage_token = Secret(told["manage_token"])
        self.write_token = Secret(secrets.token_urlsafe(24))
        self.admission = Admission(self.user, self.under_hub, told["allow_shared"])
        socket, port = told["ide"]["socket"], told["ide"]["port"]
        self.ide = Backend("IDE", f"http://127.0.0.1:{port or self.ide_port}", socket)
        self.agent = Backend("AI agent", self.agent_url) if self.agent_url else None
        self.state: Mapping[str, Any] = {"state": told["state"], "children": told["children"]}
        self._seen_ready = False

    def take_port(self) -> None:
        """The launcher's front leaves the main port. Blocking; before the loop runs. Raises OSError."""
        self.client.ask_now({"do": "port"})

    def take(self, event: dict[str, Any]) -> None:
        """An event of the launcher's."""
        if event.get("event") == "state":
            self.state = event

    def private_ports(self) -> frozenset[int]:
        agent = self.agent.url("/").port if self.agent else None
        return frozenset(filter(None, (self.ide_port, self.port, agent)))

    async def probe(self) -> dict[str, Any]:
        """The components as they answer now, and the state of the whole."""
        ide, agent = await asyncio.gather(self.ide.answers(IDE_PROBE), self._agent_answers())
        children: Mapping[str, Any] = self.state["children"]
        services = {
            "WAIIDE": {"status": _status(children.get("ide"), answers=ide), "port": self.ide_port}
            | _why(children.get("ide")),
            "jupyter": {"status": "running", "port": self.port},
        }
        if self.agent is not None:
            services["agent"] = {
                "status": _status(children.get("agent"), answers=agent),
                "port": self.agent.url("/").port,
            } | _why(children.get("agent"))
        self._seen_ready = self._seen_ready or all(service["status"] == "running" for service in services.values())
        state = self.state["state"]
        if state != "stopping":
            state = "running" if self._seen_ready else "starting"
        return {"state": state, "services": services}

    async def running_streams(self) -> int:
        """How many answers the agent is streaming; 0 when it cannot be asked."""
        told = await self.agent_health()
        streams = told.get("streams", 0)
        return streams if isinstance(streams, int) else 0

    async def agent_health(self) -> dict[str, Any]:
        if self.agent is None:
            return {}
        headers = {"Authorization": f"Bearer {self.manage_token.reveal()}"}
        try:
            async with (
                asyncio.timeout(2.0),
                self.agent.session().get(self.agent.url("/api/health"), headers=headers) as response,
            ):
                told = await response.json(content_type=None)
        except (OSError, TimeoutError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def may_write(self, token: str) -> bool:
        """The token that only the settings page holds, compared in constant time."""
        return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.write_token.reveal().encode())

    async def _agent_answers(self) -> bool:
        return self.agent is not None and await self.agent.answers(AGENT_PROBE)


def _status(child: Mapping[str, Any] | None, *, answers: bool) -> str:
    """An answer beats what the launcher believes; without one a running process is still starting."""
    if answers:
        return "running"
    if child is None:
        return "not answering"
    told = str(child["status"])
    return "starting" if told == "running" else told


def _why(child: Mapping[str, Any] | None) -> dict[str, Any]:
    if child is None:
        return {}
    return {name: child[name] for name in ("pid", "restarts", "reason") if child.get(name)}
