"""OpenAI's chat asked as Anthropic's messages: for providers of the Anthropic wire.

Decisions
1. litellm's reader of one event (`MessagesReader.chunk_parser`) is fed by us and never reads a socket: its own iterator would end
   a cut stream with an invented ``stop``.
2. Usage is told only to a client that asked for it and only if the provider gave it, in one chunk after the finish. It is
   translated here: litellm adds details that it counted itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

from calliope_agent.upstream.attempt import Attempt, Part, Seen
from calliope_agent.upstream.litellm_answer import answer_fields, chat_usage, chunk_fields, is_silent, usage_chunk
from calliope_agent.upstream.litellm_library import Library
from calliope_agent.upstream.litellm_request import CHAT_FIELDS
from calliope_agent.upstream.look import decode
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.translation import Reading, Telling, call_of, fields_of, refused
from calliope_agent.upstream.translation import encode as to_json

_ANTHROPIC = "anthropic"
_BETA = "anthropic-beta"


class ChatAsMessages:
    """See `Translation`."""

    def __init__(self, library: Library, attempt: Attempt) -> None:
        self._library = library
        self._seen = attempt.seen
        self._wants_usage = wants_usage(attempt)
        model = attempt.target.model
        given = fields_of(attempt.call, CHAT_FIELDS)
        messages = given.pop("messages", None)
        if not isinstance(messages, list) or not messages:
            raise refused("it has no messages")
        if given.pop("n", 1) != 1:
            raise refused("this provider gives one answer per request; leave n out")
        if model.max_output_tokens and not given.keys() & {"max_tokens", "max_completion_tokens"}:
            given["max_tokens"] = model.max_output_tokens
        options = library.get_optional_params(
            model=model.name, custom_llm_provider=_ANTHROPIC, drop_params=True, messages=messages, **given
        )
        self._json_mode = bool(options.pop("json_mode", False))
        for own in ("extra_body", "max_retries", "stream", "stream_options"):
            options.pop(own, None)
        headers: dict[str, str] = {}
        bookkeeping: dict[str, Any] = {}
        asked = library.MessagesConfig().transform_request(model.name, messages, options, bookkeeping, headers)
        self._tool_names = bookkeeping.get(library.tool_names_key)
        if attempt.call.stream:
            asked["stream"] = True
        beta = {_BETA: headers[_BETA]} if _BETA in headers else {}
        self.call = call_of(attempt.call, "messages", asked, beta)

    async def stream(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
        """See `Translation.stream`."""
        reader = self._library.MessagesReader(
            streaming_response=None,
            sync_stream=False,
            json_mode=self._json_mode,
            tool_name_reverse_map=self._tool_names,
        )
        telling = Telling(OpenAILook(Seen()))
        events = Reading(parts, reader.chunk_parser)
        told = _Told()
        async for chunk in events:
            if (fields := told.next(chunk)) is not None:
                telling.say(fields)
            if events.empty:
                yield telling.part()
        telling.end()
        if self._wants_usage and (usage := chat_usage(self._seen.usage)) is not None:
            telling.say(usage_chunk(told.head, usage))
        yield telling.part()

    def plain(self, body: bytes) -> bytes:
        """See `Translation.plain`."""
        answer = decode(body)
        response = self._library.MessagesConfig().transform_parsed_response(
            completion_response={"usage": {}, **answer},
            raw_response=SimpleNamespace(headers={}),
            model_response=self._library.ModelResponse(id=answer.get("id")),
            json_mode=self._json_mode,
            tool_name_reverse_map=self._tool_names,
        )
        return to_json(answer_fields(response, chat_usage(self._seen.usage)))


class _Told:
    """What the chunks of one answer share: the first one's role, id, model and time."""

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}

    def next(self, chunk: Any) -> dict[str, Any] | None:
        """The chunk to tell, or None where it says nothing."""
        fields = chunk_fields(chunk)
        if not self.head:
            self.head = {name: fields[name] for name in ("id", "object", "created", "model")}
            fields["choices"][0]["delta"] = {"role": "assistant", "content": "", **fields["choices"][0]["delta"]}
        elif is_silent(fields):
            return None
        return {**fields, **self.head}


def wants_usage(attempt: Attempt) -> bool:
    options = attempt.call.field("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True
