"""What the gate refuses, as a pure rule; the same over sockets is in test_proxy.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from calliope_agent.launcher.gate import Rules, proxied_port

BASE = "/user/alice/srv/"
RULES = Rules(BASE, 8071, lambda: frozenset({8070, 8071, 8072}))
HOST = {"Host": "hub.example.com"}


def status(target: str, method: str = "GET", **headers: str) -> int:
    given = HTTPHeaders({**HOST, **{name.replace("_", "-"): value for name, value in headers.items()}})
    refusal = RULES.check(method, target, given)
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/user/alice/srv/",
        f"{BASE}../bob/",
        f"{BASE}%2e%2E/bob/",
        f"{BASE}a/..%2fb",
        f"{BASE}a\\..\\b",
        "/user/al%69ce/srv/api/status",
        f"{BASE}a\x00b",
        "*",
        "//evil.example/?token=x",
        "/\\evil.example",
        f"{BASE}ide/\\evil.example",
        f"{BASE}proxy/{8072 + 65536}/",
        f"{BASE}proxy/localhost:{8072 + 65536}/",
        f"{BASE}proxy/absolute/{8072 + 65536}/",
        f"{BASE}proxy/{'9' * 5000}/",
    ],
)
def test_malformed_targets(target: str) -> None:
    assert status(target) == 400


@pytest.mark.parametrize("target", [f"{BASE}a%2Fb?x=../y", f"{BASE}a..b", "/health", f"{BASE}...", f"{BASE}a%20b"])
def test_targets_that_only_look_odd(target: str) -> None:
    assert status(target) == 200


def test_two_lengths_are_refused() -> None:
    assert status(BASE, "POST", Content_Length="3", Transfer_Encoding="chunked") == 400
    assert status(BASE, "POST", Content_Length="3, 3") == 400


@pytest.mark.parametrize(
    "spelling",
    [
        "proxy/8072/", "proxy/08071/", "proxy/absolute/8071/", "proxy/localhost:8071/", "proxy/127.0.0.1:8072/x",
        "proxy/absolute/127.0.0.1:08071/", "proxy/127.0.0.1%3A8072/", "proxy/%38071/", "proxy/8070/",
        "proxy/[::1]:8072/",
        "proxy//8072/", "proxy/٨٠٧٢/", "proxy/LOCALHOST:8072", "proxy/0:8072/",
    ],
)  # fmt: skip
def test_private_ports_in_every_spelling(spelling: str) -> None:
    assert status(BASE + spelling) == 403


def test_other_ports_and_the_ide_s_plain_one_pass() -> None:
    assert status(f"{BASE}proxy/3000/x") == 200
    assert status(f"{BASE}proxy/8071/static/x") == 200
    assert status(f"{BASE}proxy/8071") == 200


@given(st.integers(0, 65535), st.sampled_from(["", "localhost:", "127.0.0.1:"]), st.sampled_from(["", "absolute/"]))
def test_the_port_is_found_wherever_it_stands(port: int, host: str, absolute: str) -> None:
    assert proxied_port(f"{BASE}proxy/{absolute}{host}{port}/x", BASE) == port


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"Sec_Fetch_Site": "cross-site"}),
        ("POST", {"Sec_Fetch_Site": "same-site"}),
        ("POST", {"Origin": "https://evil.example"}),
        ("POST", {"Origin": "null"}),
        ("POST", {"Origin": "https://hub.example.com", "Referer": "https://hub.example.com/user/bob/"}),
        ("GET", {"Upgrade": "websocket", "Origin": "https://evil.example"}),
        ("GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}),
        ("GET", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}),
        ("GET", {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}),
        (
            "GET",
            {
                "Sec_Fetch_Site": "same-origin",
                "Sec_Fetch_Mode": "cors",
                "Referer": "https://hub.example.com/user/bob/x",
            },
        ),
        ("GET", {"Service_Worker": "script"}),
    ],
)
def test_other_pages_are_refused(method: str, headers: dict[str, str]) -> None:
    assert status(BASE, method, **headers) == 403


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("POST", {}),
        ("POST", {"Authorization": "token x", "Origin": "https://evil.example"}),
        ("POST", {"Origin": "https://hub.example.com", "Referer": f"https://hub.example.com{BASE}"}),
        ("GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}),
        ("GET", {"Upgrade": "websocket", "Origin": "https://hub.example.com"}),
        (
            "GET",
            {
                "Sec_Fetch_Site": "same-origin",
                "Sec_Fetch_Mode": "navigate",
                "Sec_Fetch_Dest": "iframe",
                "Referer": f"https://hub.example.com{BASE}",
            },
        ),
    ],
)
def test_own_pages_and_programs_pass(method: str, headers: dict[str, str]) -> None:
    assert status(BASE, method, **headers) == 200


def test_only_vs_code_s_webview_worker_may_be_one() -> None:
    own = f"{BASE}stable-1/static/out/vs/workbench/contrib/webview/browser/pre/service-worker.js?v=4"
    assert status(own, Service_Worker="script") == 200
    assert status(f"{BASE}_static/out/browser/serviceWorker.js", Service_Worker="script") == 403


def test_unknown_methods() -> None:
    assert status(BASE, "PROPFIND") == 405
