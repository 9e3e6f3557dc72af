"""Headers of the proxy, as pure functions: what goes to a backend, what comes back, what every answer carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# The reference's four. `Security Headers` there is plain HTTP as well: HSTS is ignored by browsers without TLS (RFC
# 6797 §8.1).
SECURITY: Mapping[str, str] = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "X-XSS-Protection": "1; mode=block",
    "Strict-Transport-Security": "max-age=31536000",
}
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
# Never taken over from a visitor: credentials of the hub, and what we say ourselves.
OURS = frozenset({
    "authorization", "cookie", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-prefix", "x-forwarded-context", "x-forwarded-server", "x-proxycontextpath", "x-real-ip", "x-scheme",
    "x-jupyterhub-user", "x-jupyterhub-server", "x-xsrftoken", "x-csrftoken", "x-calliope-write-token",
})  # fmt: skip
NEVER_BACK = frozenset({"service-worker-allowed", "x-jupyterhub-user", "x-jupyterhub-server", "alt-svc"})
HUB_COOKIES = ("jupyterhub-", "__Host-jupyterhub-", "__Secure-jupyterhub-", "username-")
Pairs = list[tuple[str, str]]


def to_backend(received: Iterable[tuple[str, str]], prefix: str, *, seen_as: Mapping[str, str]) -> Pairs:
    """A visitor's headers for the backend; ``seen_as`` holds host, proto and for (the visitor's address)."""
    received = list(received)
    drop = HOP_BY_HOP | OURS | named_by_connection(received)
    kept = [(name, value) for name, value in received if name.lower() not in drop]
    cookies = "; ".join(filter(None, (own_cookies(v) for name, v in received if name.lower() == "cookie")))
    return [
        *kept,
        *([("Cookie", cookies)] if cookies else []),
        ("X-Forwarded-Prefix", prefix.rstrip("/")),
        ("X-Forwarded-Host", seen_as["host"]),
        ("X-Forwarded-Proto", seen_as["proto"]),
        ("X-Forwarded-For", seen_as["for"]),
    ]


def from_backend(received: Iterable[tuple[str, str]], prefix: str, origins: Iterable[str]) -> Pairs:
    """A backend's headers for the visitor: redirects to the backend's own address stay below ``prefix``."""
    received = list(received)
    drop = HOP_BY_HOP | NEVER_BACK | named_by_connection(received)
    origins = tuple(origins)
    return [
        (name, location(value, prefix, origins) if name.lower() == "location" else value)
        for name, value in received
        if name.lower() not in drop
    ]


def location(value: str, prefix: str, origins: Iterable[str]) -> str:
    """``http://127.0.0.1:8071/x`` and ``/x`` → ``<prefix>x``; relative, foreign and ``//host`` ones stay."""
    for origin in origins:
        if value.startswith(origin) and value[len(origin) : len(origin) + 1] in ("", "/", "?"):
            value = value[len(origin) :] or "/"
            break
    if not value.startswith("/") or value.startswith(("//", prefix)):
        return value
    return prefix + value[1:]


def own_cookies(header: str) -> str:
    """A Cookie header without the hub's and Jupyter's: the IDE's own remain."""
    parts = (part.strip() for part in header.split(";"))
    return "; ".join(part for part in parts if part and not _is_hubs(part.partition("=")[0].strip()))


def named_by_connection(received: Iterable[tuple[str, str]]) -> frozenset[str]:
    """What ``Connection`` lists is hop-by-hop too (RFC 9110 §7.6.1)."""
    values = (value for name, value in received if name.lower() == "connection")
    return frozenset(word.strip().lower() for value in values for word in value.split(","))


def framing(policy: str | None, ancestors: str) -> str:
    """A Content-Security-Policy that says who may frame: the given one, or with ours appended."""
    if not policy:
        return f"frame-ancestors {ancestors}"
    if "frame-ancestors" in policy.lower():
        return policy
    return f"{policy.rstrip().rstrip(';')}; frame-ancestors {ancestors}"


def _is_hubs(name: str) -> bool:
    return name.startswith(HUB_COOKIES) or name in ("_xsrf", "__Host-_xsrf")
