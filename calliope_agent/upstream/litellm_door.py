"""The litellm door: every request that a native door cannot take, and the only file that imports litellm.

It is a chain. A request is translated until a door can ask it, and the answer is told back the same way::

    messages, completions, responses ──► chat ──► the OpenAI wire's native door
                                          │ └────► litellm's own call (Bedrock, Vertex AI, …)
                                          └──► messages ──► the Anthropic wire's native door

Decisions
1. Between the two native wires litellm only translates: sockets stay with the native doors, and with them the verified finish, one
   call per attempt, the address check, unix sockets, timers and prompt cancellation. litellm's own client keeps none of these.
2. The import takes seconds and some 200 MiB, so it happens in a thread, once, when somebody needs it; who waits is not cancelled
   with who came first.
3. litellm reads the process's environment by itself, hence its two switches are set there: without them it fetches a price list
   and looks upward for a `.env`.
4. Its loggers are silenced for good: they print prompts, provider words and tracebacks to stderr. Its clients' loggers tell
   requests at DEBUG, so they begin at WARNING.
5. Two functions of litellm are replaced, since no setting turns them off: both ask the provider a second time behind our back
   (`_no_second_request`, `_no_second_try`). tests/contract holds that they are still the ones.
6. Requests are translated in a thread: a long conversation takes litellm tens of milliseconds, and an image by URL a download.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from calliope_agent import errors
from calliope_agent.upstream.attempt import Attempt, Door, Part, Plain
from calliope_agent.upstream.litellm_calls import LitellmCalls
from calliope_agent.upstream.litellm_errors import translating
from calliope_agent.upstream.litellm_library import Library
from calliope_agent.upstream.place import Places
from calliope_agent.upstream.translate_chat import ChatAsMessages
from calliope_agent.upstream.translate_completions import CompletionAsChat
from calliope_agent.upstream.translate_messages import MessagesAsChat, chat_of
from calliope_agent.upstream.translate_responses import ResponsesAsChat
from calliope_agent.upstream.translation import Translation, encode, refused

log = logging.getLogger(__name__)

SWITCHES = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")
_TALKATIVE = ("openai", "httpx", "httpcore", "botocore", "urllib3", "google")
_BAD_REQUEST = (
    "The request cannot be put into this provider's form: a message, tool or parameter is not of its API's shape."
)
_BAD_ANSWER = "The provider's answer cannot be put into this API's form. Ask again, or try another model."


class LitellmDoor:
    """See `Door`. ``native`` are the doors of the two native wires, by wire's name."""

    def __init__(self, places: Places, scrub: Callable[[str], str], native: Mapping[str, Door]) -> None:
        self._places = places
        self._scrub = scrub
        self._native = native
        self._loading: asyncio.Task[Library] | None = None
        self._library: Library | None = None

    @property
    def loaded(self) -> bool:
        return self._library is not None

    def preload(self) -> None:
        """Begin the import without waiting for it. Needs a running loop."""
        self._load_once()

    async def stream(self, attempt: Attempt) -> AsyncGenerator[Part]:
        """See `Door.stream`."""
        library = await self._needed()
        async with aclosing(self._stream(library, attempt)) as parts:
            async for part in parts:
                yield part

    async def plain(self, attempt: Attempt) -> Plain:
        """See `Door.plain`."""
        return await self._plain(await self._needed(), attempt)

    async def close(self) -> None:
        """The native doors belong to who gave them; litellm's own connections end with the process."""
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()

    async def _stream(self, library: Library, attempt: Attempt) -> AsyncGenerator[Part]:
        translation = await _translation(library, attempt)
        if translation is None:
            async with aclosing(self._door(library, attempt).stream(attempt)) as parts:
                async for part in parts:
                    yield part
            return
        inner = replace(attempt, call=translation.call)
        async with aclosing(self._stream(library, inner)) as answered, aclosing(translation.stream(answered)) as parts:
            with translating(errors.Malformed, _BAD_ANSWER):
                async for part in parts:
                    if part.frames:
                        yield part

    async def _plain(self, library: Library, attempt: Attempt) -> Plain:
        if attempt.call.kind == "count_tokens":
            return await self._count(library, attempt)
        translation = await _translation(library, attempt)
        if translation is None:
            return await self._door(library, attempt).plain(attempt)
        answer = await self._plain(library, replace(attempt, call=translation.call))
        with translating(errors.Malformed, _BAD_ANSWER):
            return Plain(translation.plain(answer.body))

    async def _count(self, library: Library, attempt: Attempt) -> Plain:
        """An estimate with litellm's own tokenizer: no provider of another wire counts Anthropic's messages."""
        provider = attempt.target.provider
        if provider.wire == "anthropic" and "count_tokens" in provider.offers:
            return await self._native["anthropic"].plain(attempt)
        tokens = await asyncio.to_thread(_counted, library, attempt)
        attempt.seen.finish, attempt.seen.has_content = "counted", True
        return Plain(encode({"input_tokens": tokens}))

    def _door(self, library: Library, attempt: Attempt) -> Door:
        """Who asks what needs no more translation."""
        wire, kind = attempt.target.provider.wire, attempt.call.kind
        if wire == "litellm":
            return LitellmCalls(library, self._places, self._scrub)
        if wire != attempt.call.wire:
            raise refused(f"{attempt.target.provider.title} has no {kind}")
        return self._native[wire]

    async def _needed(self) -> Library:
        if self._library is not None:
            return self._library
        return await asyncio.shield(self._load_once())

    def _load_once(self) -> asyncio.Task[Library]:
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load(), name="import litellm")
            self._loading.add_done_callback(_look_at)
        return self._loading

    async def _load(self) -> Library:
        try:
            self._library = await asyncio.to_thread(_import)
        except Exception as exc:
            self._loading = None  # the next request tries again: the person may have mended it
            log.warning("litellm could not be imported: %s", type(exc).__name__)
            raise errors.UpstreamError(
                "This provider needs litellm, which cannot be imported. Install the agent again with its dependencies; "
                "`calliope-agent doctor` says more."
            ) from exc
        return self._library


def _look_at(task: asyncio.Task[Library]) -> None:
    """A failure of `preload` that nobody waits for is logged above; asking for it keeps asyncio from logging it again."""
    if not task.cancelled():
        task.exception()


async def _translation(library: Library, attempt: Attempt) -> Translation | None:
    with translating(errors.UpstreamRefused, _BAD_REQUEST):
        return await asyncio.to_thread(_translation_of, library, attempt)


def _translation_of(library: Library, attempt: Attempt) -> Translation | None:
    wire, kind = attempt.target.provider.wire, attempt.call.kind
    if kind == "completions":
        return CompletionAsChat(attempt)
    if kind == "responses":
        return ResponsesAsChat(library, attempt)
    if kind == "messages" and wire != "anthropic":
        return MessagesAsChat(library, attempt)
    if kind == "chat" and wire == "anthropic":
        return ChatAsMessages(library, attempt)
    return None


def _counted(library: Library, attempt: Attempt) -> int:
    with translating(errors.UpstreamRefused, _BAD_REQUEST):
        asked, _ = chat_of(library, attempt)
        return int(
            library.token_counter(
                model=attempt.target.model.name,
                messages=asked["messages"],
                tools=asked.get("tools"),
                use_default_image_token_count=True,
            )
        )


def _import() -> Library:
    """Import litellm, silence it, and hand out what is used of it."""
    os.environ.update(SWITCHES)
    _silence_loggers()
    warnings.filterwarnings(
        "ignore", message=r"Item '\w+' on TypedDict class 'ChatCompletionReasoningItem'", category=UserWarning
    )
    import httpx
    import litellm
    from litellm.litellm_core_utils.token_counter import token_counter
    from litellm.llms.anthropic.chat.handler import ModelResponseIterator
    from litellm.llms.anthropic.chat.transformation import ANTHROPIC_TOOL_NAME_REVERSE_MAP_KEY, AnthropicConfig
    from litellm.llms.anthropic.pass_through.adapters.streaming_iterator import AnthropicStreamWrapper
    from litellm.llms.anthropic.pass_through.adapters.transformation import AnthropicAdapter
    from litellm.llms.custom_httpx.aiohttp_transport import LiteLLMAiohttpTransport
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from litellm.llms.openai import openai as openai_calls
    from litellm.responses.litellm_completion_transformation.streaming_iterator import (
        LiteLLMCompletionStreamingIterator,
    )
    from litellm.responses.litellm_completion_transformation.transformation import LiteLLMCompletionResponsesConfig
    from litellm.types.utils import ModelResponse, ModelResponseStream
    from litellm.utils import get_optional_params

    _silence(litellm)
    _silence_loggers()
    AsyncHTTPHandler.single_connection_post_request = _no_second_request
    LiteLLMAiohttpTransport.handle_async_request = _without_redirects(LiteLLMAiohttpTransport.handle_async_request)
    openai_calls.drop_params_from_unprocessable_entity_error = _no_second_try
    return Library(
        acompletion=litellm.acompletion,
        aembedding=litellm.aembedding,
        stream_chunk_builder=litellm.stream_chunk_builder,
        token_counter=token_counter,
        get_optional_params=get_optional_params,
        tool_names_key=ANTHROPIC_TOOL_NAME_REVERSE_MAP_KEY,
        Timeout=httpx.Timeout,
        ModelResponse=ModelResponse,
        ModelResponseStream=ModelResponseStream,
        MessagesAdapter=AnthropicAdapter,
        MessagesStream=AnthropicStreamWrapper,
        MessagesConfig=AnthropicConfig,
        MessagesReader=ModelResponseIterator,
        ResponsesConfig=LiteLLMCompletionResponsesConfig,
        ResponsesStream=LiteLLMCompletionStreamingIterator,
    )


def _silence(litellm: object) -> None:
    settings = {
        "suppress_debug_info": True,
        "turn_off_message_logging": True,
        "disable_streaming_logging": True,
        "disable_hf_tokenizer_download": True,
        "drop_params": True,
        "telemetry": False,
        "user_url_validation": True,  # the images it fetches by URL come from no loopback, private or metadata address
        "REPEATED_STREAMING_CHUNK_LIMIT": sys.maxsize,  # it ends an answer that repeats itself, a table's rule for one
        "callbacks": [],
        "success_callback": [],
        "failure_callback": [],
        "cache": None,
    }
    for name, value in settings.items():
        setattr(litellm, name, value)


def _silence_loggers() -> None:
    """Before the import for what it says meanwhile, after it for the handlers it adds."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
        logger.disabled = True
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


async def _no_second_request(*_: object, **__: object) -> None:
    """In place of litellm's repetition of a request whose connection broke; called while that exception is handled."""
    raise sys.exception() or errors.Unreachable("The connection to the provider failed. Ask again.")


def _without_redirects(send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """litellm's clients follow redirects, twenty of them, with the prompt: without its place a redirect is only a status."""

    async def sending(*given: Any, **named: Any) -> Any:
        response = await send(*given, **named)
        response.headers.pop("location", None)
        return response

    return sending


def _no_second_try(exc: Exception, _fields: object) -> None:
    """In place of litellm's guess which parameter a 422 means, with which it would ask again."""
    raise exc
