"""The streaming reverse proxy, as a tornado handler: HTTP both ways in constant memory, and websockets.

Decisions
1. Nothing is answered inside ``prepare``: a handler that streams its request's body and answers there makes tornado
   close the connection, and the hub's proxy then turns every fourth refusal into a 503. `prepare` notes, the verb
   answers.
2. The backend's websocket is opened before ours is accepted, so the subprotocol is the backend's choice and its refusal
   reaches the visitor as an HTTP status.
3. An answer that breaks off closes the connection: an ended chunked body would look complete.
4. A VS Code server that takes a request and fails on it says nothing, for ever: see `patience`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from tornado import httputil, iostream, web, websocket

from calliope_agent.launcher import headers
from calliope_agent.launcher.backend import MESSAGE_LIMIT, Backend
from calliope_agent.launcher.patience import NO_ANSWER, OTHER_S, PAGE_S, Patience

BODY_LIMIT = 1 << 40
BODY_CHUNKS = 4  # of 64 KiB: how far an upload may run ahead of the backend


class Refused(Exception):
    """A refusal noted in ``prepare``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@web.stream_request_body
class StreamProxy(websocket.WebSocketHandler, JupyterHandler):
    """Subclasses give `backend`, `prefix` and `admit`."""

    backend: Backend
    _refused: Refused | None = None
    _body: asyncio.Queue[bytes | None] | None = None
    _forwarding: asyncio.Task[None] | None = None
    _gone = False
    _upstream: aiohttp.ClientWebSocketResponse | None = None
    _background: tuple[asyncio.Future[Any], ...] = ()

    # --- what subclasses say ------------------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        """The part of the path that the backend does not see, with its last slash."""
        raise NotImplementedError

    async def admit(self) -> None:
        """Raise `Refused` for a visitor who must not pass; may note a redirect by ``self.away``."""
        raise NotImplementedError

    def outgoing(self) -> headers.Pairs:
        """Headers for the backend."""
        seen = {"host": self.request.host, "proto": self.request.protocol, "for": self.request.remote_ip or ""}
        return headers.to_backend(self.request.headers.get_all(), self.prefix, seen_as=seen)

    def incoming(self, received: headers.Pairs) -> headers.Pairs:
        """Headers for the visitor."""
        return headers.from_backend(received, self.prefix, (self.backend.origin,))

    def moved(self, message: str | bytes | None) -> None:
        """Called for each request (None) and each websocket message of the visitor's: activity."""

    @property
    def patience_s(self) -> float | None:
        """How long the backend may be silent before its first word; None leaves the bound to the backend."""
        return PAGE_S if self.wants_page else OTHER_S

    async def no_backend(self, cause: str) -> None:
        """Answer a request that the backend did not answer; ``cause`` is a sentence about it."""
        raise web.HTTPError(502, cause)

    def watchers(self) -> tuple[Any, ...]:
        """Coroutines that run as long as a websocket is open."""
        return ()

    # --- tornado's and Jupyter's expectations -------------------------------------------------------------------------

    away: str | None = None

    def check_xsrf_cookie(self) -> None:
        """Not by a token that the backend's pages do not know: by `gate` for every request, see there."""

    def check_origin(self, origin: str = "") -> bool:
        return JupyterHandler.check_origin(self, origin)

    def compute_etag(self) -> None:
        """The backend's answer is passed on, not hashed."""

    @property
    def max_message_size(self) -> int:
        return MESSAGE_LIMIT

    async def prepare(self, **_: Any) -> None:
        connection: Any = self.request.connection
        connection.set_max_body_size(BODY_LIMIT)
        connection.stream.set_nodelay(True)  # else a stream's first event waits 40 ms, for the head's acknowledgement
        try:
            await self.admit()
        except Refused as exc:
            self._refused = exc
        except web.HTTPError as exc:
            self._refused = Refused(exc.status_code, exc.log_message or "")
        if self._refused is None and self.away is None and not self.is_websocket:
            self.moved(None)
            if self.request.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.request.headers:
                self._body = asyncio.Queue(BODY_CHUNKS)
            self._forwarding = asyncio.create_task(self._forward())

    @property
    def wants_page(self) -> bool:
        """Whether a person waits for the answer: a navigation, what asks for HTML first, or the root."""
        sent = self.request.headers
        told = sent.get("Sec-Fetch-Mode") == "navigate" or sent.get("Accept", "").startswith("text/html")
        return self.request.method in ("GET", "HEAD") and (told or str(self.request.path) == self.prefix)

    @property
    def is_websocket(self) -> bool:
        return self.request.headers.get("Upgrade", "").lower() == "websocket"

    async def data_received(self, chunk: bytes) -> None:
        if self._body is not None and self._forwarding is not None and not self._forwarding.done():
            await _first(self._body.put(chunk), self._forwarding)

    def on_connection_close(self) -> None:
        self._gone = True
        if self._forwarding is not None:
            self._forwarding.cancel()
        super().on_connection_close()

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    @allow_unauthenticated  # by Jupyter: `admit` has decided
    async def get(self, *args: str, **kwargs: str) -> None:
        if self.is_websocket and self._refused is None and self.away is None:
            await self._upgrade(*args, **kwargs)
        else:
            await self._verb()

    @allow_unauthenticated
    async def _verb(self, *_args: str, **_kwargs: str) -> None:
        if self._refused is not None:
            raise web.HTTPError(self._refused.status, self._refused.message)
        if self.away is not None:
            self.redirect(self.away)
            return
        if self._forwarding is not None:
            await self._forwarded(self._forwarding)

    head = post = put = delete = patch = options = _verb

    async def _forwarded(self, forwarding: asyncio.Task[None]) -> None:
        if self._body is not None:
            await _first(self._body.put(None), forwarding)
        try:
            await forwarding
        except asyncio.CancelledError:
            if not self._gone:
                raise
        except iostream.StreamClosedError:
            pass
        except NO_ANSWER as exc:
            await self._broken(exc)

    async def _broken(self, error: Exception) -> None:
        cause = Patience(self.patience_s).cause(self.backend.name, error)
        level = logging.DEBUG if isinstance(error, aiohttp.ClientConnectorError) else logging.WARNING
        self.log.log(level, "%s %s: %s", self.request.method, self.request.path, cause)
        if not self._headers_written:
            self.clear()
            await self.no_backend(cause)
            return
        connection: Any = self.request.connection
        connection.close()

    async def _forward(self) -> None:
        patience = Patience(self.patience_s)
        asked = self.backend.session().request(
            str(self.request.method),
            self.backend.url(self.target()),
            headers=self.outgoing(),
            data=self._chunks(self._body, patience) if self._body is not None else None,
            allow_redirects=False,
        )
        async with await patience.first_word(asked) as response:
            own = self.get_cookies_set()
            self._headers = httputil.HTTPHeaders()
            self.set_status(response.status, response.reason)
            for name, value in [*self.incoming(list(response.headers.items())), *own]:
                self._headers.add(name, value)
            if response.content_length is None:
                await self.flush()
            async for chunk in response.content.iter_any():
                self.write(chunk)
                await self.flush()

    @staticmethod
    async def _chunks(body: asyncio.Queue[bytes | None], patience: Patience) -> AsyncIterator[bytes]:
        while (chunk := await patience.visitor(body.get())) is not None:
            yield chunk

    def target(self) -> str:
        return "/" + str(self.request.uri).removeprefix(self.prefix)

    def get_cookies_set(self) -> headers.Pairs:
        """Set-Cookie headers that the login wrote on this answer before the backend's took its place."""
        return [("Set-Cookie", value) for value in self._headers.get_list("Set-Cookie")]

    # --- websocket ----------------------------------------------------------------------------------------------------

    async def _upgrade(self, *args: str, **kwargs: str) -> None:
        offered = [word.strip() for word in self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        patience = Patience(OTHER_S)
        sent = [(name, value) for name, value in self.outgoing() if not name.lower().startswith("sec-websocket")]
        try:
            self._upstream = await patience.first_word(
                self.backend.session().ws_connect(
                    self.backend.url(self.target()),
                    headers=sent,
                    protocols=[word for word in offered if word],
                    max_msg_size=MESSAGE_LIMIT,
                )
            )
        except aiohttp.WSServerHandshakeError as exc:
            raise web.HTTPError(exc.status if exc.status >= 400 else 502, "the backend refuses the websocket") from exc
        except NO_ANSWER as exc:
            raise web.HTTPError(502, patience.cause(self.backend.name, exc)) from exc
        self.moved(None)
        try:
            await super().get(*args, **kwargs)
        finally:
            if not self._background:  # never opened: the visitor left, or the handshake was refused
                await self._upstream.close()

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        chosen = self._upstream.protocol if self._upstream is not None else None
        return chosen if chosen in subprotocols else None

    async def open(self, *_args: str, **_kwargs: str) -> None:
        work = (self._down(), *self.watchers())
        self._background = tuple(asyncio.create_task(coroutine) for coroutine in work)

    async def _down(self) -> None:
        upstream = self._upstream
        if upstream is None:
            return
        with contextlib.suppress(websocket.WebSocketClosedError, *NO_ANSWER):
            async for message in upstream:
                await self.write_message(message.data, binary=message.type is aiohttp.WSMsgType.BINARY)
        self.close(_sendable(upstream.close_code))

    async def on_message(self, message: str | bytes) -> None:
        upstream = self._upstream
        if upstream is None:
            return
        self.moved(message)
        with contextlib.suppress(*NO_ANSWER):
            await (upstream.send_bytes(message) if isinstance(message, bytes) else upstream.send_str(message))

    def on_close(self) -> None:
        down, *watchers = self._background or (None,)
        for task in watchers:
            if task is not None:
                task.cancel()
        if self._upstream is not None:
            closing = self._upstream.close(code=_sendable(self.close_code) or 1000)
            self._background = (asyncio.ensure_future(closing), *([down] if down else []))  # `down` ends by the closing


# WebSocketHandler takes the plain answers away from its subclasses; this one also speaks plain HTTP.
for _name in ("write", "redirect", "set_header", "set_cookie", "set_status", "flush", "finish"):
    setattr(StreamProxy, _name, getattr(web.RequestHandler, _name))


def _sendable(code: int | None) -> int | None:
    """A close code that may stand in a frame: some only name what happened (RFC 6455 §7.4.1)."""
    return None if code in (None, 1004, 1005, 1006, 1015) else code


async def _first(work: Any, other: asyncio.Task[None]) -> None:
    """Wait for ``work``, or until ``other`` has ended: nobody reads from a queue whose reader is gone."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
