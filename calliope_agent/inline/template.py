"""FIM templates: how a model family wants its prefix, its suffix and other files written.

The facts are in ``templates.toml``; this module reads and fills them.

Decisions
1. A prefix that itself holds a special token (a file about such tokens, or planted text) is cut after the last
   one, a suffix before the first: the model's control tokens are ours alone. Altering the person's text was not
   taken: the suggestion must fit what stands there.
2. Families without a form for several files get none: comments with foreign code in front of the prefix were not
   taken, since they move with every keystroke elsewhere and cost the provider's prompt cache.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from calliope_agent import tomlfile
from calliope_agent.errors import ConfigError
from calliope_agent.inline.request import InlineRequest

PATH = Path(__file__).with_name("templates.toml")
_FIELD = re.compile(r"\{(prefix|suffix|context|path|language|repository|text)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """One family's way; the fields are described at the top of ``templates.toml``."""

    name: str
    models: tuple[str, ...]
    prompt: str
    stops: tuple[str, ...]
    head: str = ""
    snippet: str = ""
    file: str = ""
    always_file: bool = False

    def render(self, request: InlineRequest, prefix: str, suffix: str) -> str:
        """The whole prompt for one window of the document."""
        prefix, suffix = self._without_tokens(prefix, suffix)
        context = self._context(request)
        values = {"path": self._plain(request.path), "language": self._plain(request.language), "context": context}
        return _fill(self.prompt, {**values, "prefix": prefix, "suffix": suffix})

    def _context(self, request: InlineRequest) -> str:
        snippets = [item for item in request.context if self.snippet and not self._holds_token(item.text)]
        file = _fill(self.file, {"path": self._plain(request.path)}) if request.path else ""
        if not snippets:
            return file if self.always_file else ""
        head = _fill(self.head, {"repository": self._plain(request.repository)}) if request.repository else ""
        parts = [_fill(self.snippet, {"path": self._plain(item.path), "text": item.text}) for item in snippets]
        return head + "".join(parts) + file

    def _without_tokens(self, prefix: str, suffix: str) -> tuple[str, str]:
        for stop in self.stops:
            prefix = prefix.rpartition(stop)[2]
            suffix = suffix.partition(stop)[0]
        return prefix, suffix

    def _holds_token(self, text: str) -> bool:
        return any(stop in text for stop in self.stops)

    def _plain(self, name: str) -> str:
        """A name in the prompt is one line without control tokens."""
        line = " ".join(name.split())
        return "" if self._holds_token(line) else line


@dataclass(frozen=True, slots=True)
class Templates:
    """All families, in the order in which model names are tried."""

    families: tuple[Template, ...]
    common_stops: tuple[str, ...]

    def named(self, name: str) -> Template:
        """Raises `ConfigError` for a family that does not exist."""
        for family in self.families:
            if family.name == name:
                return family
        known = [family.name for family in self.families]
        raise ConfigError(
            f"no FIM template is called {name!r}.{tomlfile.near(name, known)} "
            f"Use one of {', '.join(known)} in the provider's file, or fim = 'chat'."
        )

    def for_model(self, model: str) -> Template | None:
        """The family a model's name belongs to, or none."""
        name = model.lower()
        for family in self.families:
            if any(fnmatchcase(name, pattern) for pattern in family.models):
                return family
        return None


def read(path: Path = PATH) -> Templates:
    """Raises `ConfigError` where a family misses a field or has one too many."""
    file = tomlfile.read(path)
    families = tuple(_family(item, file, index) for index, item in enumerate(file.data["family"]))
    return Templates(families, tuple(file.data["common_stops"]))


@functools.cache
def shipped() -> Templates:
    """The families of the package's own file, read once."""
    return read()


def _family(item: Mapping[str, Any], file: tomlfile.TomlFile, index: int) -> Template:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
    try:
        return Template(**values)
    except TypeError as exc:
        raise ConfigError(f"{file.where('family', index)}: not a FIM template ({exc})") from exc


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    """One pass, so that braces in somebody's code are never taken for fields."""
    return _FIELD.sub(lambda match: values[match.group(1)], pattern)
