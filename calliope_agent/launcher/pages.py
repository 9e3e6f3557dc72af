"""The few pages of our own: waiting, failed, refused. Plain HTML: no script, no picture, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color:#1d1d1f;"
    "background:#fff}"
    "h1{font-size:1.4rem}table{border-collapse:collapse}th,td{text-align:left;"
    "padding:.3rem 1rem .3rem 0;vertical-align:top}"
    "pre{background:#f4f4f5;padding:1rem;overflow:auto;font-size:.85rem}"
    "@media(prefers-color-scheme:dark){body{color:#e8e8ea;background:#18181b}pre{background:#27272a}a{color:#8ab4ff}}"
)
# By the launcher's word for the IDE: the title, and whether the page looks again by itself.
AWAY = {
    "starting": ("The IDE is starting", True),
    "restarting": ("The IDE is starting again", True),
    "running": ("The IDE does not answer yet", True),
}
NAMES = {"ide": "IDE", "agent": "AI agent", "jupyter": "Jupyter Server"}


def page(title: str, body: str, *, refresh_s: int = 0) -> str:
    """``title`` is text, ``body`` is HTML."""
    refresh = f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )


def waiting(reason: str) -> str:
    """Before Jupyter answers."""
    return page(
        "WAIIDE is starting",
        f"<p role=status>{escape(reason)}</p><p>This page looks again every 2 seconds.</p>",
        refresh_s=2,
    )


def message(title: str, text: str) -> str:
    return page(title, f"<p>{escape(text)}</p>")


def ide_away(children: Mapping[str, Mapping[str, Any]], cause: str, tail: Iterable[str], status_url: str) -> str:
    """The landing page while the IDE does not answer: ``cause`` says how, ``tail`` is for the owner and may be empty."""
    ide = children.get("ide", {})
    status = str(ide.get("status", "not part of this server"))
    lines = "\n".join(tail)
    title, looks_again = AWAY.get(status, ("The IDE is not running", False))
    rows = "".join(
        f"<tr><th scope=row>{escape(NAMES.get(name, name))}</th><td>{escape(str(child.get('status')))}</td>"
        f"<td>{escape(str(child.get('reason') or ''))}</td></tr>"
        for name, child in children.items()
    )
    log = f"<h2>Last lines of its log</h2><pre>{escape(lines)}</pre>" if lines else ""
    reason = f"<p>{escape(str(ide.get('reason')))}</p>" if ide.get("reason") else ""
    return page(
        title,
        f"<p role=status>{escape(cause)}</p>{reason}<table><caption>Parts of this server</caption>"
        f"<tr><th scope=col>Part</th><th scope=col>State</th><th scope=col>Why</th></tr>{rows}</table>{log}"
        f'<p><a href="{escape(status_url)}">Status as JSON</a></p>',
        refresh_s=2 if looks_again else 0,
    )
