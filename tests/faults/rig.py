"""A real agent between a caller and two scripted providers, for one way; every cell of the matrix is played here.

The script is found by the model's name, so that cells need no order. Waits between attempts are noted instead of waited.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from calliope_agent.completion.line import Clockwork
from tests.agents import ServedAgent
from tests.faults.outcomes import RESCUED, Outcome
from tests.faults.reading import Reading, read
from tests.faults.rows import MANY, Case, Row, rows_of
from tests.faults.ways import KEYS, LIMITS, WAYS, Way
from tests.upstream import Answer, Request, ScriptedProvider, status, text
from tests.upstream_answers import Failure, Raw, Text

CALLER_HEADERS = {"x-internal-token": "canary-of-the-caller", "cookie": "session=canary-of-the-caller"}
PROVIDER_HEADERS = {
    "Set-Cookie": "session=canary-of-the-provider",
    "X-Internal-Token": "sk-canary-in-a-header-2b4d6f8a",
    "x-request-id": "req-of-the-provider-1",
}
MODES = {True: "stream", False: "plain"}


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Cell:
    """One square of the matrix."""

    row: Row
    way: Way
    stream: bool
    fallback: bool

    @property
    def case(self) -> Case:
        return self.row.stream if self.stream else self.row.plain

    @property
    def model(self) -> str:
        return f"{slug(self.row.name)}-{MODES[self.stream]}-{'fallback' if self.fallback else 'alone'}"

    @property
    def target(self) -> str:
        return f"{self.case.provider}/{self.model}"

    @property
    def expected(self) -> Outcome:
        return self.case.expected_on(self.way).outcome(fallback=self.fallback)


def words_before_fault(answer: Answer) -> int:
    """How many pieces come before the answer breaks; 0 where it does not break after a piece."""
    for words, piece in enumerate(answer.pieces):
        if isinstance(piece, Raw | Failure):
            return words
    after = answer.ending.after if answer.ending else None
    if after is None and "x" * MANY in str(answer.pieces[0:1]):
        return 1
    return after or 0


def last_word(answer: Answer) -> bytes:
    """The last text before the fault, as it stands in the caller's JSON."""
    texts = [piece.text for piece in answer.pieces if isinstance(piece, Text)][: words_before_fault(answer)]
    return texts[-1][-2:].encode() + b'"' if texts else b""


def _is_for(request: Request, cell: Cell) -> bool:
    return bool(request.body) and json.loads(request.body)["model"] == cell.model


def cells(way: Way) -> list[Cell]:
    return [
        Cell(row, way, stream, fallback)
        for row in rows_of(way)
        for stream in (True, False)
        for fallback in (False, True)
    ]


@dataclass
class Played:
    """What came of a cell: the caller's reading, the agent's record, the waits, and what the providers were sent."""

    reading: Reading
    outcome: Outcome
    record: dict[str, Any]
    waits: list[float]
    asked: list[Request]


@dataclass
class Rig:
    """``waits`` is what the agent would have slept, in seconds."""

    way: Way
    agent: ServedAgent
    first: ScriptedProvider
    second: ScriptedProvider
    waits: list[float]
    reached: dict[str, asyncio.Event]

    async def play(self, cell: Cell) -> Played:
        """Cells may be played at once, except that ``waits`` are then everybody's."""
        self.waits.clear()
        body = self.way.body(cell.target, stream=cell.stream)
        async with self.agent.http.post(self.way.path, json=body, headers=CALLER_HEADERS) as answer:
            told = await self._read(answer, cell)
            headers, status = answer.headers, answer.status
        reading = read(self.way.client, stream=cell.stream, status=status, headers=headers, raw=told)
        _, record = await self.agent.get(f"/v1/requests/{headers['x-request-id']}")
        asked = [request for request in self.first.requests if _is_for(request, cell)]
        second = [request for request in self.second.requests if _is_for(request, cell)]
        calls = len(asked) + self._strays(), len(second)
        outcome = Outcome(status, reading.said, reading.finish, reading.code, calls, reading.flagged)
        return Played(reading, outcome, record, list(self.waits), [*asked, *second])

    async def warm_up(self) -> None:
        """litellm's import and first use take seconds, which no row should have to wait for."""
        for cell in cells(self.way)[0:3:2]:
            await self.play(cell)
            self.reached[cell.model].clear()
        self.first.requests.clear()
        self.second.requests.clear()

    def _strays(self) -> int:
        """Requests without a model: redirects that were followed. None is expected, so they spoil whatever is played."""
        return sum(not request.body for request in (*self.first.requests, *self.second.requests))

    async def _read(self, answer: aiohttp.ClientResponse, cell: Cell) -> str:
        """The whole text; on the way the provider is let go on when the last word before its fault has arrived."""
        told = b""
        async for chunk in answer.content.iter_any():
            told += chunk
            if (last := last_word(cell.case.answer)) and last in told:
                self.reached[cell.model].set()
        return told.decode()

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@asynccontextmanager
async def rig(way: Way, folder: Path, **more: str) -> AsyncIterator[Rig]:
    """The second provider always answers; the first does what the row says. ``more`` are further settings."""
    operator = folder / "operator"
    operator.mkdir(parents=True)
    scripts = {cell.model: cell for cell in cells(way)}
    reached = {model: asyncio.Event() for model in scripts}

    def respond(request: Request) -> Answer:
        if not request.body:
            return status(404)  # a redirect that was followed: counted, and so found
        cell = scripts[json.loads(request.body)["model"]]
        answer = cell.case.answer.with_headers(PROVIDER_HEADERS)
        words = words_before_fault(answer)
        return answer.hold(reached[cell.model], before=words) if words and cell.stream else answer

    with _refusing() as dead_port:
        async with ScriptedProvider() as first, ScriptedProvider() as second:
            first.respond(respond)
            second.always = text(*RESCUED.partition(" ")).with_headers(PROVIDER_HEADERS)
            addresses = {"second": second.base_url, "dead": f"http://127.0.0.1:{dead_port}/v1"}
            for name in LIMITS:
                file = way.provider_file(name, addresses.get(name, first.base_url))
                (operator / f"{name}.toml").write_text(file)
            async with ServedAgent(folder, _environment(way) | more) as agent:
                made = Rig(way, agent, first, second, [], reached)
                agent.agent.line.clockwork = Clockwork(agent.agent.line.clockwork.now, made.sleep, lambda: 0.5)
                await made.warm_up()
                yield made


def _environment(way: Way) -> dict[str, str]:
    chains = [f"{cell.target}=second/{cell.model}" for cell in cells(way) if cell.fallback]
    return {
        "FIRST_KEY": KEYS["first"],
        "SECOND_KEY": KEYS["second"],
        "CALLIOPE_MODEL_FALLBACKS": ",".join(chains),
        "CALLIOPE_MAX_ANSWER_MB": "1",
        "CALLIOPE_FIRST_BYTE_HOLD_S": "120",
    }


class _refusing:  # noqa: N801  # reads as the phrase it is: with _refusing() as port
    """A port that nobody listens on, kept ours so that nobody else takes it."""

    def __enter__(self) -> int:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def way_named(name: str) -> Way:
    return next(way for way in WAYS if way.slug == name)
