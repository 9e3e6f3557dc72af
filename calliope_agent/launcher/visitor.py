"""Who is asking: the hub's word about the visitor, bounded in time, and what the visitor is to this server.

Decisions
1. The bound sits on the identity provider's ``get_user``, the one place through which Jupyter's own handlers pass as
   well: a frozen hub costs a visitor five seconds and an honest 503, never a hanging page.
2. Somebody else's user enters only with WAIIDE_ALLOW_SHARED, whatever scopes a share gave: a terminal is behind every
   door. The hub's administrators and the operator's services keep what the hub gives them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_server.utils import ensure_async
from tornado import web

HUB_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """``owner``: the server is theirs; ``admin``: of the hub. Without a hub the token's holder is both."""

    name: str
    kind: str
    owner: bool
    admin: bool


def describe(user: Any, owner: str, *, under_hub: bool) -> Visitor:
    """``user`` is Jupyter's; under a hub it carries the hub's model of the visitor's own token."""
    model: Mapping[str, Any] = getattr(user, "hub_user", None) or {}
    if not under_hub:
        return Visitor(owner or user.username, "user", owner=True, admin=True)
    kind = str(model.get("kind", "user"))
    name = str(model.get("name", ""))
    scopes = model.get("scopes") or ()
    admin = "admin:servers" in scopes if kind == "service" else bool(model.get("admin"))
    return Visitor(name, kind, owner=kind == "user" and name == owner, admin=admin)


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may enter. ``provider`` is Jupyter's identity provider, wrapped once by `install`."""

    owner: str
    under_hub: bool
    allow_shared: bool

    def describe(self, user: Any) -> Visitor:
        return describe(user, self.owner, under_hub=self.under_hub)

    def admits(self, visitor: Visitor) -> bool:
        return visitor.owner or visitor.admin or visitor.kind == "service" or self.allow_shared

    def install(self, provider: Any) -> None:
        """Bound the provider's question to the hub, refuse shared users, note the visitor's name on the request."""
        ask = provider.get_user

        async def get_user(handler: web.RequestHandler) -> Any:
            try:
                async with asyncio.timeout(HUB_LIMIT_S):
                    user = await ensure_async(ask(handler))
            except TimeoutError as exc:
                raise web.HTTPError(503, "the hub does not answer; try again in a moment") from exc
            if user is None:
                return None
            visitor = self.describe(user)
            if not self.admits(visitor):
                raise web.HTTPError(403, f"{visitor.name} may not enter this server")
            handler.request.visitor = visitor  # type: ignore[attr-defined]
            return user

        provider.get_user = get_user


def of(request: Any) -> Visitor | None:
    """The visitor noted on a request, if the login was asked at all."""
    found = getattr(request, "visitor", None)
    return found if isinstance(found, Visitor) else None


async def still_welcome(handler: Any) -> bool:
    """Ask the hub again about an open connection's visitor; a hub that does not answer changes nothing."""
    for noted in ("_jupyterhub_user", "_cached_hub_user", "_jupyter_current_user"):
        handler.__dict__.pop(noted, None)
    try:
        return await ensure_async(handler.identity_provider.get_user(handler)) is not None
    except web.HTTPError as exc:
        return exc.status_code >= 500
