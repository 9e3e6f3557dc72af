"""Logging: one line an event on standard error, scrubbed of secrets, with nothing in it that a terminal would obey.

Decisions
1. Scrubbing stands in the formatter, the last place before the sink: no caller can forget it, tracebacks included.
2. CR, LF, escapes and other control characters of foreign strings are written as ``\\xNN``: a log line is one line.
3. Libraries speak from WARNING on. sse-starlette logs every chunk at DEBUG, which would be the person's code.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
QUIET = (
    "sse_starlette",
    "uvicorn",
    "aiohttp",
    "asyncio",
    "LiteLLM",
    "litellm",
    "httpx",
    "httpcore",
    "openai",
    "keyring",
)


class ScrubbedFormatter(logging.Formatter):
    """``scrub`` is the redaction boundary; the traceback's lines are kept apart by `` | ``."""

    def __init__(self, scrub: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._scrub = scrub

    def format(self, record: logging.LogRecord) -> str:
        return one_line(self._scrub(super().format(record)).replace("\n", " | "))


def one_line(text: str) -> str:
    """The text with every control and direction character written out."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def set_up(level: str, scrub: Callable[[str], str]) -> None:
    """Send this process's logging to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ScrubbedFormatter(scrub))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
