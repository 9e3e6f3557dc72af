"""What the lane is asked, what it asks a model, and what it answers.

Decisions
1. The lane meets a model through one callable (`Ask`) and knows neither HTTP nor vendors: routing, retry and the
   wire lie behind it.
2. ``Suggestion.finish`` is "length" where the answer was cut at ``max_lines`` (or never came in time) while more
   may follow, else "stop".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

Mode = Literal["auto", "single", "multi"]
Kind = Literal["completions", "fim", "chat"]
Source = Literal["upstream", "typed-through", "joined", "cache", "budget"]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of another file that the editor thinks relevant."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class InlineRequest:
    """One keystroke's question.

    ``target`` is ``provider/model`` as routed; ``fim`` the manifest's field (endpoint, suffix, template:X, auto,
    chat). ``editor`` is the editor's id with its document (``x-calliope-editor``), empty for plain clients.
    ``reuse`` false asks the model in any case (``no-cache``), ``store`` false remembers nothing (``no-store``).
    ``budget_s`` bounds the wait.
    """

    prefix: str
    suffix: str
    target: str
    fim: str = "auto"
    path: str = ""
    language: str = ""
    repository: str = ""
    context: tuple[Snippet, ...] = ()
    editor: str = ""
    mode: Mode = "auto"
    max_lines: int = 3
    max_tokens: int | None = None
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    budget_s: float | None = None
    reuse: bool = True
    store: bool = True

    @property
    def model(self) -> str:
        """The model's name without its provider."""
        return self.target.partition("/")[2] or self.target


@dataclass(frozen=True, slots=True)
class InlineCall:
    """One upstream call: ``prompt`` (and ``suffix``) for "completions" and "fim", ``messages`` for "chat".

    ``stop`` is ordered by weight: a wire with a bound on stop sequences may drop the last ones, the lane cuts at
    all of them anyway. ``reuse`` and ``store`` are the request's, for whoever keeps answers behind `Ask`.
    """

    target: str
    kind: Kind
    max_tokens: int
    temperature: float
    stop: tuple[str, ...] = ()
    prompt: str = ""
    suffix: str | None = None
    messages: tuple[dict[str, str], ...] = ()
    reuse: bool = True
    store: bool = True


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The text to insert at the cursor; empty where there is nothing to say."""

    text: str
    source: Source
    finish: Finish


# The iterator yields text as it comes. Closing it, or cancelling the task that iterates it, ends the upstream call.
# Errors are `errors.AgentError`s and reach every reader of the call.
Ask = Callable[[InlineCall], AsyncIterator[str]]
