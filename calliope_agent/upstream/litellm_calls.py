"""Calls that litellm makes itself: chat and embeddings of the providers it alone can reach (Bedrock, Vertex AI).

Decisions
1. One attempt is one call: ``max_retries=0`` and ``num_retries=0``, since litellm's OpenAI client repeats twice by default.
2. A finish counts only when litellm's wrapper says that it received one (``received_finish_reason``, undocumented, held by
   tests/contract); else litellm ends a cut stream with an invented ``stop``. Where the manifest says ``verifies_finish = false``
   (Google's routes tell nothing) an answer with content counts, and an empty one does not.
3. Usage comes from the chunks as the provider sent them: litellm's last chunk holds what it counted itself.
4. A whole answer is one JSON document, so a cut one does not parse: there litellm's finish is taken.
5. Without a key but with an address of its own, a provider is asked with a key that means nothing: litellm would else take the
   one of OPENAI_API_KEY, which belongs to another address.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from calliope_agent import errors
from calliope_agent.upstream.attempt import Attempt, Part, Plain
from calliope_agent.upstream.litellm_answer import answer_fields, chunk_fields, usage_chunk, usage_fields
from calliope_agent.upstream.litellm_errors import of_exception
from calliope_agent.upstream.litellm_library import Library
from calliope_agent.upstream.litellm_request import EMBEDDING_FIELDS, LITELLM_CHAT_FIELDS
from calliope_agent.upstream.look_openai import OpenAILook
from calliope_agent.upstream.place import Place, Places
from calliope_agent.upstream.translate_chat import wants_usage
from calliope_agent.upstream.translation import Telling, encode, fields_of, refused

NO_KEY = "none"
_PLAIN_READ_S = 3600.0  # the request's deadline ends a plain call, not silence: a long answer is silent to its end


class LitellmCalls:
    """See `Door`; only for kinds chat and embeddings."""

    def __init__(self, library: Library, places: Places, scrub: Callable[[str], str]) -> None:
        self._library = library
        self._places = places
        self._scrub = scrub

    async def stream(self, attempt: Attempt) -> AsyncGenerator[Part]:
        """See `Door.stream`."""
        _expect(attempt, "chat")
        arguments = await self._arguments(attempt, attempt.limits.idle_s)
        with self._translated(attempt):
            async with _silence_ends(attempt.limits.idle_s):
                wrapper = await self._library.acompletion(
                    **arguments, stream=True, stream_options={"include_usage": True}
                )
            attempt.seen.status = 200
            _expect_no_page(wrapper)
            try:
                async for part in self._parts(wrapper, attempt):
                    yield part
            finally:
                await wrapper.aclose()

    async def plain(self, attempt: Attempt) -> Plain:
        """See `Door.plain`."""
        if attempt.call.kind == "embeddings":
            return await self._embeddings(attempt)
        _expect(attempt, "chat")
        arguments = await self._arguments(attempt, _PLAIN_READ_S)
        with self._translated(attempt):
            response = await self._library.acompletion(**arguments)
        seen = attempt.seen
        seen.status, seen.model, seen.usage = 200, response.model, usage_fields(getattr(response, "usage", None))
        fields = answer_fields(response, seen.usage)
        if not fields["choices"]:
            raise errors.Malformed("The provider's answer holds no choices. Ask again.")
        look = OpenAILook(seen)
        telling = Telling(look)
        telling.say({"choices": [{**one, "delta": _indexed(one["message"])} for one in fields["choices"]]})
        telling.end()
        return _bounded(fields, attempt)

    async def _embeddings(self, attempt: Attempt) -> Plain:
        arguments = await self._arguments(attempt, _PLAIN_READ_S)
        with self._translated(attempt):
            response = await self._library.aembedding(**arguments)
        seen = attempt.seen
        seen.status, seen.model, seen.usage = 200, response.model, usage_fields(response.usage)
        seen.finish, seen.has_content = "stop", bool(response.data)
        if not response.data:
            raise errors.Malformed("The provider's answer holds no embeddings. Ask again.")
        data = [one if isinstance(one, dict) else one.model_dump() for one in response.data]
        fields = {"object": "list", "data": data, "model": response.model, "usage": seen.usage}
        return _bounded(fields, attempt)

    async def _parts(self, wrapper: Any, attempt: Attempt) -> AsyncGenerator[Part]:
        verifies = attempt.target.provider.verifies_finish
        telling = Telling(OpenAILook(attempt.seen, verifies=verifies))
        head: dict[str, Any] = {}
        size = 0
        chunks = aiter(wrapper)
        while (chunk := await _next(chunks, attempt.limits.idle_s)) is not None:
            fields = chunk_fields(chunk)
            head = head or fields
            if not any(choice["delta"] or choice["finish_reason"] for choice in fields["choices"]):
                continue
            _expect_genuine(fields, wrapper, attempt, verifies=verifies)
            telling.say(fields)
            part = telling.part()
            size += sum(map(len, part.frames))
            if size > attempt.limits.answer_bytes:
                raise _too_large(attempt)
            yield part
        telling.end()
        attempt.seen.usage = _given_usage(wrapper)
        if attempt.seen.usage is not None and wants_usage(attempt):
            telling.say(usage_chunk(head, attempt.seen.usage))
            yield telling.part()

    async def _arguments(self, attempt: Attempt, read_s: float) -> dict[str, Any]:
        """What litellm is called with: the request's known parameters, and the provider's own address and key."""
        target = attempt.target
        place = await self._places(attempt) if target.provider.base_url else Place("")
        names = EMBEDDING_FIELDS if attempt.call.kind == "embeddings" else LITELLM_CHAT_FIELDS
        arguments = fields_of(attempt.call, names - target.drops)
        key = place.key or attempt.key
        arguments |= {
            "model": f"{target.provider.litellm}/{target.model.name}",
            "api_base": place.base_url or None,
            "api_key": key.reveal() if key else None,
            "timeout": self._library.Timeout(read_s, connect=attempt.limits.connect_s),
            "max_retries": 0,
            "num_retries": 0,
            "drop_params": True,
            "caching": False,
        }
        if key is None and place.base_url and not target.provider.credentials:
            arguments["api_key"] = NO_KEY
        return arguments

    @contextlib.contextmanager
    def _translated(self, attempt: Attempt) -> Any:
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
async def _silence_ends(seconds: float) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds) as silence:
            yield
    except TimeoutError as exc:
        if not silence.expired():
            raise
        raise errors.Stalled("The provider fell silent. Ask again, or try another model.") from exc


async def _next(chunks: Any, idle_s: float) -> Any:
    """The next chunk, or None at the end."""
    async with _silence_ends(idle_s):
        return await anext(chunks, None)


def _expect(attempt: Attempt, kind: str) -> None:
    if attempt.call.kind != kind:
        raise refused(f"{attempt.target.provider.title} is not asked for {attempt.call.kind} here")


def _expect_no_page(wrapper: Any) -> None:
    headers = getattr(wrapper, "_response_headers", None) or {}
    kind = next((str(value) for name, value in dict(headers).items() if name.lower().endswith("content-type")), "")
    if kind.startswith("text/html"):
        raise errors.NotAModel("The provider's address answers with a web page. Correct its base URL.")


def _expect_genuine(fields: Mapping[str, Any], wrapper: Any, attempt: Attempt, *, verifies: bool) -> None:
    if not any(choice["finish_reason"] for choice in fields["choices"]) or wrapper.received_finish_reason is not None:
        return
    if verifies or not attempt.seen.has_content:
        raise errors.Truncated(
            "The provider's stream ended without a finish reason, so the answer is not whole. Ask again."
        )


def _given_usage(wrapper: Any) -> dict[str, Any] | None:
    for chunk in reversed(getattr(wrapper, "chunks", None) or []):
        if (usage := usage_fields(getattr(chunk, "usage", None))) is not None:
            return usage
    return None


def _indexed(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the delta that says all of it."""
    calls = [{**call, "index": index} for index, call in enumerate(message.get("tool_calls") or [])]
    return {**message, "tool_calls": calls or None}


def _bounded(fields: Mapping[str, Any], attempt: Attempt) -> Plain:
    body = encode(fields)
    if len(body) > attempt.limits.answer_bytes:
        raise _too_large(attempt)
    return Plain(body)


def _too_large(attempt: Attempt) -> errors.AnswerTooLarge:
    return errors.AnswerTooLarge(
        f"The answer is larger than {attempt.limits.answer_bytes} bytes. Ask for a shorter one."
    )
