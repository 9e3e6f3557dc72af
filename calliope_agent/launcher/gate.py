"""The gate: what is refused before any handler sees it, for every path of the server.

Decisions
1. Malformed targets (absolute-form, ``..``, an encoded prefix) and messages with two lengths are 400: two readers of one
   request must not see two requests. So are ``//host`` and a backslash, which a redirect to the same path would turn into
   another host's address.
2. Fetch metadata decides about foreign pages; where a browser sends none, Origin does. A request with an Authorization
   header is a program's: a page cannot add one across origins without our consent.
3. All servers of a path-routed hub share one origin. Their pages are told apart by the Referer's path alone, which a
   hostile page can forge: a hurdle, not a wall. The wall is a subdomain per user.
4. Ports of the IDE, the agent and this server itself are refused in every spelling jupyter-server-proxy reads, whatever
   the host says: both lie behind our own proxy, which strips credentials and checks more.
5. A service worker below the shared origin would sit between the person and every later page: only VS Code's own, which
   serves its webviews, may be fetched as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from tornado import httputil, routing, web

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FRAMES = frozenset({"iframe", "frame", "embed", "object", "fencedframe"})
WORKER = re.compile(r"/static/out/vs/workbench/contrib/webview/browser/pre/service-worker\.js$")
NO_PORT, MOST_DIGITS = 65536, 1000
INBOUND = ("X-JupyterHub-User", "X-JupyterHub-Server")


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """``base`` is the server's prefix, ``ports`` gives the ports that nobody may be proxied to, ``ide_port`` the one
    that is served by ourselves under its plain spelling."""

    base: str
    ide_port: int
    ports: Callable[[], frozenset[int]]
    foreign_origins: bool = False  # the operator allows origins by Jupyter's own settings

    def check(self, method: str, target: str, headers: httputil.HTTPHeaders) -> Refusal | None:
        if method not in METHODS:
            return Refusal(405, "This method is not spoken here.")
        path = target.partition("?")[0]
        if malformed(path, self.base) or _has_two_lengths(headers):
            return Refusal(400, "The request's form is refused.")
        if headers.get("Service-Worker") and not WORKER.search(path):
            return Refusal(403, "Service workers are refused outside the IDE's webviews.")
        port = proxied_port(path, self.base)
        if port == NO_PORT:
            return Refusal(400, "There is no port of such a number.")
        if port in self.ports() and not f"{path}/".startswith(f"{self.base}proxy/{self.ide_port}/"):
            return Refusal(403, f"Port {port} is not reached through /proxy/.")
        reason = crossed(method, headers, self.base, foreign_origins=self.foreign_origins)
        return Refusal(403, reason) if reason else None


class Gate(routing.Matcher):
    """The first rule of the application: matches, and so answers, what is refused."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def match(self, request: httputil.HTTPServerRequest) -> dict[str, Any] | None:
        for name in INBOUND:
            if name in request.headers:
                del request.headers[name]
        refusal = self._rules.check(str(request.method), str(request.uri), request.headers)
        return None if refusal is None else {"target_kwargs": {"refusal": refusal}}


class Every(tuple[str, ...]):
    """Contains every method there is: a refusal answers them all, whatever their name."""

    __slots__ = ()

    def __contains__(self, method: object) -> bool:
        return True


@web.stream_request_body
class Refuse(web.RequestHandler):
    """Reads the body and throws it away, then answers: an answer before would close the hub proxy's connection."""

    SUPPORTED_METHODS = Every()

    def initialize(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def check_xsrf_cookie(self) -> None:
        """Nothing is done here that could be forged."""

    def data_received(self, chunk: bytes) -> None:
        """Thrown away."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name != str(self.request.method).lower():
            raise AttributeError(name)
        return self._answer

    def _answer(self, *_args: str) -> None:
        self.set_status(self._refusal.status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(self._refusal.reason + "\n")

    get = head = post = put = delete = patch = options = _answer


def malformed(path: str, base: str) -> bool:
    """Absolute-form, ``//host``, backslashes, dot segments in any encoding, control characters, or a prefix that only
    decoding makes ours."""
    if (
        not path.startswith("/")
        or path.startswith("//")
        or "\\" in path
        or any(ord(char) <= 32 or ord(char) == 127 for char in path)
    ):
        return True
    decoded = unquote(path)
    if any(segment in (".", "..") for segment in re.split(r"[/\\]", decoded)):
        return True
    return decoded.startswith(base) and not path.startswith(base)


def proxied_port(path: str, base: str) -> int | None:
    """The port that a path below ``proxy/`` names in any spelling: absolute/, host:port, leading zeros, per cent.

    `NO_PORT` for a number that is too large: getaddrinfo(3) would take it modulo 65536, and so reach any port.
    """
    if not path.startswith(f"{base}proxy"):
        return None
    words = [word for word in unquote(path[len(base) :]).split("/")[1:] if word and word != "absolute"]
    port = words[0].rpartition(":")[2] if words else ""
    if not port.isdecimal():
        return None
    return min(int(port), NO_PORT) if len(port) < MOST_DIGITS else NO_PORT


def _has_two_lengths(headers: httputil.HTTPHeaders) -> bool:
    """tornado takes equal lengths in a list, the next reader may not."""
    length = headers.get("Content-Length", "")
    return "," in length or bool(length and "Transfer-Encoding" in headers)


def crossed(method: str, headers: Mapping[str, str], base: str, *, foreign_origins: bool) -> str | None:
    """Why a browser's request from another page is refused, or None."""
    if headers.get("Authorization"):
        return None
    if method not in SAFE or headers.get("Upgrade", "").lower() == "websocket":
        return _crossed_write(headers, base, foreign_origins=foreign_origins)
    return _crossed_read(headers, base)


def _crossed_write(headers: Mapping[str, str], base: str, *, foreign_origins: bool) -> str | None:
    origin = headers.get("Origin")
    if not foreign_origins:
        if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return "Another site's page may not do this."
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("Host", "").lower():
            return "This Origin may not do this."
    if _from_sibling(headers, base):
        return "Another server's page may not do this."
    return None


def _crossed_read(headers: Mapping[str, str], base: str) -> str | None:
    site = headers.get("Sec-Fetch-Site")
    if site in (None, "none"):
        return None
    mode, dest = headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")
    if mode == "navigate" and dest == "document":
        return None
    if site != "same-origin":
        return "Another site's page may not load this."
    if _from_sibling(headers, base) or (dest in FRAMES and not headers.get("Referer")):
        return "Another server's page may not load this."
    return None


def _from_sibling(headers: Mapping[str, str], base: str) -> bool:
    referer = headers.get("Referer")
    if not referer:
        return False
    parts = urlsplit(referer)
    return parts.netloc.lower() == headers.get("Host", "").lower() and not f"{parts.path}/".startswith(base)
