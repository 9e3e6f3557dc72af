"""The one redaction boundary: every text that leaves the process by a log, an error, a report passes `Redactor.scrub`.

**Decisions**

1. Known keys are found with ``str.find`` in every spelling they may have been given on their way (URL, JSON, base64 at
   each of its three alignments, hex), and a beginning of 12 characters or more counts as the key: programs print "the
   first half". A regular expression over all spellings was slower by a factor of ten on long texts.
2. A value shorter than 8 characters is not searched for: keys of local servers are words such as "ollama" or "none",
   and replacing those would make every message unreadable while hiding nothing.
3. Patterns for unknown keys begin with plain text wherever one can be named, since `re` then skips ahead at memory
   speed; what must not stand before it is asked afterwards. Every repetition is possessive or bounded: a megabyte of
   hostile text costs one pass.
4. Bytes are read as UTF-8 with ``surrogateescape``, which gives every byte back.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import AnyStr, NamedTuple
from urllib.parse import quote, quote_plus

from calliope_agent.secret import Secret

MIN_KNOWN = 8
MIN_PREFIX = 12
MAX_KNOWN = 256

_PREFIXED = {
    "sk-": 12,
    "sk_": 16,
    "AIza": 16,
    "gsk_": 12,
    "hf_": 12,
    "xai-": 12,
    "pplx-": 16,
    "nvapi-": 16,
    "csk-": 16,
    "tgp_v1_": 12,
    "r8_": 16,
    "cal-": 12,
    "ghp_": 16,
    "gho_": 16,
    "ghs_": 16,
    "github_pat_": 16,
    "glpat-": 16,
    "ya29.": 16,
    "AKIA": 12,
    "ASIA": 12,
}
"""How keys of known issuers begin, and how many characters must follow before it is taken for one."""

_BOUNDARY = r"(?:(?<![A-Za-z0-9]{0})|(?<=%[0-9A-Fa-f]{{2}}{0})|(?<=\\[nrtbf]{0})|(?<=\\u[0-9a-fA-F]{{4}}{0}))"
_ASSIGNED = r"[\\\"']{0,4}\s{0,4}(?:=|:|%3[aAdD])\s{0,4}[\\\"']{0,4}"
_WITH_DIGIT = r"(?=[A-Za-z._~+/=\-%]{0,40}\d)([A-Za-z0-9._~+/=\-%]{6,}+)"
_NAMED = (
    (("bearer",), r"(?i)\bbearer(?:\s|%20|\+){1,4}([A-Za-z0-9._~+/=\-]{6,}+)"),
    (("basic",), r"(?i)\bbasic\s{1,4}([A-Za-z0-9+/=]{8,}+)"),
    # A digit is asked for, so that "OPENAI_API_KEY: environment" stays readable.
    (
        ("key", "authorization", "_token", "_secret"),
        r"(?i)(?:api[_-]?key|x-goog-api-key|authorization|[a-z0-9]_token|_secret|secret_access_key)"
        + _ASSIGNED
        + _WITH_DIGIT,
    ),
    (("passphrase", "password"), r"(?i)(?:passphrase|password)" + _ASSIGNED + r"([^\s\\\"'&,;\[\]{}]{4,}+)"),
    (("key=", "token=", "sig=", "signature="), r"[?&](?:key|token|sig|signature)=([^&\s\"'#<>\\\[\]]{6,}+)"),
    (("://",), r"://[^/\s:@\"']{0,256}+:([^/\s@\"'\[\]]{1,256}+)@"),
    (
        ("eyj",),
        r"(?:(?<![A-Za-z0-9_\-])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrtbf]))"
        r"eyJ[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{4,}+",
    ),
    (("private key-----",), r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----([A-Za-z0-9+/=\s\\]{16,}+)"),
)
"""Words in small letters without one of which the pattern cannot match, and the pattern; its group is what is hidden.
"""

# Compiled when a text first has one of their words: all of them at once would be 20 ms of every start.
_compiled = cache(re.compile)


class _Span(NamedTuple):
    """``rank`` lets the label that says most win: a known key's, then an issuer's, then none."""

    start: int
    rank: int
    end: int
    label: str


class Redactor:
    """Knows the keys in use. ``add`` costs some microseconds, ``scrub`` some per short line and one pass over a long
    text.
    """

    def __init__(self) -> None:
        self._known: dict[Secret, tuple[str, ...]] = {}

    def add(self, secret: Secret) -> None:
        """From now on this value is hidden; the oldest of more than `MAX_KNOWN` is dropped."""
        value = secret.reveal()
        if len(value) < MIN_KNOWN or secret in self._known:
            return
        known = {**self._known, secret: tuple(_spellings(value))}
        while len(known) > MAX_KNOWN:
            del known[next(iter(known))]
        # Replaced in one step: log lines are scrubbed in other threads meanwhile.
        self._known = known

    def scrub(self, text: AnyStr) -> AnyStr:
        """The text with every known key, and everything that looks like a key, replaced by its label."""
        if isinstance(text, bytes):
            return self._scrub(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        return self._scrub(text)

    def _scrub(self, text: str) -> str:
        known = self._known
        spans = [*_known_spans(text, known), *_pattern_spans(text)]
        if not spans:
            return text
        spans.sort()
        pieces: list[str] = []
        end = 0
        for span in spans:
            if span.end <= end:
                continue
            if span.start >= end:
                pieces += (text[end : span.start], span.label)
            # Else it overlaps the one before: that one's label stands for both.
            end = span.end
        pieces.append(text[end:])
        return "".join(pieces)


def _known_spans(text: str, known: dict[Secret, tuple[str, ...]]) -> Iterator[_Span]:
    for secret, spellings in known.items():
        label = f"[{secret.label}]"
        for spelling in spellings:
            head = spelling[:MIN_PREFIX]
            start = text.find(head)
            while start >= 0:
                end = start + len(head) + _common(text, start + len(head), spelling[len(head) :])
                yield _Span(start, 0, end, label)
                start = text.find(head, end)


def _pattern_spans(text: str) -> Iterator[_Span]:
    for head, least in _PREFIXED.items():
        if head in text:
            for match in _issued(head, least).finditer(text):
                yield _Span(match.start(), 1, match.end(), f"[{Secret(match.group()).label}]")
    small = text.lower()
    for words, pattern in _NAMED:
        if any(word in small for word in words):
            for match in _compiled(pattern).finditer(text):
                group = match.lastindex or 0
                yield _Span(match.start(group), 2, match.end(group), "[redacted]")


def _issued(head: str, least: int) -> re.Pattern[str]:
    escaped = re.escape(head)
    return _compiled(rf"{escaped}{_BOUNDARY.format(escaped)}[A-Za-z0-9_.\-]{{{least},}}+")


def _common(text: str, at: int, rest: str) -> int:
    """How many characters of ``rest`` stand at ``at``."""
    if text.startswith(rest, at):
        return len(rest)
    return next(index for index, char in enumerate(rest) if text[at + index : at + index + 1] != char)


def _spellings(value: str) -> dict[str, None]:
    """Every way the value may be written, without doubles, longest beginnings first by construction."""
    raw = value.encode("utf-8", "surrogatepass")
    percent = quote(value, safe="", errors="surrogatepass")
    spellings = [
        value,
        percent,
        percent.lower() if percent != value else value,
        quote_plus(value, errors="surrogatepass"),
        json.dumps(value)[1:-1],
        json.dumps(json.dumps(value)[1:-1])[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        raw.hex(),
        raw.hex().upper(),
        *(_aligned(raw, shift, altchars) for shift in range(3) for altchars in (b"+/", b"-_")),
    ]
    return dict.fromkeys(spelling for spelling in spellings if len(spelling) >= MIN_KNOWN)


def _aligned(raw: bytes, shift: int, altchars: bytes) -> str:
    """The part of the base64 that does not depend on what stands before or after the value."""
    encoded = base64.b64encode(b"\0" * shift + raw, altchars).decode().rstrip("=")
    skip = (0, 2, 3)[shift]
    tail = (len(raw) + shift) % 3
    return encoded[skip : len(encoded) - (1 if tail else 0)]
