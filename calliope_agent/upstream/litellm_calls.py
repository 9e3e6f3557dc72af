"""Calls that litellm makes itself: chat and embeddings of the providers it alone can reach (Bedrock, Vertex AI).

Decisions
1. One attempt is one call: ``max_retries=0`` and ``num_retries=0``, since litellm's OpenAI client repeats twice by default.
2. A finish counts only when litellm's wrapper says that it received one (``received_finish_reason``, undocumented, held by
   tests/contract); else litellm ends a cut stream with an invented ``stop``. Where the manifest says ``verifies_finish = false``
   (Google's routes tell nothing) an answer with content counts, and an empty one does not.
3. Usage comes from the chunks as the provider sent them: litellm's last chunk holds what it counted itself.
4. A plain call is a stream put together here: in a whole answer litellm writes ``stop`` where the provider said nothing, keeps
   no trace of it, and takes a login page or an error object inside a 200 for an answer.
5. Without a key but with an address of its own, a provider is asked with a key that means nothing: litellm would else take the
   one of OPENAI_API_KEY, which belongs to another address.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing
from typing import Any

from calliope_agent import errors
from calliope_agent.upstream.attempt import Attempt, Part, Plain
from calliope_agent.upstream.litellm_answer import answer_fields, chunk_fields, is_silent, usage_chunk, usage_fields
from calliope_agent.upstream.litellm_errors import of_exception, translating
from calliope_agent.upstream.litellm_library import Library
from calliope_agent.upstream.litellm_request import EMBEDDING_FIELDS, LITELLM_CHAT_FIELDS
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.place import Place, Places
from calliope_agent.upstream.translate_chat import wants_usage
from calliope_agent.upstream.translation import Telling, encode, fields_of, refused

NO_KEY = "none"
_READ_S = 3600.0  # our own limits end a call before: deadline, first token, and idle from the first chunk on

# Not documented, held by tests/contract: a request with tools would import litellm's MCP gateway (and so parts of its proxy),
# and a chat for some models would be asked as Responses.
_OFF = {"_skip_mcp_handler": True, "_skip_responses_api_bridge": True}


class LitellmCalls:
    """See `Door`; only for kinds chat and embeddings."""

    def __init__(self, library: Library, places: Places, scrub: Callable[[str], str]) -> None:
        self._library = library
        self._places = places
        self._scrub = scrub

    async def stream(self, attempt: Attempt) -> AsyncGenerator[Part]:
        """See `Door.stream`."""
        telling = Telling(OpenAILook(attempt.seen, verifies=attempt.target.provider.verifies_finish))
        head: dict[str, Any] = {}
        async with aclosing(self._chunks(attempt)) as chunks:
            async for chunk in chunks:
                fields = chunk_fields(chunk)
                head = head or fields
                telling.say(fields)
                yield telling.part()
        telling.end()
        if attempt.seen.usage is not None and wants_usage(attempt):
            telling.say(usage_chunk(head, attempt.seen.usage))
            yield telling.part()

    async def plain(self, attempt: Attempt) -> Plain:
        """See `Door.plain`."""
        if attempt.call.kind == "embeddings":
            return await self._embeddings(attempt)
        telling = Telling(OpenAILook(attempt.seen, verifies=attempt.target.provider.verifies_finish))
        gathered: list[Any] = []
        async with aclosing(self._chunks(attempt)) as chunks:
            async for chunk in chunks:
                telling.say(chunk_fields(chunk))
                gathered.append(chunk)
        telling.end()
        with translating(errors.Malformed, "The provider's answer does not add up to one message. Ask again."):
            response = self._library.stream_chunk_builder(gathered)
            return Plain(encode(answer_fields(response, attempt.seen.usage)))

    async def close(self) -> None:
        """See `Door.close`; litellm's connections are its own."""

    async def _embeddings(self, attempt: Attempt) -> Plain:
        arguments = await self._arguments(attempt)
        with self._translated(attempt):
            response = await self._library.aembedding(**arguments)
        seen = attempt.seen
        seen.status, seen.model, seen.usage = 200, response.model, usage_fields(response.usage)
        seen.finish, seen.has_content = "stop", True
        if not response.data:
            raise errors.Malformed("The provider's answer holds no embeddings. Ask again.")
        data = [one if isinstance(one, dict) else one.model_dump() for one in response.data]
        fields = {"object": "list", "data": data, "model": response.model, "usage": seen.usage}
        return Plain(encode(fields))

    async def _chunks(self, attempt: Attempt) -> AsyncGenerator[Any]:
        """litellm's chunks that say something, verified to the end."""
        limits = attempt.limits
        arguments = await self._arguments(attempt)
        with self._translated(attempt):
            wrapper = await self._library.acompletion(
                **arguments, **_OFF, stream=True, stream_options={"include_usage": True}
            )
            attempt.seen.status = 200
            _expect_no_page(wrapper)
            size, silence_s = 0, None
            try:
                while (chunk := await _next(wrapper, silence_s)) is not None:
                    silence_s = limits.idle_s
                    fields = chunk_fields(chunk)
                    if is_silent(fields):
                        continue
                    _expect_genuine(fields, wrapper, attempt)
                    size += len(encode(fields["choices"]))
                    if size > limits.answer_bytes:
                        raise errors.AnswerTooLarge(
                            f"The answer is larger than {limits.answer_bytes} bytes. Ask for a shorter one."
                        )
                    yield chunk
                attempt.seen.usage = _given_usage(wrapper)
            finally:
                await wrapper.aclose()

    async def _arguments(self, attempt: Attempt) -> dict[str, Any]:
        """What litellm is called with: the request's known parameters, and the provider's own address and key."""
        target = attempt.target
        if attempt.call.kind not in ("chat", "embeddings"):
            raise refused(f"{target.provider.title} has no {attempt.call.kind}")
        if (attempt.call.field("n") or 1) != 1:
            raise refused("this provider gives one answer per request; leave n out")
        place = await self._places(attempt) if target.provider.base_url else Place("")
        names = EMBEDDING_FIELDS if attempt.call.kind == "embeddings" else LITELLM_CHAT_FIELDS
        arguments = fields_of(attempt.call, names - target.drops)
        key = place.key or attempt.key
        arguments |= {
            "model": f"{target.provider.litellm}/{target.model.name}",
            "api_base": place.base_url or None,
            "api_key": key.reveal() if key else None,
            "timeout": self._library.Timeout(_READ_S, connect=attempt.limits.connect_s),
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": True,
            "caching": False,
        }
        if key is None and place.base_url and not target.provider.credentials:
            arguments["api_key"] = NO_KEY
        return arguments

    @contextlib.contextmanager
    def _translated(self, attempt: Attempt) -> Generator[None]:
        """litellm raises its own thirty-nine classes, its clients' and Python's; whatever it is becomes one of ours."""
        try:
            yield
        except (errors.AgentError, GeneratorExit):
            raise
        except Exception as exc:
            error = of_exception(exc, self._scrub, begun=attempt.seen.has_content)
            attempt.seen.status = error.provider_status or attempt.seen.status
            raise error from exc


@contextlib.asynccontextmanager
async def _silence_ends(seconds: float | None) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds) as silence:
            yield
    except TimeoutError as exc:
        if not silence.expired():
            raise
        raise errors.Stalled("The provider fell silent. Ask again, or try another model.") from exc


async def _next(wrapper: Any, idle_s: float | None) -> Any:
    """The next chunk, or None at the end. The first one may take as long as the caller waits for it."""
    async with _silence_ends(idle_s):
        return await anext(wrapper, None)


def _expect_no_page(wrapper: Any) -> None:
    headers = getattr(wrapper, "_response_headers", None) or {}
    kind = next((str(value) for name, value in dict(headers).items() if name.lower().endswith("content-type")), "")
    if kind.startswith("text/html"):
        raise errors.NotAModel("The provider's address answers with a web page. Correct its base URL.")


def _expect_genuine(fields: Mapping[str, Any], wrapper: Any, attempt: Attempt) -> None:
    """Raises `Truncated` for a finish that litellm made up."""
    if not any(choice["finish_reason"] for choice in fields["choices"]) or wrapper.received_finish_reason is not None:
        return
    if attempt.target.provider.verifies_finish or not attempt.seen.has_content:
        raise errors.Truncated(
            "The provider's stream ended without a finish reason, so the answer is not whole. Ask again."
        )


def _given_usage(wrapper: Any) -> dict[str, Any] | None:
    for chunk in reversed(getattr(wrapper, "chunks", None) or []):
        if (usage := usage_fields(getattr(chunk, "usage", None))) is not None:
            return usage
    return None
