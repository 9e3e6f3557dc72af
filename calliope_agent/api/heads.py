"""What a stranger can make of a connection is bounded in bytes and in time: the head is read before any token can be shown.

Decisions
1. httptools has no bound of its own: an endless head filled the memory, and one endless header line cost CPU by its square.
2. Only a head that did not come in one read is counted and timed, so a usual request pays nothing for this.
3. uvicorn tells a lost connection to the request that came last. Where requests were sent ahead that is not the one that is being
   answered, which would go on, and be paid for, for nobody.
4. A connection on which nothing is ever said is closed after the same time; uvicorn only times what follows an answer, and forgets
   that time with the first byte, an empty line's too.
5. An answer that is given before the request's body has come, a refusal mostly, is the connection's last: a body that drips on
   would hold it for ever. A body that has come by then costs nobody a connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from calliope_agent.api.offers import Parser, offered
from calliope_agent.api.outlet import Outlet

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

MOST_BYTES = 64 << 10
SECONDS = 20.0


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol on httptools, which closes a connection whose head is too long or too slow."""

    _head_bytes = 0
    _head_open = True
    _head_timer: asyncio.TimerHandle | None = None
    _begun: RequestResponseCycle | None = None
    _keeps_alive = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        self._outlet = Outlet(transport, self.loop)
        super().connection_made(self._outlet)  # type: ignore[arg-type]  # what uvicorn uses of one
        self.parser = Parser(self)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        if self._begun is not None:
            self._begun.disconnected = True
            self._begun.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._outlet.is_closing():
            return
        super().data_received(data)
        if self._outlet.is_closing():
            return
        if not self._head_open:
            self._time_what_is_no_head()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_BYTES:
            self._refuse("The head of the request is too large.")
        elif self._head_timer is None:
            self._time_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_open, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._head_open = False
        self._stop_timer()
        if not offered(self.parser):
            super().on_headers_complete()
            self._outlet.unread = True
            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self._outlet.unread = False
            if not self.cycle.response_started:
                self.cycle.keep_alive = self._keeps_alive

    def shutdown(self) -> None:
        self._keeps_alive = False
        super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._begun = cycle
        super()._start_asgi_task(cycle, app)

    @property
    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn begins with None, whatever its annotation says
        return cycle is not None and not cycle.response_complete

    def _time_what_is_no_head(self) -> None:
        """Empty lines after an answer."""
        if self._head_timer is None and self.timeout_keep_alive_task is None and not self._answering:
            self._time_head()

    def _time_head(self) -> None:
        self._head_timer = self.loop.call_later(SECONDS, self._refuse, "The head of the request did not come in time.")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, why: str) -> None:
        if self._answering:
            self.transport.close()  # an answer is on its way to an earlier request: nothing may be written into it
        else:
            self.send_400_response(why)
