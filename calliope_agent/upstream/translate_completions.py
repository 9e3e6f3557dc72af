"""OpenAI's text completions asked as chat, for chat-only providers: the prompt is one message, the answer its text.

Needs no litellm; what goes on to the provider may.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from calliope_agent.upstream.attempt import Attempt, Part, Seen
from calliope_agent.upstream.litellm_request import CHAT_FIELDS
from calliope_agent.upstream.look import decode
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.translation import Reading, Telling, call_of, encode, fields_of, refused

_NOT_FOR_CHAT = frozenset({"messages", "logprobs"})


class CompletionAsChat:
    """See `Translation`."""

    def __init__(self, attempt: Attempt) -> None:
        call = attempt.call
        if call.field("suffix"):
            raise refused("it has a suffix, which a chat model takes only through /v1/fim/completions")
        prompt = call.field("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise refused("its prompt has to be one text")
        fields = fields_of(call, CHAT_FIELDS - _NOT_FOR_CHAT)
        fields["messages"] = [{"role": "user", "content": prompt}]
        if call.stream:
            fields["stream"] = True
            if options := call.field("stream_options"):
                fields["stream_options"] = options
        self.call = call_of(call, "chat", fields)

    async def stream(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
        """See `Translation.stream`."""
        chunks = Reading(parts, _as_text)
        telling = Telling(OpenAILook(Seen()))
        async for fields in chunks:
            telling.say(fields)
            if chunks.empty:
                yield telling.part()
        telling.end()
        yield telling.part()

    def plain(self, body: bytes) -> bytes:
        """See `Translation.plain`."""
        return encode(_as_text(decode(body)))


def _as_text(fields: dict[str, Any]) -> dict[str, Any]:
    choices = [_choice(choice) for choice in fields.get("choices") or []]
    return {**fields, "object": "text_completion", "choices": choices}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    said = choice.get("delta") or choice.get("message") or {}
    return {
        "index": choice.get("index", 0),
        "text": said.get("content") or "",
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }
