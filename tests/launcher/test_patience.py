"""A backend that is silent, slow or gone, behind the streaming proxy: the visitor always hears something."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from calliope_agent.launcher import proxy
from calliope_agent.launcher.backend import Backend
from calliope_agent.launcher.patience import NO_ANSWER, OTHER_S, PAGE_S, Patience
from calliope_agent.launcher.proxy import StreamProxy
from tests.launcher.stack import free_port

BOUND_S = 0.25
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[str]:
    """The proxy before 127.0.0.1:``port``, with a short bound; gives its address."""

    class Short(StreamProxy):
        backend = Backend("IDE", f"http://127.0.0.1:{port}")
        prefix = "/"
        patience_s = BOUND_S

        async def admit(self) -> None:
            """Everybody."""

        async def no_backend(self, cause: str) -> None:
            self.set_status(503)
            self.finish(cause)

    server = HTTPServer(Application([(".*", Short)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"
    finally:
        server.stop()
        await server.close_all_connections()
        await Short.backend.close()


@asynccontextmanager
async def raw(serve: Serve) -> AsyncIterator[int]:
    """A backend that does with its connections what ``serve`` says."""
    served: set[asyncio.Task[Any]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.gather(*served, return_exceptions=True)


@asynccontextmanager
async def application(**handlers: Any) -> AsyncIterator[int]:
    app = web.Application()
    for path, handler in handlers.items():
        app.router.add_route("*", f"/{path}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def asked(method: str, url: str, **more: Any) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.request(method, url, **more) as answer:
        return answer.status, await answer.text()


async def until_it_leaves(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Takes everything and says nothing."""
    await reader.read()


async def test_a_backend_that_takes_the_request_and_says_nothing() -> None:
    async with raw(until_it_leaves) as port, proxied(port) as url:  # the end of `raw` waits until it was let go
        status, text = await asked("GET", url)
        assert (status, text) == (503, f"The IDE took the request and has said nothing for {BOUND_S} s.")


async def test_a_backend_that_reads_no_upload() -> None:
    released = asyncio.Event()

    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await released.wait()

    async with raw(deaf) as port, proxied(port) as url:
        status, text = await asked("POST", url, data=io.BytesIO(bytes(32 << 20)))
        released.set()
        assert status == 503
        assert "has said nothing" in text


async def test_a_backend_that_says_nothing_to_a_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "OTHER_S", BOUND_S)
    async with raw(until_it_leaves) as port, proxied(port) as url, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await asyncio.wait_for(session.ws_connect(url), 20)
    assert caught.value.status == 502


async def test_a_backend_that_hangs_up_and_one_that_is_not_there() -> None:
    async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with raw(hang_up) as port, proxied(port) as url:
        assert await asked("GET", url) == (503, "The IDE broke off its answer (ServerDisconnectedError).")
    async with proxied(free_port()) as url:
        assert await asked("GET", url) == (503, "The IDE does not listen yet, or not any more.")


async def test_a_slow_visitor_is_no_silence_of_the_backend() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(2 * BOUND_S)
            yield b"piece"

    async def count(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async with application(count=count) as port, proxied(port) as url:
        assert await asked("POST", url + "count", data=body()) == (200, "15")


async def test_pauses_after_the_first_word_have_no_bound() -> None:
    async def events(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for _ in range(2):
            await asyncio.sleep(2 * BOUND_S)
            await answer.write(b"data: x\n\n")
        return answer

    async with application(events=events) as port, proxied(port) as url:
        assert await asked("GET", url + "events") == (200, "data: x\n\n" * 2)


async def test_whoever_leaves_is_not_waited_for() -> None:
    left = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()

    async with raw(wait) as port, proxied(port) as url:
        task = asyncio.create_task(asked("GET", url))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        status, _ = await asked("GET", url)
        assert status == 503
        await asyncio.wait_for(left.wait(), 10)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (aiohttp.ConnectionTimeoutError(), "The agent takes no connection."),
        (TimeoutError(), "The agent took the request and has said nothing for 2 s."),
        (ConnectionResetError(), "The agent broke off its answer (ConnectionResetError)."),
    ],
)
def test_the_cause_is_a_sentence(error: Exception, said: str) -> None:
    assert isinstance(error, NO_ANSWER)
    assert Patience(2).cause("agent", error) == said
    assert "agent" in Patience(None).cause("agent", error)


def test_a_page_of_ours_comes_before_the_usual_bound_of_a_proxy_before_us() -> None:
    """nginx's and most ingresses' is 60 s."""
    assert PAGE_S < OTHER_S <= 60
