"""What a request costs through the agent, beside the provider called directly, the bare prototype and nginx.

Every figure of a row is taken in rounds, one of each peer after the other, so that a noisy neighbour meets all of them; the median
over all rounds counts. Times are seconds unless the name says otherwise.

Inside a round a peer is asked again and again. Asked in turns, request by request, every peer has been off the core when its turn
comes: that costs each of them a multiple, in proportion to its size, and is told in a row of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import peers
from tests.bench.awake import awake
from tests.bench.lean_upstream import CHUNKS
from tests.bench.load import Client, Requests, Timing
from tests.bench.peers import Peer

STREAMS = 8
BEFORE_MEMORY = 40
Sample = Callable[["Lane"], Awaitable[float]]


@dataclass(slots=True)
class Effort:
    """How often each thing is done."""

    starts: int = 7
    rounds: int = 5
    plain: int = 200
    bursts: int = 20
    spaced: int = 2
    crowds: int = 10
    beside: int = 150

    @classmethod
    def quick(cls) -> Effort:
        return cls(starts=2, rounds=2, plain=60, bursts=5, spaced=1, crowds=3, beside=40)


@dataclass(slots=True)
class Lane:
    """A peer with connections to it."""

    peer: Peer
    requests: Requests
    clients: list[Client] = field(default_factory=list)

    @classmethod
    async def open(cls, peer: Peer) -> Lane:
        clients = [await Client.open(peer.url) for _ in range(STREAMS + 1)]
        return cls(peer, Requests(peer.url, peer.token), clients)

    async def one(self, model: str) -> Timing:
        await self._reopen()
        return await self.clients[0].ask(self.requests.chat(model, stream=model != "gpt-plain"))

    async def many(self, model: str, count: int) -> Sequence[Timing]:
        await self._reopen()
        asked = [client.ask(self.requests.chat(model, stream=True)) for client in self.clients[-count:]]
        return await asyncio.gather(*asked)

    async def _reopen(self) -> None:
        """Servers close connections that say nothing for a while; that is no part of what is measured."""
        for index, client in enumerate(self.clients):
            if client.closed:
                self.clients[index] = await Client.open(self.peer.url)

    def close(self) -> None:
        for client in self.clients:
            client.close()


@dataclass(slots=True)
class Figures:
    """Row → peer → value: latencies in ms, the cost of chunks in µs, memory in MiB, starts in seconds."""

    ready_s: dict[str, float] = field(default_factory=dict)
    idle_mib: dict[str, float] = field(default_factory=dict)
    after_mib: dict[str, float] = field(default_factory=dict)
    plain_p50_ms: dict[str, float] = field(default_factory=dict)
    plain_p99_ms: dict[str, float] = field(default_factory=dict)
    cold_p50_ms: dict[str, float] = field(default_factory=dict)
    burst_chunk_us: dict[str, float] = field(default_factory=dict)
    cpu_chunk_us: dict[str, float] = field(default_factory=dict)
    cpu_chunk_8_us: dict[str, float] = field(default_factory=dict)
    ttfb_1_ms: dict[str, float] = field(default_factory=dict)
    ttfb_8_ms: dict[str, float] = field(default_factory=dict)
    beside_p99_ms: dict[str, float] = field(default_factory=dict)
    alone_p99_ms: dict[str, float] = field(default_factory=dict)


def measure(effort: Effort, say: Callable[[str], None]) -> Figures:
    """The whole bench: starts first, then everything against the same running processes."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="calliope-bench-") as scratch, ExitStack() as stack:
        stack.enter_context(awake())
        upstream = stack.enter_context(peers.provider())
        say("starts")
        figures.ready_s = _starts(effort, upstream.url, Path(scratch))
        running = [
            upstream,
            stack.enter_context(peers.prototype(upstream.url)),
            stack.enter_context(peers.agent(upstream.url, Path(scratch, "agent"))),
        ]
        if peers.has_nginx():
            running.append(stack.enter_context(peers.nginx(upstream.url, Path(scratch))))
        else:
            say("nginx is not installed, so its column is left out (Debian: apt-get install nginx-light)")
        asyncio.run(_loaded(effort, running, figures, say))
    return figures


def _starts(effort: Effort, upstream: str, scratch: Path) -> dict[str, float]:
    taken: dict[str, list[float]] = {"prototype": [], "agent": []}
    for number in range(effort.starts):
        with peers.prototype(upstream) as peer:
            taken[peer.name].append(peer.ready_s)
        with peers.agent(upstream, scratch / f"start-{number}") as peer:
            taken[peer.name].append(peer.ready_s)
    return {name: statistics.median(values) for name, values in taken.items()}


async def _loaded(effort: Effort, running: list[Peer], figures: Figures, say: Callable[[str], None]) -> None:
    # A settled idle process: the catalog is loaded behind the first answer.
    await asyncio.sleep(1)
    figures.idle_mib = {peer.name: peer.rss_mib() for peer in running if peer.name != "direct"}
    lanes = [await Lane.open(peer) for peer in running]
    try:
        for lane in lanes:
            for _ in range(BEFORE_MEMORY // STREAMS):
                await lane.many("gpt-burst", STREAMS)
        figures.after_mib = {peer.name: peer.rss_mib() for peer in running if peer.name != "direct"}
        await _latencies(effort, lanes, figures, say)
        await _streams(effort, lanes, figures, say)
    finally:
        for lane in lanes:
            lane.close()


async def _latencies(effort: Effort, lanes: list[Lane], figures: Figures, say: Callable[[str], None]) -> None:
    say("plain requests")
    waits = await _in_rounds(lanes, effort.rounds, effort.plain, _plain)
    figures.plain_p50_ms = {name: statistics.median(values) * 1e3 for name, values in waits.items()}
    figures.plain_p99_ms = {name: _p99(values) * 1e3 for name, values in waits.items()}
    waits = await _in_rounds(lanes, effort.rounds * effort.plain // 2, 1, _plain)
    figures.cold_p50_ms = {name: statistics.median(values) * 1e3 for name, values in waits.items()}
    say("bursts")
    waits = await _in_rounds(lanes, effort.rounds, effort.bursts, _burst)
    figures.burst_chunk_us = {name: statistics.median(values) / CHUNKS * 1e6 for name, values in waits.items()}
    waits = await _in_rounds(lanes, effort.rounds, effort.bursts, _first_byte)
    figures.ttfb_1_ms = {name: statistics.median(values) * 1e3 for name, values in waits.items()}
    waits = await _in_rounds(lanes, effort.rounds, effort.crowds, _first_byte_of_8)
    figures.ttfb_8_ms = {name: statistics.median(values) * 1e3 for name, values in waits.items()}


async def _streams(effort: Effort, lanes: list[Lane], figures: Figures, say: Callable[[str], None]) -> None:
    servers = [lane for lane in lanes if lane.peer.name != "direct"]
    say("spaced chunks, one stream")
    costs = await _in_rounds(servers, effort.rounds, effort.spaced, _cpu_of(1))
    figures.cpu_chunk_us = {name: statistics.median(values) * 1e6 for name, values in costs.items()}
    say("spaced chunks, eight streams")
    costs = await _in_rounds(servers, effort.rounds, effort.spaced, _cpu_of(STREAMS))
    figures.cpu_chunk_8_us = {name: statistics.median(values) * 1e6 for name, values in costs.items()}
    say("one stream alone, and beside eight others")
    firsts = await _in_rounds(lanes, 5, effort.beside // 5, _first_byte)
    figures.alone_p99_ms = {name: _p99(values) * 1e3 for name, values in firsts.items()}
    crowded = {lane.peer.name: await _beside(lane, effort.beside) for lane in lanes}
    figures.beside_p99_ms = {name: _p99(values) * 1e3 for name, values in crowded.items()}


async def _in_rounds(lanes: list[Lane], rounds: int, each: int, sample: Sample) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {lane.peer.name: [] for lane in lanes}
    for _ in range(rounds):
        for lane in lanes:
            taken[lane.peer.name] += [await sample(lane) for _ in range(each)]
    return taken


async def _plain(lane: Lane) -> float:
    return (await lane.one("gpt-plain")).whole


async def _burst(lane: Lane) -> float:
    return (await lane.one("gpt-burst")).whole


async def _first_byte(lane: Lane) -> float:
    return (await lane.one("gpt-burst")).first


async def _first_byte_of_8(lane: Lane) -> float:
    return statistics.median(one.first for one in await lane.many("gpt-burst", STREAMS))


def _cpu_of(streams: int) -> Sample:
    async def cpu(lane: Lane) -> float:
        before = lane.peer.cpu_s()
        await lane.many("gpt-spaced", streams)
        return (lane.peer.cpu_s() - before) / (streams * CHUNKS)

    return cpu


async def _beside(lane: Lane, count: int) -> list[float]:
    """First bytes of one stream after the other while eight spaced ones run all the time."""
    await lane.one("gpt-burst")

    async def on_and_on(client: Client) -> None:
        while True:
            await client.ask(lane.requests.chat("gpt-spaced", stream=True))

    crowded = lane.clients[1:]
    crowd = [asyncio.create_task(on_and_on(client)) for client in crowded]
    try:
        taken = []
        for _ in range(count):
            taken.append((await lane.clients[0].ask(lane.requests.chat("gpt-burst", stream=True))).first)
            await asyncio.sleep(0.007)
    finally:
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    # Streams that were left are still being answered; connections with half an answer are of no use.
    for client in crowded:
        client.close()
    return taken


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]
