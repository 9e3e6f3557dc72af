"""The agent's streams through the hub's proxy and the launcher: each event when it is sent, a stop at once, a cut taken up again."""

from __future__ import annotations

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Stack
from tests.passage import ACCEPTED, Passage
from tests.upstream import ScriptedProvider

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def passage(stack: Stack, provider: ScriptedProvider, http: aiohttp.ClientSession) -> Passage:
    owner = {"authorization": f"token {await stack.hub.token_of('alice')}"}
    return Passage(http, f"{stack.root}calliope/", provider, owner)


@pytest.mark.parametrize("accept", ACCEPTED)
async def test_each_event_arrives_before_the_next_is_sent(passage: Passage, accept: str) -> None:
    await passage.brings_each_event_when_it_is_sent(accept)


async def test_a_stop_reaches_the_provider(passage: Passage) -> None:
    await passage.tells_the_provider_of_a_stop()


async def test_a_cut_stream_is_resumed(passage: Passage) -> None:
    await passage.lets_a_cut_stream_be_taken_up_again()
