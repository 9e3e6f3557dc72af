"""TOML text changed with its comments and order kept.

Decisions
1. tomlkit edits, tomllib has the last word: the new text is read back and compared with what was meant, so a slip of the editing
   library loses nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from calliope_agent.configfile import Place
from calliope_agent.errors import ConfigError
from calliope_agent.tomlfile import MAX_BYTES


def edited(text: str, edits: Mapping[Place, Any]) -> str:
    """The text with the values set at their places; one that is None is removed.

    Raises `ConfigError` when the result would not say what was meant.
    """
    meant = tomllib.loads(text)
    try:
        document = tomlkit.parse(text)
        for place, value in edits.items():
            _set(document, place, value)
            _set(meant, place, value)
        after = document.as_string()
        same = tomllib.loads(after) == meant
    except (TOMLKitError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError("config.toml cannot be changed by a program as it is written. Change it by hand.") from exc
    if not same:
        raise ConfigError("config.toml cannot be changed by a program as it is written. Change it by hand.")
    if len(after.encode()) > MAX_BYTES:
        raise ConfigError(f"config.toml would be larger than {MAX_BYTES} bytes. Nothing was changed.")
    return after


def _set(document: Any, place: Place, value: Any) -> None:
    """The same for tomlkit's document and for plain dictionaries; an emptied table goes too."""
    *tables, key = place
    holders = [document]
    for name in tables:
        if name not in holders[-1]:
            if value is None:
                return
            plain = type(document) is dict
            holders[-1][name] = {} if plain else tomlkit.table(is_super_table=True)
        holders.append(holders[-1][name])
    if value is not None:
        _put(holders[-1], key, value, inline=not tables)
        return
    holders[-1].pop(key, None)
    for holder, name in zip(reversed(holders[:-1]), reversed(tables), strict=True):
        if not holder[name]:
            del holder[name]


def _put(holder: Any, key: str, value: Any, *, inline: bool) -> None:
    """At the top a mapping goes on one line: a table of its own might come to stand inside another."""
    if type(holder) is dict or not (inline and isinstance(value, dict)):
        holder[key] = value
        return
    if key in holder and not isinstance(holder[key], InlineTable):
        holder.pop(key)
    line = tomlkit.inline_table()
    line.update(value)
    holder[key] = line
