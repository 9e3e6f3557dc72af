"""The fields of a request that a translation passes on, and their cleaning for providers that refuse what they do not know.

Decisions
1. An allow-list: litellm takes any keyword for itself (``api_base``, ``aws_*``, ``vertex_*``), so what is not a known parameter of
   OpenAI's API never reaches it, and is left out without a word: clients send new fields every month.
2. Reasoning goes back to a provider of the OpenAI wire only where it is unsigned: it was told by such a provider (DeepSeek wants
   it back between tool calls), while signed thinking is Anthropic's and is refused elsewhere.
3. Text parts become one string: several compatible servers take a list only from a user.
4. ``metadata.user_id`` becomes no ``user``: Claude Code's is longer than the 64 characters that OpenAI allows, and names a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from calliope_agent.catalog import Target

CHAT_FIELDS: Final = frozenset(
    {
        "messages", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "max_tokens",
        "max_completion_tokens", "n", "parallel_tool_calls", "prediction", "reasoning_effort", "response_format", "seed",
        "service_tier", "stop", "temperature", "tool_choice", "tools", "top_p", "user", "verbosity", "functions",
        "function_call", "modalities", "audio", "web_search_options",
    }
)  # fmt: skip
# What litellm's own translation adds for the routes that serve Claude.
LITELLM_CHAT_FIELDS: Final = CHAT_FIELDS | {"thinking", "output_config"}
EMBEDDING_FIELDS: Final = frozenset({"input", "dimensions", "user"})
MESSAGES_FIELDS: Final = frozenset(
    {
        "messages", "system", "max_tokens", "temperature", "top_p", "tools", "tool_choice", "thinking", "stop_sequences",
        "output_config", "output_format",
    }
)  # fmt: skip
RESPONSES_FIELDS: Final = frozenset(
    {
        "instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning", "temperature", "text",
        "tool_choice", "tools", "top_p", "truncation", "user", "store", "service_tier",
    }
)  # fmt: skip
_EFFORTS: Final = frozenset({"minimal", "low", "medium", "high"})
_MESSAGE_FIELDS: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal"})


def only(fields: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in names and value is not None}


def for_openai_wire(fields: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """A translated chat request as a strict OpenAI-wire server takes it."""
    clean = only(fields, CHAT_FIELDS - {"user", "web_search_options"})
    clean["messages"] = [_message(message) for message in clean.get("messages", [])]
    _clean_tools(clean)
    effort = clean.pop("reasoning_effort", None)
    if effort is not None and effort != "none" and "reasoning" in target.model.capabilities:
        clean["reasoning_effort"] = effort if effort in _EFFORTS else "high"
    return clean


def _clean_tools(clean: dict[str, Any]) -> None:
    """Tools that only Anthropic's servers can run are left out, and with them a choice that names one."""
    tools = [_tool(tool) for tool in clean.pop("tools", []) if tool.get("type") == "function" and "function" in tool]
    choice = clean.pop("tool_choice", None)
    if not tools:
        clean.pop("parallel_tool_calls", None)
        return
    clean["tools"] = tools
    named = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    if choice is not None and (named is None or named in {tool["function"].get("name") for tool in tools}):
        clean["tool_choice"] = choice


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": tool["function"]}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    clean = {name: value for name, value in message.items() if name in _MESSAGE_FIELDS}
    clean["content"] = _content(message.get("content"))
    if calls := message.get("tool_calls"):
        clean["tool_calls"] = [_tool_call(call) for call in calls]
    blocks = message.get("thinking_blocks") or []
    if message.get("reasoning_content") and not any(block.get("signature") for block in blocks):
        clean["reasoning_content"] = message["reasoning_content"]
    return clean


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    if all(part.get("type") == "text" for part in content):
        return "\n".join(part.get("text", "") for part in content)
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in ("cache_control", "prompt_cache_breakpoint")}


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", {})
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": function.get("arguments", "")},
    }


def text_of(parts: Iterable[Any]) -> str:
    return "\n".join(part.get("text", "") for part in parts if isinstance(part, dict))
