"""What the litellm door's tests share: a scripted provider behind a provider of any wire, and attempts at it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from calliope_agent.catalog import Target
from calliope_agent.manifest import OFFERS
from calliope_agent.model import Model
from calliope_agent.provider import Provider, Source
from calliope_agent.secret import Secret
from calliope_agent.upstream.attempt import Attempt, Call, Kind, Limits, Part
from calliope_agent.upstream.client import Client
from calliope_agent.upstream.litellm_door import LitellmDoor
from calliope_agent.upstream.native import NativeDoor
from calliope_agent.upstream.place import Place
from calliope_agent.upstream.sse import DONE_FRAME
from tests.upstream import ScriptedProvider

# Said by pydantic about litellm's own classes at their first use; the door's filter is gone with the test that imported it.
QUIET = [
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class 'ChatCompletionReasoningItem':UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*fields' attribute on the instance:DeprecationWarning"),
]
KEY = "sk-canary-of-the-litellm-door-4f2a"
LIMITS = Limits(connect_s=5, first_token_s=30, idle_s=30, answer_bytes=1 << 20)
HI = [{"role": "user", "content": "hi"}]

# Route → the provider's wire and litellm's prefix.
ROUTES = {
    "openai": ("openai", "openai"),
    "anthropic": ("anthropic", "anthropic"),
    "litellm-openai": ("litellm", "openai"),
    "litellm-anthropic": ("litellm", "anthropic"),
}
KINDS: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
    "/v1/embeddings": "embeddings",
}


@dataclass
class Rig:
    """One provider, one door. ``unix_socket`` stands in for the embedded model's."""

    scripted: ScriptedProvider
    door: LitellmDoor
    client: Client
    unix_socket: str | None = None
    attempts: list[Attempt] = field(default_factory=list)

    def attempt(self, route: str, kind: Kind, body: dict[str, Any], **facts: Any) -> Attempt:
        limits = facts.pop("limits", LIMITS)
        model = facts.pop("model", Model("scripted-model", capabilities=frozenset({"reasoning", "tools"})))
        fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}
        call = Call("req_1", kind, fields, bool(body.get("stream")))
        attempt = Attempt(call, Target(self.provider(route, **facts), model), Secret(KEY), limits)
        self.attempts.append(attempt)
        return attempt

    def provider(self, route: str, **facts: Any) -> Provider:
        wire, prefix = ROUTES[route]
        address = "http://local/v1" if self.unix_socket else self.scripted.base_url
        if route == "litellm-anthropic":
            address = self.scripted.origin
        standard: dict[str, Any] = {
            "name": "scripted",
            "title": "Scripted",
            "wire": wire,
            "trust": "operator",
            "place": "test",
            "auth": "x-api-key" if wire == "anthropic" else "bearer",
            "base_url": address,
            "litellm": prefix,
            "offers": OFFERS[wire],
            "base_url_source": Source("file", "test"),
            "credentials": None,
        }
        return Provider(**{**standard, **facts})

    async def place(self, attempt: Attempt) -> Place:
        return Place(attempt.target.provider.base_url or "", self.unix_socket)

    @asynccontextmanager
    async def served(self, route: str) -> AsyncIterator[str]:
        """The door behind a real server, for the SDKs; gives its origin."""

        async def answer(request: Request) -> Response:
            body = await request.json()
            attempt = self.attempt(route, KINDS[request.url.path], body)
            if not attempt.call.stream:
                return Response((await self.door.plain(attempt)).body, media_type="application/json")
            return StreamingResponse(self._bytes(attempt), media_type="text/event-stream")

        app = Starlette(routes=[Route(path, answer, methods=["POST"]) for path in KINDS])
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving

    async def _bytes(self, attempt: Attempt) -> AsyncIterator[bytes]:
        async for part in self.door.stream(attempt):
            yield b"".join(part.frames)
        if attempt.call.wire == "openai":
            yield DONE_FRAME

    async def frames(self, attempt: Attempt) -> bytes:
        return b"".join([b"".join(part.frames) async for part in self.door.stream(attempt)])

    async def parts(self, attempt: Attempt) -> list[Part]:
        return [part async for part in self.door.stream(attempt)]

    async def plain(self, attempt: Attempt) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((await self.door.plain(attempt)).body)
        return answer


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    client = Client({})
    async with ScriptedProvider(**options) as scripted:
        made: Rig

        async def place(attempt: Attempt) -> Place:
            return await made.place(attempt)

        def scrub(text: str) -> str:
            return text.replace(KEY, "[key]")

        native = {
            "openai": NativeDoor("openai", client, place, scrub, "hop"),
            "anthropic": NativeDoor("anthropic", client, place, scrub, "hop"),
        }
        socket = options.get("unix_socket")
        made = Rig(scripted, LitellmDoor(place, scrub, native), client, str(socket) if socket else None)
        try:
            yield made
        finally:
            await made.door.close()
            await client.close()


def events(body: bytes) -> list[dict[str, Any]]:
    """The data of each event."""
    blocks = [block for block in body.split(b"\n\n") if block]
    return [json.loads(block.split(b"data: ", 1)[1]) for block in blocks]
