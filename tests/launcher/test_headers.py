"""Headers to and from a backend."""

from __future__ import annotations

import pytest

from calliope_agent.launcher import headers

SEEN = {"host": "hub.example.com", "proto": "https", "for": "192.0.2.1"}


def test_credentials_and_claims_of_the_visitor_s_do_not_pass() -> None:
    received = [
        ("Host", "hub.example.com"),
        ("Authorization", "token abc"),
        ("Cookie", "jupyterhub-session-id=1; ide=2; _xsrf=3; __Host-jupyterhub-user-alice=4; username-x=5"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
        ("X-JupyterHub-User", "root"),
        ("Connection", "keep-alive, X-Listed"),
        ("X-Listed", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Accept", "*/*"),
    ]
    assert headers.to_backend(received, "/user/alice/", seen_as=SEEN) == [
        ("Host", "hub.example.com"),
        ("Accept", "*/*"),
        ("Cookie", "ide=2"),
        ("X-Forwarded-Prefix", "/user/alice"),
        ("X-Forwarded-Host", "hub.example.com"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "192.0.2.1"),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/x?a=1", "/p/x?a=1"),
        ("http://127.0.0.1:8071/x", "/p/x"),
        ("http://127.0.0.1:8071", "/p/"),
        ("http://127.0.0.1:80719/x", "http://127.0.0.1:80719/x"),
        ("/p/x", "/p/x"),
        ("./?folder=/w", "./?folder=/w"),
        ("//evil.example/x", "//evil.example/x"),
        ("https://example.com/", "https://example.com/"),
    ],
)
def test_redirects_stay_below_the_prefix(given: str, expected: str) -> None:
    assert headers.location(given, "/p/", ["http://127.0.0.1:8071"]) == expected


def test_hop_by_hop_and_worker_scope_do_not_come_back() -> None:
    received = [
        ("Connection", "x-hop"),
        ("X-Hop", "1"),
        ("Service-Worker-Allowed", "/"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    ]
    assert headers.from_backend(received, "/", []) == [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, "frame-ancestors 'none'"),
        ("default-src 'self'; ", "default-src 'self'; frame-ancestors 'none'"),
        ("frame-ancestors 'self'", "frame-ancestors 'self'"),
    ],
)
def test_framing_is_said_without_losing_the_backend_s_policy(policy: str | None, expected: str) -> None:
    assert headers.framing(policy, "'none'") == expected
