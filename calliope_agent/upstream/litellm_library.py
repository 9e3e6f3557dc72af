"""What of litellm the door's parts use, handed to them as a value, so that one file alone imports it.

litellm's functions are typed as Any on purpose: their signatures are promises nobody made. `tests/contract` holds those we lean on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Library:
    """litellm, loaded. Upper-case names are its classes, the rest its functions."""

    acompletion: Any
    aembedding: Any
    stream_chunk_builder: Any
    token_counter: Any
    get_optional_params: Any
    tool_names_key: str
    Timeout: Any
    ModelResponse: Any
    ModelResponseStream: Any
    MessagesAdapter: Any
    MessagesStream: Any
    MessagesConfig: Any
    MessagesReader: Any
    ResponsesConfig: Any
    ResponsesStream: Any
