"""Offers of another protocol are declined: the request goes on in HTTP/1.1 as if nothing had been offered (RFC 9110 §7.8).

Decisions
1. httptools takes all that follows such a head for the other protocol: a body in the same read was lost, and one in the next read
   was taken for another request. Java's HttpClient and ``curl --http2`` make the offer with the first request they send.
2. So the head is parsed a second time, without the word in ``Connection`` that makes it an offer. ``Upgrade`` itself stays: who
   asks for a websocket is told that there is none.
3. An offer on a connection that is to be closed makes no sense, and httptools reads on behind its head: it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import httptools


class Head(Protocol):
    """What a protocol of uvicorn's knows of the request that is being parsed."""

    url: bytes
    headers: list[tuple[bytes, bytes]]


class Parser(httptools.HttpRequestParser):
    """httptools' own for uvicorn's protocol, which has to leave alone what comes while `should_upgrade`: it comes again."""

    def __init__(self, protocol: Head) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's: an answer to what came before it
        self._head = protocol

    def feed_data(self, data: bytes | memoryview) -> None:  # type: ignore[override]  # what a transport gives
        """Raises HttpParserError."""
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = memoryview(data)[offer.args[0] :]
                self._decline()
            else:
                return

    def _decline(self) -> None:
        if self.get_method() == b"CONNECT":
            raise httptools.HttpParserError("a tunnel was asked for")
        line = b"%b %b HTTP/%b" % (self.get_method(), self._head.url, self.get_http_version().encode())
        try:
            super().feed_data(b"\r\n".join((line, *_fields(self._head.headers), b"", b"")))
        except httptools.HttpParserUpgrade as again:
            raise httptools.HttpParserError("an offer that cannot be declined") from again


def offered(parser: httptools.HttpRequestParser) -> bool:
    """Whether the head that is complete now makes an offer, and so comes again. Raises HttpParserError."""
    if parser.should_upgrade() and not parser.should_keep_alive():
        raise httptools.HttpParserError("an offer and an end at once")
    return parser.should_upgrade()


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [name + b": " + (_declined(value) if name == b"connection" else value) for name, value in headers]


def _declined(connection: bytes) -> bytes:
    return b",".join(word for word in connection.split(b",") if word.strip(b" \t").lower() != b"upgrade")
