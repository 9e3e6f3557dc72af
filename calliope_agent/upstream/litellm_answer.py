"""litellm's answer objects as the JSON of the OpenAI wire, without what litellm adds of its own.

Decisions
1. Fields are taken by name: litellm's objects carry bookkeeping (``provider_specific_fields``, ``_hidden_params``) and default
   values that no provider said.
2. ``thinking_blocks`` stay beside ``reasoning_content``: they hold the signature that Claude wants back with the next turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_SAID: Final = (
    "role", "content", "tool_calls", "function_call", "reasoning_content", "thinking_blocks", "refusal", "annotations",
    "audio", "images",
)  # fmt: skip


def chunk_fields(chunk: Any) -> dict[str, Any]:
    """One chunk of a stream, without ``usage``."""
    return {
        "id": chunk.id,
        "object": "chat.completion.chunk",
        "created": chunk.created,
        "model": chunk.model,
        "choices": [_chunk_choice(choice) for choice in chunk.choices],
    }


def usage_chunk(chunk: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """The last chunk for a client that asked for usage; ``chunk`` lends its id and model."""
    return {**chunk, "choices": [], "usage": usage}


def is_silent(chunk: Mapping[str, Any]) -> bool:
    """Whether a chunk says nothing at all: no delta and no finish."""
    return not any(choice["delta"] or choice["finish_reason"] for choice in chunk["choices"])


def answer_fields(response: Any, usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": response.id,
        "object": "chat.completion",
        "created": response.created,
        "model": response.model,
        "choices": [_answer_choice(choice) for choice in response.choices],
        "usage": usage,
    }


def usage_fields(usage: Any) -> dict[str, Any] | None:
    """litellm's usage object. It makes zeros where the provider gave none: that is None again."""
    return chat_usage(usage.model_dump(exclude_none=True)) if usage is not None else None


def chat_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A provider's usage of either wire as the OpenAI wire tells it; None where it counted nothing.

    ``completion_tokens_details`` is left out: litellm fills it by counting words.
    """
    if not usage:
        return None
    cached, written = _cached(usage), usage.get("cache_creation_input_tokens") or 0
    if "input_tokens" in usage:
        prompt, completion = usage["input_tokens"] + cached + written, usage.get("output_tokens") or 0
    else:
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    if not prompt and not completion:
        return None
    told: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": usage.get("total_tokens") or prompt + completion,
    }
    if cached or written:
        told["prompt_tokens_details"] = {"cached_tokens": cached, "cache_creation_tokens": written}
    return told


def responses_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The same as OpenAI's Responses tell it."""
    told = chat_usage(usage)
    if told is None:
        return None
    return {
        "input_tokens": told["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": told.get("prompt_tokens_details", {}).get("cached_tokens", 0)},
        "output_tokens": told["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": _reasoned(usage or {})},
        "total_tokens": told["total_tokens"],
    }


def _cached(usage: Mapping[str, Any]) -> int:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached or usage.get("cache_read_input_tokens") or 0


def _reasoned(usage: Mapping[str, Any]) -> int:
    """Where the provider's own usage says it; the field is obligatory in Responses."""
    details = usage.get("completion_tokens_details")
    return (details.get("reasoning_tokens") or 0) if isinstance(details, dict) else 0


def _chunk_choice(choice: Any) -> dict[str, Any]:
    delta = _said(choice.delta.model_dump(exclude_none=True))
    if not delta.get("content") and "role" not in delta:
        delta.pop("content", None)
    fields = {"index": choice.index, "delta": delta, "finish_reason": choice.finish_reason or None}
    if (logprobs := getattr(choice, "logprobs", None)) is not None:
        fields["logprobs"] = logprobs if isinstance(logprobs, dict) else logprobs.model_dump()
    return fields


def _answer_choice(choice: Any) -> dict[str, Any]:
    message = _said(choice.message.model_dump(exclude_none=True))
    message.setdefault("content", None)
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
    return {"index": choice.index, "message": message, "finish_reason": choice.finish_reason or None}


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in _SAID if name in fields}
