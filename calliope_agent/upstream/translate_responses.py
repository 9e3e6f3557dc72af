"""OpenAI's Responses asked as chat: for providers that do not offer Responses themselves.

Decisions
1. Nothing is stored here, so ``previous_response_id`` is refused rather than answered without its history.
2. Events are numbered here: litellm numbers only some of them, and clients sort by that number.
3. Usage is the provider's own, or null: litellm would count tokens itself. Reasoning is told in ``summary``, where clients look for
   it, also in the whole response, where litellm makes it the assistant's text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from enum import Enum
from itertools import count
from typing import Any

from calliope_agent.upstream.attempt import Attempt, Part, Seen
from calliope_agent.upstream.litellm_answer import responses_usage
from calliope_agent.upstream.litellm_library import Library
from calliope_agent.upstream.litellm_request import (
    LITELLM_CHAT_FIELDS,
    RESPONSES_FIELDS,
    for_openai_wire,
    only,
    text_of,
)
from calliope_agent.upstream.look import decode
from calliope_agent.upstream.look_responses import ResponsesLook
from calliope_agent.upstream.translation import Reading, Telling, call_of, encode, fields_of, refused


class ResponsesAsChat:
    """See `Translation`."""

    def __init__(self, library: Library, attempt: Attempt) -> None:
        self._library = library
        self._seen = attempt.seen
        self._model = attempt.target.model.name
        if attempt.call.field("previous_response_id"):
            raise refused("this provider keeps no earlier responses; send the whole conversation in input")
        self._input = attempt.call.field("input") or ""
        self._given = fields_of(attempt.call, RESPONSES_FIELDS)
        asked = library.ResponsesConfig.transform_responses_api_request_to_chat_completion_request(
            model=self._model, input=self._input, responses_api_request=self._given
        )
        via_openai = attempt.target.provider.wire == "openai"
        fields = for_openai_wire(asked, attempt.target) if via_openai else only(asked, LITELLM_CHAT_FIELDS)
        if attempt.call.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        self.call = call_of(attempt.call, "chat", fields)

    async def stream(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
        """See `Translation.stream`."""
        chunks = _Chunks(parts, self._chunk)
        telling = Telling(ResponsesLook(Seen()))
        number = count()
        async for event in self._library.ResponsesStream(
            model=self._model,
            litellm_custom_stream_wrapper=chunks,
            request_input=self._input,
            responses_api_request=self._given,
        ):
            fields = event.model_dump(exclude_none=True)
            kind = fields["type"]
            fields["type"] = kind.value if isinstance(kind, Enum) else kind
            fields["sequence_number"] = next(number)
            if "response" in fields:
                self._set_right(fields["response"])
            if "item" in fields:
                _set_item_right(fields["item"])
            telling.say(fields, fields["type"])
            if chunks.empty:
                yield telling.part()
        telling.end()
        yield telling.part()

    def plain(self, body: bytes) -> bytes:
        """See `Translation.plain`."""
        response = self._library.ResponsesConfig.transform_chat_completion_response_to_responses_api_response(
            request_input=self._input,
            responses_api_request=self._given,
            chat_completion_response=self._library.ModelResponse(**decode(body)),
        )
        fields = response.model_dump(exclude_none=True)
        self._set_right(fields)
        return encode(fields)

    def _set_right(self, response: dict[str, Any]) -> None:
        response["id"] = f"resp_{self.call.id}"
        response["model"] = self._seen.model or self._model
        response["usage"] = responses_usage(self._seen.usage) if response.get("status") != "in_progress" else None
        for item in response.get("output") or []:
            _set_item_right(item)

    def _chunk(self, fields: dict[str, Any]) -> Any:
        if fields.get("usage") is None:
            fields.pop("usage", None)
        fields.pop("object", None)
        return self._library.ModelResponseStream(**fields)


def _set_item_right(item: dict[str, Any]) -> None:
    if item.get("type") != "reasoning":
        return
    item.pop("role", None)
    said = text_of(item.pop("content", None) or [])
    if not item.get("summary"):
        item["summary"] = [{"type": "summary_text", "text": said}] if said else []


class _Chunks(Reading):
    """litellm asks its own stream for a logger; there is none."""

    logging_obj = None
