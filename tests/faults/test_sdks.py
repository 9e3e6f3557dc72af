"""What the real SDKs make of the matrix, with their own retries on: the right exception or a whole answer, and no call more.

A truncated text is never taken for a whole one: what an SDK read before it raised is only ever a beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from tests.doors.litellm_rig import QUIET
from tests.faults.outcomes import Outcome
from tests.faults.rig import Cell, Rig, cells, last_word, rig, way_named
from tests.faults.rows import ROWS
from tests.faults.ways import Way

pytestmark = QUIET
HI: Any = [{"role": "user", "content": "hi"}]
SDKS = {"openai": openai, "anthropic": anthropic}
NATIVE = [way_named("openai"), way_named("anthropic")]
CLASSES = {
    400: "BadRequestError",
    404: "NotFoundError",
    429: "RateLimitError",
    402: "APIStatusError",
    424: "APIStatusError",
    502: "InternalServerError",
    503: "InternalServerError",
    504: "InternalServerError",
}
# Anthropic's SDK knows some by names of their own; those it does not are its InternalServerError or plain APIStatusError.
OWN_CLASSES = {503: "ServiceUnavailableError", 504: "DeadlineExceededError"}


# What the clients without asyncio do differently they do with HTTP, not with the rows: one of each kind.
OF_EACH_KIND = {
    "clean end after two words, no finish reason",
    "200 and nothing at all",
    "connection closed after two words",
    "error object after two words",
    "finish reason sent twice",
    "429 with Retry-After: 2",
    "500",
    "400 prompt too long",
}


def _cells(*names: str) -> list[Any]:
    """Those of the rows of these names; of all rows without a name."""
    return [
        pytest.param(way, cell, id=f"{way.slug}-{cell.model}", marks=pytest.mark.xdist_group(f"sdks-{way.slug}"))
        for way in NATIVE
        for cell in cells(way)
        if not cell.fallback and (not names or cell.row.name in names)
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(request.param, tmp_path_factory.mktemp(f"sdk-{request.param.slug}")) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("made", "cell"), _cells(), indirect=["made"], scope="module")
async def test_an_sdk(made: Rig, cell: Cell) -> None:
    await _is_told_right(made, cell, _openai if made.way.client == "chat" else _anthropic)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("made", "cell"), _cells(*OF_EACH_KIND), indirect=["made"], scope="module")
async def test_an_sdk_without_asyncio(made: Rig, cell: Cell) -> None:
    made.reached[cell.model].clear()
    asking = _openai_in_a_thread if made.way.client == "chat" else _anthropic_in_a_thread
    loop = asyncio.get_running_loop()

    async def ask(made: Rig, cell: Cell, said: list[str]) -> None:
        await asyncio.to_thread(asking, made, cell, said, lambda: loop.call_soon_threadsafe(_go_on, made, cell, said))

    await _is_told_right(made, cell, ask)


def test_every_kind_is_a_row() -> None:
    assert {row.name for row in ROWS} >= OF_EACH_KIND


async def _is_told_right(made: Rig, cell: Cell, asking: Callable[[Rig, Cell, list[str]], Awaitable[None]]) -> None:
    expected, before = cell.expected, _calls(made, cell)
    said: list[str] = []
    error: Exception | None = None
    try:
        await asking(made, cell, said)
    except (openai.OpenAIError, anthropic.AnthropicError, httpx.HTTPError) as exc:
        error = exc
    except ValueError:  # Anthropic's SDK itself refuses a tool call whose arguments do not parse
        assert expected.flagged
    assert "".join(said) == _spoken(expected)
    _raises_what_it_should(made.way, expected, error)
    calls = _calls(made, cell) - before
    assert calls == expected.calls[0], "the SDK asked again although our budget was spent"


def _calls(made: Rig, cell: Cell) -> int:
    return sum(request.json["model"] == cell.model for request in made.first.requests)


def _spoken(expected: Outcome) -> str:
    return "" if "(" in expected.said else expected.said  # tool calls are told otherwise


def _raises_what_it_should(way: Way, expected: Outcome, error: Exception | None) -> None:
    if expected.code is None:
        assert error is None
        return
    assert error is not None, "a failure was taken for a whole answer"
    sdk = SDKS[way.slug]
    if expected.status == 200:  # an event inside the stream
        assert isinstance(error, sdk.APIError)
        assert expected.code in str(error.body)
        return
    wanted = CLASSES[expected.status] if sdk is openai else OWN_CLASSES.get(expected.status, CLASSES[expected.status])
    assert isinstance(error, getattr(sdk, wanted)), error
    assert isinstance(error, openai.APIStatusError | anthropic.APIStatusError)
    assert error.status_code == expected.status
    assert expected.code in str(error.body)


async def _openai(made: Rig, cell: Cell, said: list[str]) -> None:
    async with openai.AsyncOpenAI(base_url=f"{made.agent.url}/v1", api_key=made.agent.token) as client:
        if not cell.stream:
            answer = await client.chat.completions.create(model=cell.target, messages=HI)
            said.append(answer.choices[0].message.content or "")
            return
        async for chunk in await client.chat.completions.create(model=cell.target, messages=HI, stream=True):
            said.extend(choice.delta.content or "" for choice in chunk.choices)
            _go_on(made, cell, said)


async def _anthropic(made: Rig, cell: Cell, said: list[str]) -> None:
    async with anthropic.AsyncAnthropic(base_url=made.agent.url, api_key=made.agent.token) as client:
        if not cell.stream:
            answer = await client.messages.create(model=cell.target, max_tokens=9, messages=HI)
            said.extend(block.text for block in answer.content if block.type == "text")
            return
        async with client.messages.stream(model=cell.target, max_tokens=9, messages=HI) as stream:
            async for event in stream:
                if event.type == "text":
                    said.append(event.text)
                    _go_on(made, cell, said)


def _openai_in_a_thread(made: Rig, cell: Cell, said: list[str], go_on: Callable[[], object]) -> None:
    with openai.OpenAI(base_url=f"{made.agent.url}/v1", api_key=made.agent.token) as client:
        if not cell.stream:
            answer = client.chat.completions.create(model=cell.target, messages=HI)
            said.append(answer.choices[0].message.content or "")
            return
        for chunk in client.chat.completions.create(model=cell.target, messages=HI, stream=True):
            said.extend(choice.delta.content or "" for choice in chunk.choices)
            go_on()


def _anthropic_in_a_thread(made: Rig, cell: Cell, said: list[str], go_on: Callable[[], object]) -> None:
    with anthropic.Anthropic(base_url=made.agent.url, api_key=made.agent.token) as client:
        if not cell.stream:
            answer = client.messages.create(model=cell.target, max_tokens=9, messages=HI)
            said.extend(block.text for block in answer.content if block.type == "text")
            return
        with client.messages.stream(model=cell.target, max_tokens=9, messages=HI) as stream:
            for event in stream:
                if event.type == "text":
                    said.append(event.text)
                    go_on()


def _go_on(made: Rig, cell: Cell, said: list[str]) -> None:
    """The provider breaks off when the last word before that has arrived."""
    last = last_word(cell.case.answer).decode().rstrip('"')
    if last and "".join(said).endswith(last):
        made.reached[cell.model].set()
