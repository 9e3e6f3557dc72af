"""``GET /``: the settings page, from files of this package; no build step, nothing from elsewhere.

Decisions
1. The launcher's proxy puts its write token into the request for the page, and only into that of a top document
   (Sec-Fetch-Dest); the page shows it with every change, the proxy checks it. So a page of another origin, a frame or a script that
   fetches the page's text cannot change anything. Whoever shows the manage token itself needs no such proof.
2. ``Cross-Origin-Opener-Policy: same-origin`` cuts the tie to whoever opened the page: other pages of the person's own server (a
   dev server below /proxy/) share its origin and could else reach into its window.
3. The policy names 'self' alone: no inline script, no inline style, no frame, and no address but this server's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path

from starlette.responses import Response

from calliope_agent.api.exchange import Exchange
from calliope_agent.errors import NotFound

FOLDER = Path(__file__).parent / "page"
WRITE_TOKEN = "x-calliope-write-token"  # noqa: S105  a header's name
SLOT = "{{write-token}}"
HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_FILE = re.compile(r"[a-z]{1,32}\.(?:js|css|svg)")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")


async def shown(exchange: Exchange) -> None:
    """The page, with the write token that came with the request."""
    given = exchange.headers.get(WRITE_TOKEN, "")
    token = given if _TOKEN.fullmatch(given) else ""
    html = _text("index.html").replace(SLOT, escape(token, quote=True))
    await _send(exchange, html, "text/html; charset=utf-8")


async def part(exchange: Exchange) -> None:
    """A script or a style of the page. Raises `NotFound`."""
    name = exchange.path["file"]
    if not _FILE.fullmatch(name) or not (FOLDER / name).is_file():
        raise NotFound("The settings page has no such part.")
    await _send(exchange, _text(name), _TYPES[Path(name).suffix])


async def _send(exchange: Exchange, text: str, media: str) -> None:
    await exchange.answer(Response(text, 200, {**HEADERS, "x-request-id": exchange.id, "content-type": media}))


@cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
