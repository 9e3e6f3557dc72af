"""The upstream call for one place: which wire, which prompt, which stops.

Decisions
1. Stops go upstream to spare tokens; the lane cuts at every one of them itself, since wires drop or bound them.
2. No newline stop: later lines are remembered and answer the keystrokes that follow.
3. Where there is no FIM, a chat model gets the text with a marked hole and answers between two tags: tags keep the
   leading white space that a plain answer loses, and show where talk begins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from calliope_agent.inline.place import Place
from calliope_agent.inline.request import InlineCall, InlineRequest, Kind
from calliope_agent.inline.template import Template, Templates

HOLE = "⟦HOLE⟧"
OPEN_TAG = "<insert>"
CLOSE_TAG = "</insert>"
CONTEXT_CHARS = 4000
_SYSTEM = (
    f"You complete text inside an editor. The message shows part of a file; {HOLE} marks the cursor. "
    f"Answer with the exact text to insert there, between {OPEN_TAG} and {CLOSE_TAG}, and nothing else. "
    "Keep indentation and spaces exactly. Repeat nothing that already stands before or after the cursor. "
    f"Write one to six lines; finish the statement or block at hand, then stop. "
    f"If nothing fits, answer {OPEN_TAG}{CLOSE_TAG}."
)


@dataclass(frozen=True, slots=True)
class Way:
    """How a request's model is asked: the wire's kind, the family where one is used, and where text must be cut."""

    kind: Kind
    template: Template | None
    stops: tuple[str, ...]

    @property
    def is_chat(self) -> bool:
        return self.kind == "chat"


def way_of(request: InlineRequest, templates: Templates) -> Way:
    """Raises `ConfigError` where the manifest names a template that does not exist."""
    mode, _, name = request.fim.partition(":")
    family = _family(mode, name, request.model, templates)
    own = family.stops if family else ()
    stops = tuple(dict.fromkeys((*request.stop, *own, *templates.common_stops)))
    if family:
        return Way("completions", family, stops)
    if mode == "endpoint":
        return Way("fim", None, stops)
    if mode == "suffix":
        return Way("completions", None, stops)
    return Way("chat", None, (*stops, CLOSE_TAG))


def call_of(request: InlineRequest, place: Place, way: Way, max_tokens: int) -> InlineCall:
    """The call that asks for the text at ``place``."""
    return replace(_asking(request, place, way, max_tokens), reuse=request.reuse, store=request.store)


def _asking(request: InlineRequest, place: Place, way: Way, max_tokens: int) -> InlineCall:
    tokens = request.max_tokens or max_tokens
    if way.template:
        prompt = way.template.render(_bounded(request), place.before, place.after)
        stop = tuple(dict.fromkeys((*request.stop, *way.template.stops)))
        return InlineCall(request.target, way.kind, tokens, request.temperature, stop, prompt)
    if way.is_chat:
        messages = ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": _hole(request, place)})
        stop = (*request.stop, CLOSE_TAG)
        return InlineCall(request.target, "chat", tokens, request.temperature, stop, messages=messages)
    return InlineCall(request.target, way.kind, tokens, request.temperature, request.stop, place.before, place.after)


def _family(mode: str, name: str, model: str, templates: Templates) -> Template | None:
    if mode == "template":
        return templates.named(name) if name else templates.for_model(model)
    return templates.for_model(model) if mode == "auto" else None


def _bounded(request: InlineRequest) -> InlineRequest:
    """Other files up to `CONTEXT_CHARS`, the first ones first."""
    left = CONTEXT_CHARS
    kept = []
    for snippet in request.context:
        if len(snippet.text) <= left:
            left -= len(snippet.text)
            kept.append(snippet)
    return request if len(kept) == len(request.context) else replace(request, context=tuple(kept))


def _hole(request: InlineRequest, place: Place) -> str:
    about = [f"File: {request.path}"] if request.path else []
    if request.language:
        about.append(f"Language: {request.language}")
    others = [f"From {item.path}:\n{item.text}\n" for item in _bounded(request).context]
    text = place.before.replace(HOLE, "") + HOLE + place.after.replace(HOLE, "")
    return "\n".join([*others, *about, text])
