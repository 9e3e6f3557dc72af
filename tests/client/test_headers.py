"""What goes out: the first line, the headers, and nothing that anybody smuggled into them."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent import errors
from calliope_agent.upstream.client import Client, Request, _head
from calliope_agent.upstream.dial import Route
from tests.client.rig import HELLO, Peer, Server, ask, request

KEY = "sk-canary-of-a-key"


async def sent(client: Client, path: str = "/", **more: object) -> list[bytes]:
    """The lines of the request's head, and its body."""
    found: list[bytes] = []

    async def serve(peer: Peer) -> None:
        head, body = await peer.request()
        found.extend([*head.split(b"\r\n")[:-2], body])
        await peer.say(HELLO)

    async with Server(serve) as server:
        assert (await ask(client, server.url + path, **more)).body == b"hello"
        return [line.replace(str(server.port).encode(), b"PORT") for line in found]


async def test_a_request_is_what_it_should_be(client: Client) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    assert await sent(client, "/v1/chat", body=b"{}", headers=headers) == [
        b"POST /v1/chat HTTP/1.1",
        b"host: 127.0.0.1:PORT",
        b"content-type: application/json",
        b"authorization: Bearer " + KEY.encode(),
        b"content-length: 2",
        b"{}",
    ]
    assert await sent(client, headers={}) == [b"GET / HTTP/1.1", b"host: 127.0.0.1:PORT", b""]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", b"/"),
        ("/a%20b/%2F", b"/a%20b/%2F"),
        ("/a b", b"/a%20b"),
        ("/é", b"/%C3%A9"),
        ("/a?api-version=1&b=c d", b"/a?api-version=1&b=c%20d"),
        ("/a?é", b"/a?%C3%A9"),
        ("/models/a:b@c/d;e", b"/models/a:b@c/d;e"),
        ("/a\r\nx: y", b"/ax:%20y"),
        ("/a#b", b"/a"),
    ],
)
async def test_a_path_arrives_as_it_was_written(client: Client, path: str, target: bytes) -> None:
    assert (await sent(client, path, headers={}))[0] == b"GET " + target + b" HTTP/1.1"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": f"{KEY}\r\nx-b: c"},
        {"x-a": f"{KEY}\nx-b: c"},
        {"x-a": f"{KEY}\r"},
        {"x-a\r\nx-b": KEY},
        {"x-a": f"{KEY}\0"},
        {"authorization": f"Bearer {KEY}\n"},
        {"x-a": f"{KEY}\r\n", "x-b": "\r\n"},
    ],
)
async def test_a_header_that_would_end_its_line_is_refused(client: Client, headers: dict[str, str]) -> None:
    async with Server(lambda peer: peer.left()) as server:
        with pytest.raises(errors.UpstreamRefused, match="line break") as caught:
            await ask(client, server.url, headers=headers)
        assert server.peers == []
    assert KEY not in "".join(traceback.format_exception(caught.value))


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=20), max_size=3))
def test_no_header_makes_another_line(headers: dict[str, str]) -> None:
    route = Route("http", "provider.example", 80)
    try:
        head = _head(Request("GET", "http://provider.example/", headers, 1), route, "/")
    except errors.UpstreamRefused:
        return
    lines = head.split(b"\r\n")
    assert len(lines) == len({"host": "", **headers}) + 3
    assert head.endswith(b"\r\n\r\n")
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert b"\r" not in head.replace(b"\r\n", b"")


async def test_what_no_header_can_hold_is_told_and_not_sent_as_something_else(client: Client) -> None:
    """A key pasted with a dash or a space that only looks like one would be refused by the provider as a wrong key."""
    async with Server(lambda peer: peer.left()) as server:
        with pytest.raises(errors.UpstreamRefused, match="plain characters") as caught:
            await ask(client, server.url, headers={"authorization": f"Bearer {KEY}\u2026"})
        assert server.peers == []
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_request_shows_no_key() -> None:
    shown = repr(request("http://127.0.0.1/", headers={"authorization": KEY}, body=KEY.encode()))
    assert KEY not in shown


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://provider.example/", b"provider.example"),
        ("http://provider.example:80/", b"provider.example"),
        ("http://PROVIDER.example:8080/", b"provider.example:8080"),
        ("http://[::1]/", b"[::1]"),
        ("http://[::1]:8080/", b"[::1]:8080"),
        ("https://provider.example/", b"provider.example"),
        ("https://provider.example:80/", b"provider.example:80"),
        ("https://provider.example:4430/", b"provider.example:4430"),
    ],
)
async def test_the_host_header_leaves_out_the_scheme_s_own_port(client: Client, url: str, host: bytes) -> None:
    route, target = client._route(url, None, allow_link_local=False)
    assert _head(request(url, headers={}), route, target).split(b"\r\n")[1] == b"host: " + host
