"""The product runs on uvloop and its tests on asyncio's own loop: what stands between the two and a socket is tried on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from calliope_agent.upstream.client import Client
from tests.client.certificates import Authority
from tests.client.rig import opened


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with opened() as found:
        yield found


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def trusting(authority: Authority) -> AsyncIterator[Client]:
    """A client that trusts `authority`."""
    async with opened({"SSL_CERT_FILE": str(authority.file)}) as found:
        yield found
