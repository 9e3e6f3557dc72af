"""Everything at once, by chance: every end is an answer or an error of ours, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from calliope_agent import errors
from calliope_agent.upstream.client import Client
from tests.client.certificates import Authority
from tests.client.rig import Peer, Serve, Server, ask, descriptors, opened, until
from tests.client.test_flow import reset
from tests.client.test_framing import BROKEN, ENDED_BY_CLOSING, GOOD
from tests.client.test_proxies import HOST, Proxy

LAST = [said for said, _ in BROKEN.values()] + list(ENDED_BY_CLOSING.values())
SAID = [said for said, _ in GOOD.values()] * 3 + LAST
BODIES = (None, b"{}", b"x" * 400_000, b"x" * 2_000_000)
REQUESTS = 400


def moody(chance: random.Random) -> Serve:
    """Answers as it likes, breaks off where it likes."""

    async def serve(peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while (await peer.request())[0] and chance.random() > 0.05:
                said = chance.choice(SAID)
                cut = chance.randrange(len(said) + 1)
                await peer.say(said[:cut])
                await asyncio.sleep(chance.choice((0, 0, 0.005)))
                mood = chance.choice(("well", "well", "well", "well", "bored", "cross"))
                if mood == "cross":
                    reset(peer)
                if mood != "well":
                    break
                await peer.say(said[cut:])
                if said in LAST:
                    break

    return serve


async def one(client: Client, url: str, chance: random.Random) -> str:
    """How one request ends, of which some are left."""
    task = asyncio.create_task(ask(client, url, body=chance.choice(BODIES)))
    if leaves := chance.random() < 0.3:
        await asyncio.sleep(chance.random() * 0.03)
        task.cancel()
    try:
        await task
    except errors.UpstreamError as exc:
        return type(exc).__name__
    except asyncio.CancelledError:
        return "left" if leaves else "lost"
    return "answered"


@pytest.mark.parametrize("seed", [1, 2])
async def test_chance_finds_nothing(authority: Authority, seed: int) -> None:
    chance = random.Random(seed)
    ends: Counter[str] = Counter()
    async with (
        Server(moody(chance), tls=authority.server("127.0.0.1", HOST)) as secure,
        Server(moody(chance)) as plain,
        Server(Proxy(secure.port), tls=authority.server()) as proxy,
        opened({"SSL_CERT_FILE": str(authority.file), "HTTPS_PROXY": proxy.url}) as client,
    ):
        urls = (plain.url, secure.url, f"https://{HOST}/")

        async def some(number: int) -> None:
            for _ in range(number):
                ends[await one(client, chance.choice(urls), chance)] += 1

        await some(10)
        await client.close()
        before = descriptors()
        await asyncio.gather(*(some(REQUESTS // 10) for _ in range(10)))
        await client.close()
        await until(lambda: descriptors() <= before)
        await asyncio.gather(*plain.tasks, *secure.tasks, *proxy.tasks, return_exceptions=True)
    assert set(ends) <= {"answered", "left", "Unreachable", "Truncated", "Malformed"}
    assert ends["answered"] > REQUESTS // 5
