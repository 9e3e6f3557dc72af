"""Texts of settings into values. Every function raises ValueError that says what is allowed, never what was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from calliope_agent.secret import Secret

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def flag(text: str) -> bool:
    lowered = text.lower()
    if lowered not in TRUE | FALSE:
        raise ValueError("must be true or false")
    return lowered in TRUE


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("must be a whole number of at least 1")
    return int(text)


def port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
        raise ValueError("must be a port number from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ValueError("must be a number of seconds above 0")
    return value


def log_level(text: str) -> str:
    upper = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(text.upper(), text.upper())
    if upper not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return upper


@dataclass(frozen=True, slots=True)
class OneOf:
    """A parser of a closed set of words."""

    allowed: tuple[str, ...]

    def __call__(self, text: str) -> str:
        if text.lower() not in self.allowed:
            raise ValueError("must be one of " + ", ".join(word or "nothing" for word in self.allowed))
        return text.lower()


def one_of(*allowed: str) -> OneOf:
    return OneOf(allowed)


def text(value: str) -> str:
    return value


def secret(value: str) -> Secret:
    return Secret(value)


def token(value: str) -> Secret:
    """A bearer token (RFC 6750 §2.1 b64token characters), long enough not to be guessed."""
    if len(value) < 16 or not all(char.isascii() and (char.isalnum() or char in "-._~+/=") for char in value):
        raise ValueError("must be at least 16 letters, digits or -._~+/=")
    return Secret(value)


def http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must be an http or https address without user, query or fragment")
    return value.rstrip("/")


def model(value: str) -> str:
    if any(char.isspace() or not char.isprintable() for char in value) or len(value) > 256:
        raise ValueError("must be a model's name: provider/model")
    return value


def models(value: str) -> tuple[str, ...]:
    return tuple(model(part.strip()) for part in value.split(",") if part.strip())


def aliases(value: str) -> Mapping[str, str]:
    return dict(_pair(part) for part in value.split(",") if part.strip())


def model_fallbacks(value: str) -> Mapping[str, tuple[str, ...]]:
    pairs = (_pair(part) for part in value.split(",") if part.strip())
    return {name: tuple(model(one.strip()) for one in chain.split("+") if one.strip()) for name, chain in pairs}


def _pair(part: str) -> tuple[str, str]:
    name, equals, meaning = part.partition("=")
    if not equals or not name.strip() or not meaning.strip():
        raise ValueError("must be name=meaning pairs separated by commas")
    return model(name.strip()), model(meaning.strip())
