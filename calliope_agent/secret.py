"""A value that must not be seen: it prints as a label, compares in constant time, and is read in one named way."""

from __future__ import annotations

import hmac


class Secret:
    """Holds a key or a token. ``reveal()`` is the only way to the value; ``repr``, ``str`` and pickling give none."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def matches(self, other: str) -> bool:
        """Compare in constant time (RFC 6750 leaves the comparison to us; hmac's does not leak a prefix)."""
        return hmac.compare_digest(self._value.encode(), other.encode("utf-8", "surrogateescape"))

    @property
    def label(self) -> str:
        """``sk-…4f2a``: enough to tell two keys apart, too little to use one."""
        value = self._value
        if len(value) < 12:
            return "…"
        head = value[: value.index("-") + 1] if "-" in value[:6] else ""
        return f"{head}…{value[-4:]}"

    def __repr__(self) -> str:
        return f"Secret({self.label})"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")
