"""OpenAI's Responses asked as chat: for providers that do not offer Responses themselves.

Decisions
1. Nothing is stored here, so ``previous_response_id`` is refused rather than answered without its history.
2. Events are numbered here: litellm numbers only some of them, and clients sort by that number.
3. Usage that the provider did not give is null: litellm would count tokens itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from enum import Enum
from itertools import count
from typing import Any

from calliope_agent.upstream.attempt import Attempt, Part, Seen
from calliope_agent.upstream.litellm_library import Library
from calliope_agent.upstream.litellm_request import LITELLM_CHAT_FIELDS, RESPONSES_FIELDS, for_openai_wire, only
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
            if isinstance(fields.get("response"), dict):
                self._set_right(fields["response"])
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
        response["model"] = self._seen.model or self._model
        if self._seen.usage is None:
            response["usage"] = None

    def _chunk(self, fields: dict[str, Any]) -> Any:
        if fields.get("usage") is None:
            fields.pop("usage", None)
        fields.pop("object", None)
        return self._library.ModelResponseStream(**fields)


class _Chunks(Reading):
    """litellm asks its own stream for a logger; there is none."""

    logging_obj = None
