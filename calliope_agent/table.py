"""One table of a TOML file under a closed schema: keys are read by type, a key that nobody read is a mistake."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from calliope_agent.errors import ConfigError
from calliope_agent.tomlfile import TomlFile, near

T = TypeVar("T")

_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}


class Table:
    """Reads ``data``, which lies at ``place`` in ``file``. Every method raises `ConfigError` with file and line."""

    def __init__(self, file: TomlFile, data: Mapping[str, Any], place: tuple[str | int, ...] = ()) -> None:
        self._file = file
        self._data = data
        self._place = place
        self._known: set[str] = set()

    def error(self, key: str, message: str) -> ConfigError:
        return ConfigError(f"{self.where(key)}: {key} {message}")

    def where(self, key: str) -> str:
        """The key's line, or its table's where the key stands in an inline table (the scan does not look inside)."""
        place = self._file.where(*self._place, key)
        return place if place != self._file.path else self._file.where(*self._place)

    def has(self, key: str) -> bool:
        self._known.add(key)
        return key in self._data

    def text(self, key: str, check: Callable[[str], T]) -> T | None:
        """The text after ``check``, which raises ValueError with the end of a sentence (``must be …``)."""
        value = self._typed(key, str)
        return None if value is None else self._checked(key, value, check)

    def texts(self, key: str, check: Callable[[str], T]) -> tuple[T, ...]:
        """A list of texts, each after ``check``; a repeated one is a mistake."""
        found = tuple(self._checked(key, self._as(key, item, str), check) for item in self._typed(key, list) or ())
        if len(set(found)) != len(found):
            raise self.error(key, "names one thing twice")
        return found

    def flag(self, key: str, default: bool) -> bool:
        value: bool | None = self._typed(key, bool)
        return default if value is None else value

    def count(self, key: str) -> int | None:
        """A whole number of at least 1."""
        value: int | None = self._typed(key, int)
        if value is not None and value < 1:
            raise self.error(key, "must be at least 1")
        return value

    def amount(self, key: str, least: float = 0.0) -> float | None:
        """A number of at least ``least``; TOML's ``inf`` and ``nan`` are no amounts."""
        value: float | None = self._typed(key, float)
        if value is not None and not least <= value < 1e12:
            raise self.error(key, f"must be a number of at least {least:g}")
        return value

    def table(self, key: str) -> Table | None:
        value = self._typed(key, dict)
        return None if value is None else Table(self._file, value, (*self._place, key))

    def tables(self, key: str) -> tuple[Table, ...]:
        rows = self._typed(key, list) or ()
        return tuple(
            Table(self._file, self._as(key, row, dict), (*self._place, key, number)) for number, row in enumerate(rows)
        )

    def keys(self) -> tuple[str, ...]:
        """Every key there is, for a table whose keys are free."""
        return tuple(self._data)

    def row(self, key: str, number: int) -> str:
        """The place of one table of an array of tables."""
        return self._file.where(*self._place, key, number)

    def finish(self) -> None:
        """Refuse what no method asked for, with the nearest name that was."""
        for key in self._data:
            if key not in self._known:
                raise ConfigError(f"{self.where(key)}: there is no key {key!r} here.{near(key, self._known)}")

    def _typed(self, key: str, kind: type[T]) -> T | None:
        return self._as(key, self._data[key], kind) if self.has(key) else None

    def _as(self, key: str, value: Any, kind: type[T]) -> T:
        if kind is float and type(value) is int:
            return float(value)  # type: ignore[return-value]  # T is float here
        if type(value) is not kind:
            raise self.error(key, f"must be {_KINDS[kind]}, not {_KINDS.get(type(value), 'a date or time')}")
        return value

    def _checked(self, key: str, value: str, check: Callable[[str], T]) -> T:
        try:
            return check(value)
        except ValueError as exc:
            raise self.error(key, str(exc)) from exc


def word_of(allowed: Collection[str]) -> Callable[[str], str]:
    """A check for `Table.text`: one of these words, else the nearest is named."""

    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(sorted(allowed))}, not {text[:60]!r}.{near(text, allowed)}")
        return text

    return check


def line(text: str) -> str:
    """A check for `Table.text`: something to read, on one line, without control characters."""
    if not text.strip() or not text.isprintable() or len(text) > 1000:
        raise ValueError("must be a text on one line")
    return text
