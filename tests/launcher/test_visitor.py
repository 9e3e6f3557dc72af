"""Who a visitor is to this server, and whether they may enter."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tornado import web

from calliope_agent.launcher import visitor
from calliope_agent.launcher.visitor import Admission


def user(**model: Any) -> Any:
    return SimpleNamespace(username=model.get("name", ""), hub_user={"kind": "user", "scopes": [], **model})


@pytest.mark.parametrize(
    ("model", "owner", "admin"),
    [
        ({"name": "alice"}, True, False),
        ({"name": "bob"}, False, False),
        ({"name": "root", "admin": True}, False, True),
        ({"name": "alice", "kind": "service"}, False, False),
        ({"name": "ci", "kind": "service", "admin": True}, False, False),
        ({"name": "ci", "kind": "service", "scopes": ["admin:servers"]}, False, True),
    ],
)
def test_owner_and_administrator_are_the_hub_s_word(model: dict[str, Any], owner: bool, admin: bool) -> None:
    found = visitor.describe(user(**model), "alice", under_hub=True)
    assert (found.owner, found.admin) == (owner, admin)


def test_without_a_hub_the_token_s_holder_is_everything() -> None:
    found = visitor.describe(SimpleNamespace(username="5f3a"), "alice", under_hub=False)
    assert (found.name, found.owner, found.admin) == ("alice", True, True)


@pytest.mark.parametrize(
    ("model", "shared", "expected"),
    [
        ({"name": "alice"}, False, True),
        ({"name": "bob"}, False, False),
        ({"name": "bob"}, True, True),
        ({"name": "root", "admin": True}, False, True),
        ({"name": "ci", "kind": "service"}, False, True),
    ],
)
async def test_shared_users_enter_only_where_the_operator_allows_it(
    model: dict[str, Any], shared: bool, expected: bool
) -> None:
    async def get_user(_handler: Any) -> Any:
        return user(**model)

    provider = SimpleNamespace(get_user=get_user)
    Admission("alice", under_hub=True, allow_shared=shared).install(provider)
    handler = SimpleNamespace(request=SimpleNamespace())
    if expected:
        assert (await provider.get_user(handler)).username == model["name"]
        assert visitor.of(handler.request) is not None
    else:
        with pytest.raises(web.HTTPError) as caught:
            await provider.get_user(handler)
        assert caught.value.status_code == 403
        assert visitor.of(handler.request) is None


async def test_a_hub_that_never_answers_costs_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitor, "HUB_LIMIT_S", 0.05)

    async def get_user(_handler: Any) -> Any:
        await asyncio.Event().wait()

    provider = SimpleNamespace(get_user=get_user)
    Admission("alice", under_hub=True, allow_shared=False).install(provider)
    with pytest.raises(web.HTTPError) as caught:
        await provider.get_user(SimpleNamespace(request=SimpleNamespace()))
    assert caught.value.status_code == 503
