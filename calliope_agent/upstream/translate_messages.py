"""Anthropic's messages asked as OpenAI's chat: for providers of the OpenAI wire, and for litellm's routes.

Decisions
1. Anthropic's wire has no way to leave usage out: where the provider counted nothing the client reads 0, and the request's record
   says that there was none.
2. Fields without an equal (``top_k``, ``context_management``, ``metadata``, ``cache_control``) are left out: Claude Code sends
   them to everybody, and refusing them would refuse Claude Code.
3. A tool call whose arguments do not parse cannot be told in a whole message, whose ``input`` is an object: they are told under
   the key ``arguments_incomplete``, not dropped.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from calliope_agent.upstream.attempt import Attempt, Part, Seen
from calliope_agent.upstream.litellm_library import Library
from calliope_agent.upstream.litellm_request import LITELLM_CHAT_FIELDS, MESSAGES_FIELDS, for_openai_wire, only
from calliope_agent.upstream.look import decode, parses
from calliope_agent.upstream.look_anthropic import AnthropicLook
from calliope_agent.upstream.translation import Reading, Telling, call_of, encode, fields_of


class MessagesAsChat:
    """See `Translation`."""

    def __init__(self, library: Library, attempt: Attempt) -> None:
        self._library = library
        self._model = attempt.target.model.name
        self._id = f"msg_{attempt.call.id}"
        asked, self._tool_names = chat_of(library, attempt)
        if attempt.call.stream:
            asked["stream"] = True
            asked["stream_options"] = {"include_usage": True}
        self.call = call_of(attempt.call, "chat", asked)

    async def stream(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
        """See `Translation.stream`."""
        chunks = Reading(parts, self._chunk)
        telling = Telling(AnthropicLook(Seen()))
        async for event in self._library.MessagesStream(chunks, self._model, tool_name_mapping=self._tool_names):
            self._set_right(event)
            telling.say(event, event["type"])
            if chunks.empty:
                yield telling.part()
        telling.end()
        yield telling.part()

    def plain(self, body: bytes) -> bytes:
        """See `Translation.plain`."""
        answer = decode(body)
        for choice in answer["choices"]:
            _reasoning_by_its_usual_name(choice.get("message") or {})
            _mark_broken_arguments(choice.get("message") or {})
        if answer.get("usage") is None:
            answer["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        message = self._library.MessagesAdapter().translate_completion_output_params(
            self._library.ModelResponse(**answer), tool_name_mapping=self._tool_names
        )
        for block in message["content"]:
            if block["type"] == "thinking":
                block["signature"] = block.get("signature") or ""  # a string on Anthropic's wire, as in its streams
        return encode({**message, "id": self._id, "model": answer.get("model") or self._model})

    def _set_right(self, event: dict[str, Any]) -> None:
        if event["type"] == "message_start":
            event["message"]["id"] = self._id
        block = event.get("content_block")
        if block is not None and block["type"] == "thinking":
            # litellm opens the block with the first thought in it and then tells that thought again.
            event["content_block"] = {"type": "thinking", "thinking": "", "signature": ""}

    def _chunk(self, fields: dict[str, Any]) -> Any:
        """A chunk as litellm's class: it knows one name for reasoning, and wants an index for every tool call."""
        for choice in fields.get("choices") or []:
            delta = choice.get("delta") or {}
            _reasoning_by_its_usual_name(delta)
            for call in delta.get("tool_calls") or []:
                if call.get("index") is None:
                    call["index"] = 0
        if fields.get("usage") is None:
            fields.pop("usage", None)
        fields.pop("object", None)
        return self._library.ModelResponseStream(**fields)


def chat_of(library: Library, attempt: Attempt) -> tuple[dict[str, Any], dict[str, str]]:
    """The chat request's fields, and the tools' own names where OpenAI's 64 characters were too few for them."""
    provider = attempt.target.provider
    via_litellm = provider.wire == "litellm"
    # litellm keeps thinking and cache marks where a name looks like Claude's; the OpenAI wire takes neither.
    named = f"{provider.litellm}/{attempt.target.model.name}" if via_litellm else "chat"
    asked, tool_names = library.MessagesAdapter().translate_completion_input_params_with_tool_mapping(
        {**fields_of(attempt.call, MESSAGES_FIELDS), "model": named},
        custom_llm_provider=provider.litellm if via_litellm else None,
    )
    clean = only(asked, LITELLM_CHAT_FIELDS) if via_litellm else for_openai_wire(asked, attempt.target)
    return clean, tool_names


def _reasoning_by_its_usual_name(said: dict[str, Any]) -> None:
    """OpenRouter and newer vLLM say ``reasoning``."""
    if isinstance(said.get("reasoning"), str):
        said.setdefault("reasoning_content", said.pop("reasoning"))


def _mark_broken_arguments(message: Mapping[str, Any]) -> None:
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        if not parses(function.get("arguments") or ""):
            function["arguments"] = encode({"arguments_incomplete": function["arguments"]}).decode()
