"""The HTTP edge: routes with the scope each needs, and around them the guard and the one place where errors become answers.

Decisions
1. Pure ASGI all the way: Starlette's BaseHTTPMiddleware hides a caller's leaving from the endpoint.
2. Host and Origin are checked before the token, the token before the path: a stranger learns nothing about the routes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from calliope_agent import errors
from calliope_agent.agent import Agent
from calliope_agent.api import (
    completions,
    control,
    fault,
    health,
    inline,
    models,
    openapi,
    pages,
    providers,
    requests,
    settings,
    streams,
)
from calliope_agent.api.body import Closed, KeyBody, ProviderBody, RotateBody
from calliope_agent.api.exchange import Exchange, Handler
from calliope_agent.api.guard import Scope as TokenScope
from calliope_agent.api.guard import check_host, check_origin, check_token
from calliope_agent.api.headers import Headers
from calliope_agent.api.intake import request_id
from calliope_agent.tokens import Kept

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of the API: ``scope`` None means that no token is needed; ``body`` is its closed schema or that schema's name."""

    method: str
    path: str
    handler: Handler
    scope: TokenScope | None
    text: str
    body: type[Closed] | str | None = None


async def _described(exchange: Exchange) -> None:
    await exchange.json(openapi.document(ENDPOINTS))


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/health", health.live, None, "liveness"),
    Endpoint("HEAD", "/", health.root, None, "what some clients ask first"),
    Endpoint("GET", "/api/health", health.ready, "complete", "readiness, per component"),
    Endpoint("GET", "/v1/models", models.listed, "complete", "models that can be asked now"),
    Endpoint("GET", "/v1/models/{model:path}", models.shown, "complete", "one model"),
    Endpoint("POST", "/v1/chat/completions", completions.asking("chat"), "complete", "OpenAI chat completions"),
    Endpoint(
        "POST", "/v1/completions", inline.suggesting("text"), "complete", "OpenAI text completions, with suffix inline"
    ),
    Endpoint("POST", "/v1/fim/completions", inline.suggesting("chat"), "complete", "fill-in-the-middle, any model"),
    Endpoint("POST", "/v1/embeddings", completions.asking("embeddings"), "complete", "OpenAI embeddings"),
    Endpoint("POST", "/v1/responses", completions.asking("responses"), "complete", "OpenAI responses"),
    Endpoint("POST", "/v1/messages", completions.asking("messages"), "complete", "Anthropic messages"),
    Endpoint(
        "POST", "/v1/messages/count_tokens", completions.asking("count_tokens"), "complete", "Anthropic token counts"
    ),
    Endpoint("GET", "/v1/streams/{id}", streams.resumed, "complete", "a stream taken up again (Last-Event-ID)"),
    Endpoint("DELETE", "/v1/streams/{id}", streams.cancelled, "complete", "an answer cancelled"),
    Endpoint("GET", "/v1/requests", requests.listed, "complete", "why the last answers are what they are"),
    Endpoint("GET", "/v1/requests/{id}", requests.shown, "complete", "why one answer is what it is"),
    Endpoint("GET", "/api/settings", settings.shown, "complete", "every setting and where it comes from"),
    Endpoint("PATCH", "/api/settings", settings.changed, "manage", "settings written to config.toml", "SettingsBody"),
    Endpoint("GET", "/api/providers", providers.listed, "complete", "every provider, its state and its key's source"),
    Endpoint("PUT", "/api/providers/{name:path}/key", providers.key_put, "manage", "a key of one's own", KeyBody),
    Endpoint("DELETE", "/api/providers/{name:path}/key", providers.key_deleted, "manage", "that key forgotten"),
    Endpoint("POST", "/api/providers/{name:path}/check", providers.checked, "manage", "one real call, and its verdict"),
    Endpoint("GET", "/api/providers/{name:path}", providers.shown, "complete", "one provider"),
    Endpoint("PUT", "/api/providers/{name:path}", providers.put, "manage", "a provider of one's own", ProviderBody),
    Endpoint("DELETE", "/api/providers/{name:path}", providers.deleted, "manage", "that provider and its key removed"),
    Endpoint("GET", "/api/usage", control.usage, "complete", "requests, tokens and cost, by day and target"),
    Endpoint("GET", "/api/cache", control.cache_shown, "complete", "the cache of answers"),
    Endpoint("DELETE", "/api/cache", control.cache_cleared, "manage", "every kept answer forgotten"),
    Endpoint("POST", "/api/tokens/rotate", control.rotated, "manage", "new local tokens, at once", RotateBody),
    Endpoint("GET", "/metrics", control.metrics, "metrics", "Prometheus' text format"),
    Endpoint("GET", "/openapi.json", _described, "complete", "this API"),
    Endpoint("GET", "/", pages.shown, "manage", "the settings page"),
    Endpoint("GET", "/page/{file}", pages.part, "manage", "its scripts and styles"),
)


class Edge:
    """The ASGI application."""

    def __init__(self, agent: Agent, tokens: Kept, endpoints: tuple[Endpoint, ...] = ENDPOINTS) -> None:
        self._agent = agent
        self._tokens = tokens
        self._routes = [(Route(one.path, _never, methods=[one.method]), one) for one in endpoints]
        # Most requests are for a handful of fixed paths, which need no pattern.
        self._fixed: dict[tuple[str, str], Endpoint] = {}
        for one in endpoints:
            for method in _methods(one.method) if "{" not in one.path else ():
                self._fixed.setdefault((method, one.path), one)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope["headers"])
        exchange = Exchange(self._agent, scope, receive, send, request_id(headers), headers, self._tokens)
        shape = fault.shape_of(scope["path"], headers)
        try:
            await self._serve(exchange)
        except errors.AgentError as exc:
            log.info("%s %s %s: %d %s", exchange.id, scope["method"], scope["path"][:200], exc.status, exc.code)
            await exchange.answer(fault.answer(exc, shape, exchange.id))
        except (
            Exception
        ):  # a mistake of ours is told in the caller's wire too; where an answer has begun, uvicorn closes
            log.exception("%s %s failed inside the agent", exchange.id, scope["method"])
            ours = errors.AgentError("The agent made a mistake; its log has the details under this request's id.")
            await exchange.answer(fault.answer(ours, shape, exchange.id))

    async def _serve(self, exchange: Exchange) -> None:
        check_host(exchange.headers)
        check_origin(exchange.headers)
        endpoint, path = self._find(exchange.asgi)
        needed = endpoint.scope if endpoint is not None else "complete"
        if needed is not None:
            exchange.token_scope = check_token(exchange.headers, self._tokens.current, needed)
        if exchange.headers.get("upgrade", "").lower() == "websocket":
            raise errors.UpgradeRefused("This server speaks HTTP only. Send the request without an upgrade.")
        if endpoint is None:
            raise self._missing(exchange.asgi)
        exchange.asgi["path_params"] = path
        await endpoint.handler(exchange)

    def _find(self, scope: Scope) -> tuple[Endpoint | None, Mapping[str, str]]:
        fixed = self._fixed.get((scope["method"], scope["path"]))
        if fixed is not None:
            return fixed, {}
        for route, endpoint in self._routes:
            match, child = route.matches(scope)
            if match is Match.FULL and scope["method"] in _methods(endpoint.method):
                return endpoint, child["path_params"]
        return None, {}

    def _missing(self, scope: Scope) -> errors.AgentError:
        allowed = sorted({one.method for route, one in self._routes if route.matches(scope)[0] is not Match.NONE})
        if allowed:
            return errors.MethodNotAllowed(f"Use {' or '.join(allowed)} here.", headers={"allow": ", ".join(allowed)})
        return errors.NotFound("There is nothing at this path. GET /openapi.json lists what there is.")


async def _never(*_: object) -> None:
    """Starlette's Route wants an endpoint; ours are called by the edge, which knows the scopes."""


def _methods(method: str) -> tuple[str, ...]:
    """A GET answers HEAD too (RFC 9110 §9.3.2); the server leaves the body out."""
    return (method, "HEAD") if method == "GET" else (method,)
