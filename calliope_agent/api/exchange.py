"""One HTTP exchange as the endpoints see it: the agent, the caller, the request's id and headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from calliope_agent.agent import Agent
from calliope_agent.api.guard import Scope as TokenScope
from calliope_agent.api.headers import Headers
from calliope_agent.api.intake import BodyBounds, read_body
from calliope_agent.api.reply import Caller
from calliope_agent.tokens import Kept

JSON = "application/json"


@dataclass(slots=True)
class Exchange:
    """``scope_shown`` is what the caller's token may do; ``path`` holds the path's parameters."""

    agent: Agent
    asgi: Scope
    receive: Receive
    send: Send
    id: str
    headers: Headers
    tokens: Kept
    token_scope: TokenScope | None = None

    @property
    def caller(self) -> Caller:
        return Caller(self.asgi, self.receive, self.send)

    @property
    def path(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.asgi.get("path_params", {})
        return found

    @property
    def hold_s(self) -> float:
        """How long a stream's status is held open."""
        return self.agent.settings.first_byte_hold_s

    async def body(self) -> bytes:
        """Raises as `read_body` does."""
        given = self.agent.settings
        bounds = BodyBounds(given.max_body_mb << 20, given.body_timeout_s, given.request_deadline_s)
        return await read_body(self.receive, self.headers, bounds)

    async def json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a value as JSON."""
        every = {"x-request-id": self.id, "cache-control": "no-store", **(headers or {})}
        await self.answer(Response(msgspec.json.encode(value), status, every, JSON))

    async def answer(self, response: ASGIApp) -> None:
        await response(self.asgi, self.receive, self.send)


Handler = Callable[[Exchange], Awaitable[None]]
