"""The ways a request can go: the caller's wire, the door, the provider's wire."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Way:
    """``client`` is the caller's API, ``wire`` the provider's as its file names it."""

    slug: str
    title: str
    client: Literal["chat", "messages"]
    wire: Literal["openai", "anthropic", "litellm"]

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.client == "chat" else "/v1/messages"

    @property
    def speaks(self) -> str:
        """The API that the provider is asked by."""
        return "messages" if self.wire == "anthropic" else "chat"

    def body(self, model: str, *, stream: bool) -> dict[str, Any]:
        return (chat if self.client == "chat" else message)(stream, model)

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
        if LIMITS[name]:
            lines.append(f"timeouts = {{ {LIMITS[name]} }}")
        return "\n".join(lines) + "\n"


WAYS = (
    Way("openai", "OpenAI wire", "chat", "openai"),
    Way("anthropic", "Anthropic wire", "messages", "anthropic"),
    Way("litellm", "litellm", "chat", "litellm"),
    Way("chat-to-anthropic", "chat → Anthropic", "chat", "anthropic"),
    Way("messages-to-openai", "messages → OpenAI", "messages", "openai"),
)
