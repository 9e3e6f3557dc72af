"""The ways a request can go: the caller's wire, the door, the provider's wire."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.agents import chat, message

# The time limits of some rows are short; each set of limits is a provider of its own at the same address.
LIMITS = {
    "first": "",
    "silent": "idle_s = 1",
    "brief": "idle_s = 3",
    "slow": "first_token_s = 1.5",
    "late": "deadline_s = 2",
    "dead": "",
    "second": "",
}
KEYS = {"first": "sk-first-canary-0a1b2c3d4e5f", "second": "sk-second-canary-6a7b8c9d0e1f"}


Client = Literal["chat", "messages", "responses", "completions"]
_PATHS: Mapping[Client, str] = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
}
_BODIES: Mapping[Client, Callable[[bool, str], dict[str, Any]]] = {
    "chat": chat,
    "messages": message,
    "responses": lambda stream, model: {"model": model, "input": "hi", "stream": stream},
    "completions": lambda stream, model: {"model": model, "prompt": "hi", "stream": stream},
}


@dataclass(frozen=True)
class Way:
    """``client`` is the caller's API, ``wire`` the provider's as its file names it. ``essential`` ways play the essential rows only."""

    slug: str
    title: str
    client: Client
    wire: Literal["openai", "anthropic", "litellm"]
    offers: tuple[str, ...] = ()
    essential: bool = False

    @property
    def path(self) -> str:
        return _PATHS[self.client]

    def body(self, model: str, *, stream: bool) -> dict[str, Any]:
        return _BODIES[self.client](stream, model)

    def provider_file(self, name: str, base_url: str) -> str:
        """The operator's file of one provider; all but the second share the first one's key."""
        lines = [
            f'title = "{name.capitalize()}"',
            f'wire = "{self.wire}"',
            f'base_url = "{base_url}"',
            f'key_env = ["{"SECOND" if name == "second" else "FIRST"}_KEY"]',
        ]
        if self.wire == "anthropic":
            lines.append('auth = "x-api-key"')
        if self.wire == "litellm":
            lines.append('litellm = "openai"')
        if self.offers:
            lines.append(f"offers = {json.dumps(self.offers)}")
        if LIMITS[name]:
            lines.append(f"timeouts = {{ {LIMITS[name]} }}")
        return "\n".join(lines) + "\n"


WAYS = (
    Way("openai", "OpenAI wire", "chat", "openai"),
    Way("anthropic", "Anthropic wire", "messages", "anthropic"),
    Way("litellm", "litellm", "chat", "litellm"),
    Way("chat-to-anthropic", "chat → Anthropic", "chat", "anthropic"),
    Way("messages-to-openai", "messages → OpenAI", "messages", "openai"),
    Way("responses", "Responses", "responses", "openai", ("chat", "responses"), essential=True),
    Way("responses-to-chat", "Responses → chat", "responses", "openai", essential=True),
    Way("completions", "text completions", "completions", "openai", essential=True),
)
