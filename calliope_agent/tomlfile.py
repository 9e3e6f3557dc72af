"""TOML files that people write: read whole, with the line of every key for the messages about it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calliope_agent.errors import ConfigError

MAX_BYTES = 1 << 20
_HEADER = re.compile(r"^\s*\[\[?\s*([^\]]+?)\s*\]\]?")


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A parsed file: ``data`` is plain Python values, ``where`` names a key's place for a message."""

    path: str
    text: str
    data: Mapping[str, Any]

    def where(self, *keys: str | int) -> str:
        """``file.toml line 7`` for the place of ``keys`` (integers index arrays of tables), or the file alone."""
        line = _line_of(self.text, keys)
        return f"{self.path} line {line}" if line else self.path


def parse(text: str, path: str) -> TomlFile:
    """Raises `ConfigError` with file and line when the text is not TOML."""
    try:
        return TomlFile(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: {exc}. Mend that line; until then the file is not used.") from exc


def read(path: Path) -> TomlFile:
    """Raises `ConfigError` when the file cannot be read, is too large, is not UTF-8 or is not TOML."""
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror})") from exc
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes, so it is not a settings file")
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 (byte {exc.start})") from exc
    return parse(text, str(path))


def read_if_there(path: Path) -> TomlFile | None:
    """None where there is no such file. Raises as `read` does; a folder that may not be entered is no absence."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror})") from exc
    return read(path)


def near(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'key_env'?`` or an empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def _line_of(text: str, keys: tuple[str | int, ...]) -> int | None:
    """tomllib keeps no positions and tomlkit none that are public, so the text is scanned: headers, then the key."""
    if not keys:
        return None
    tables = [str(key) for key in keys if isinstance(key, str)]
    index = next((key for key in keys if isinstance(key, int)), None)
    current: list[str] = []
    seen = -1
    header_line: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            current = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            if current in (tables, tables[:-1]):
                seen += 1 if line.lstrip().startswith("[[") else 0
                header_line = number
            if current == tables and (index is None or seen == index):
                return number
            continue
        if current == tables[:-1] and (index is None or seen == index) and _is_key(line, tables[-1]):
            return number
    return header_line


def _is_key(line: str, key: str) -> bool:
    return re.match(rf"""^\s*["']?{re.escape(key)}["']?\s*[.=]""", line) is not None
