"""The reference's endpoints, the redirects of old addresses, and /calliope/, on a stand-alone stack."""

from __future__ import annotations

from datetime import datetime

import pytest

from calliope_agent.launcher.headers import SECURITY
from tests.launcher.stack import TOKEN, Stack


def test_health_is_the_reference_s_for_anybody(alone: Stack) -> None:
    for path in ("/health", f"{alone.prefix}health", f"{alone.prefix}api/health"):
        answer = alone.get(path, {})
        assert answer.status == 200
        assert set(answer.json()) == {"status", "timestamp"}
        assert answer.json()["status"] == "healthy"
        datetime.strptime(answer.json()["timestamp"], "%Y-%m-%dT%H:%M:%S%z")
        assert answer.all("Set-Cookie") == []
        assert alone.ask("HEAD", path, {}).status == 200


def test_status_is_jupyter_s_model_and_the_reference_s(alone: Stack) -> None:
    told = alone.get("api/status").json()
    assert {"started", "last_activity", "kernels", "connections"} <= set(told)
    assert told["state"] == "running"
    assert told["services"]["WAIIDE"]["status"] == "running"
    assert told["services"]["WAIIDE"]["port"] == alone.ide_port
    assert told["services"]["jupyter"] == {"status": "running", "port": alone.port}
    assert told["environment"] == {"user": "alice", "server_name": "alice-waiide-abc123"}


def test_status_and_the_rest_want_a_login(alone: Stack) -> None:
    for path in ("api/status", "api/services", "api/user"):
        assert alone.get(path, {}).status == 403
    assert alone.ask("POST", "api/restart", {}, b"").status == 403


def test_api_tells_anybody_the_version_and_the_visitor_the_rest(alone: Stack) -> None:
    assert set(alone.get("api", {}).json()) == {"version"}
    told = alone.get("api").json()
    assert told["mode"] == "standalone"
    assert told["service_prefix"] == alone.prefix
    assert told["server"] == "alice-waiide-abc123"
    assert "/api/status" in told["endpoints"]
    services = alone.get("api/services").json()
    assert services["total_services"] == len(services["services"]) == 2
    user = alone.get("api/user").json()
    assert (user["name"], user["admin"], user["owner"]) == ("alice", True, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ide?folder=/w", "?folder=/w"),
        ("ide/", ""),
        ("WAIIDE/", ""),
        ("WAIIDE/a%2Fb/c?x=1&y=%20", "a%2Fb/c?x=1&y=%20"),
        ("vscode/", ""),
        ("waiide/static/x", "static/x"),
        ("calliope?x=1", "calliope/?x=1"),
    ],
)
def test_old_addresses_lead_to_the_new_with_their_query(alone: Stack, old: str, new: str) -> None:
    answer = alone.get(old, {})
    assert answer.status == 302
    assert answer.get("Location") == alone.prefix + new


def test_the_prefix_and_the_ide_s_path_get_their_slash(alone: Stack) -> None:
    assert alone.get(alone.prefix.rstrip("/") + "?a=1", {}).get("Location") == f"{alone.prefix}?a=1"
    ide = f"{alone.prefix}proxy/{alone.ide_port}"
    assert alone.get(f"{ide}?folder=%2Fw", {}).get("Location") == f"{ide}/?folder=%2Fw"


def test_the_old_port_leads_to_the_ide_while_nobody_uses_it(alone: Stack) -> None:
    assert alone.get("proxy/8081/a%2Fb?x=1", {}).get("Location") == f"{alone.prefix}a%2Fb?x=1"


def test_oauth_goes_to_the_hub(alone: Stack) -> None:
    answer = alone.get("hub/api/oauth2/authorize?client_id=a%2Fb", {})
    assert answer.get("Location") == "/hub/api/oauth2/authorize?client_id=a%2Fb"


@pytest.mark.parametrize("path", ["", "api/status", "nothing/here", "login", "api/nothing", "files/none", "proxy/1/"])
def test_every_kind_of_answer_has_the_security_headers(alone: Stack, path: str) -> None:
    for headers in ({}, {"Authorization": f"token {TOKEN}"}):
        answer = alone.get(path, headers)
        for name, value in SECURITY.items():
            assert answer.all(name) == [value], (path, answer.status)
        assert answer.get("Content-Security-Policy")


def test_jupyter_s_own_paths_stay_its_own(alone: Stack) -> None:
    assert alone.get("api/contents").json()["type"] == "directory"
    assert "kernelspecs" in alone.get("api/kernelspecs").json()


def test_writes_keep_jupyter_s_xsrf_check(alone: Stack) -> None:
    cookie = "; ".join(value.partition(";")[0] for value in alone.get(f"?token={TOKEN}", {}).all("Set-Cookie"))
    assert alone.ask("POST", "api/restart", {"Cookie": cookie}, b"").status == 403


def test_without_an_agent_its_door_says_so(alone: Stack) -> None:
    assert alone.get("calliope/").status == 404
