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
    """litellm makes a usage of zeros where the provider gave none: that is None again."""
    if usage is None:
        return None
    fields: dict[str, Any] = usage.model_dump(exclude_none=True)
    return fields if fields.get("total_tokens") or fields.get("prompt_tokens") else None


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
    return {"index": choice.index, "message": message, "finish_reason": choice.finish_reason or None}


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in _SAID if name in fields}
