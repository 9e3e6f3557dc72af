"""What a caller asks of the line itself: cache directives, an idempotency key, a stream that can be resumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from calliope_agent.errors import InvalidRequest

_KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Wishes:
    """``Cache-Control`` as RFC 9111 §5.2.1 has it for requests; ``idempotency_key`` and ``resumable`` keep a flight alive."""

    no_store: bool = False
    no_cache: bool = False
    max_age_s: float | None = None
    idempotency_key: str | None = None
    resumable: bool = False

    @property
    def outlives_reader(self) -> bool:
        return self.resumable or self.idempotency_key is not None


def wishes_of(headers: Mapping[str, str]) -> Wishes:
    """Unknown directives are ignored, as the RFC says. Raises `InvalidRequest` for an idempotency key that is none."""
    directives = dict(_directives(headers.get("cache-control", "")))
    key = headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.", param="Idempotency-Key")
    age = directives.get("max-age", "")
    return Wishes(
        no_store="no-store" in directives,
        no_cache="no-cache" in directives,
        max_age_s=float(age) if age.isascii() and age.isdigit() else None,
        idempotency_key=key,
        resumable=headers.get("x-calliope-resumable", "").lower() == "true",
    )


def _directives(text: str) -> list[tuple[str, str]]:
    parts = (part.strip().partition("=") for part in text.split(",") if part.strip())
    return [(name.strip().lower(), value.strip().strip('"')) for name, _, value in parts]
