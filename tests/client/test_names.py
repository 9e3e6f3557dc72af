"""From a name to a connection: what resolves to nothing, to much, or to what is never called."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohappyeyeballs
import pytest

from calliope_agent import errors
from calliope_agent.upstream.client import Client
from tests.client.rig import HELLO, Peer, Server, abandoned, ask, descriptors, keeping, until

NAME = "provider.example"


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Lets `NAME` resolve to these, as no name server of a test could."""

    loop = asyncio.get_running_loop()
    asked = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **more: Any) -> list[Any]:
        if host != NAME:
            return await asked(host, port, **more)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a..b", "-"])
async def test_a_name_that_does_not_resolve_is_told(client: Client, host: str) -> None:
    with pytest.raises(errors.Unreachable, match="name"):
        await ask(client, f"http://{host}/")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", ".".join(["a" * 60] * 5), "é" * 64 + ".example"])
async def test_a_name_that_cannot_be_one_is_told(client: Client, host: str) -> None:
    with pytest.raises(errors.Unreachable, match="name"):
        await ask(client, f"http://{host}/")


async def test_only_the_allowed_address_of_a_name_is_called(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "169.254.169.254", "fe80::1", "127.0.0.1", "::ffff:169.254.169.254")
    async with Server(keeping(HELLO)) as server:
        assert (await ask(client, f"http://{NAME}:{server.port}/", connect_s=1)).body == b"hello"


async def test_a_name_with_forbidden_addresses_only_is_not_called(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "169.254.169.254", "fe80::1")
    with pytest.raises(errors.Unreachable, match=r"169\.254\.169\.254 is link-local"):
        await ask(client, f"http://{NAME}/")


async def test_link_local_space_is_called_where_the_operator_allows_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []

    async def start_connection(addresses: list[Any], **_: Any) -> socket.socket:
        called.extend(address[4] for address in addresses)
        raise ConnectionRefusedError

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)  # a test's machine has no such network
    for allowed in (False, True):
        with pytest.raises(errors.Unreachable, match="refuses or drops" if allowed else "link-local"):
            await ask(client, "http://169.254.7.7:1/", allow_link_local=allowed)
    assert called == [("169.254.7.7", 1)]


async def test_what_is_allowed_for_one_is_not_for_another(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection to link-local space must not serve who may not go there."""
    async with Server(keeping(HELLO)) as server:
        assert (await ask(client, server.url, allow_link_local=True)).body == b"hello"
        assert (await ask(client, server.url)).body == b"hello"
        assert len(server.peers) == 2


@pytest.mark.parametrize("order", [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("127.0.0.2", "127.0.0.1")])
async def test_the_address_that_answers_is_taken(
    client: Client, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    resolving(monkeypatch, *order)
    async with Server(keeping(HELLO)) as server:
        before = descriptors()
        assert (await ask(client, f"http://{NAME}:{server.port}/")).body == b"hello"
        await until(lambda: descriptors() <= before + 2)


async def test_localhost_is_found_on_either_family(client: Client) -> None:
    async with Server(keeping(HELLO)) as server:
        assert (await ask(client, f"http://localhost:{server.port}/")).body == b"hello"
    if not socket.has_ipv6:
        return
    with contextlib.suppress(OSError):  # a machine may have no IPv6 loopback
        async with Server(keeping(HELLO), host="::1") as server:
            assert (await ask(client, server.url)).body == b"hello"


@contextlib.contextmanager
def full(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port that is bound and takes no more connections."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.parametrize("names", [("127.0.0.1",), ("127.0.0.1", "127.0.0.1")], ids=["one", "race"])
async def test_a_black_hole_ends_with_the_time_for_connecting(
    client: Client, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    with full() as port:
        resolving(monkeypatch, *names)
        before = descriptors()
        with pytest.raises(errors.Unreachable, match="did not accept a connection in time"):
            await ask(client, f"http://{NAME}:{port}/", connect_s=0.4)
        await until(lambda: descriptors() <= before)


async def test_a_black_hole_beside_a_provider_is_passed_by(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second address is tried before the first one's time is up."""
    resolving(monkeypatch, "127.0.0.2", "127.0.0.1")
    async with Server(keeping(HELLO)) as server:
        with full("127.0.0.2", server.port):
            before = descriptors()
            assert (await ask(client, f"http://{NAME}:{server.port}/", connect_s=4)).body == b"hello"
            await until(lambda: descriptors() <= before + 2)


async def test_leaving_while_dialling_leaves_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with full() as port:
        resolving(monkeypatch, "127.0.0.1", "127.0.0.1")
        before = descriptors()
        for wait in (0, 0.01, 0.3):
            task = asyncio.create_task(ask(client, f"http://{NAME}:{port}/"))
            await asyncio.sleep(wait)
            await abandoned(task)
        await until(lambda: descriptors() <= before)


async def test_nobody_there_is_told(client: Client) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(errors.Unreachable, match="refuses or drops"):
            await ask(client, f"http://127.0.0.1:{bound.getsockname()[1]}/")


async def test_a_server_that_hangs_up_at_once_is_told_at_once(client: Client) -> None:
    async def at_once(peer: Peer) -> None:
        peer.writer.transport.abort()

    async with Server(at_once) as server:
        for _ in range(50):
            with pytest.raises(errors.Unreachable, match="refuses or drops"):
                await ask(client, server.url, body=b"{}")
        await until(lambda: not client._open)


async def test_a_unix_socket_is_asked_as_any_other(client: Client, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(HELLO)
        writer.close()

    path = str(tmp_path / "model.sock")
    server = await asyncio.start_unix_server(serve, path)
    for _ in range(2):
        assert (await ask(client, "http://127.0.0.1/v1", unix_socket=path)).body == b"hello"
    assert heads[0].startswith(b"GET /v1 HTTP/1.1\r\nhost: 127.0.0.1\r\n")
    await client.close()
    server.close()
    await server.wait_closed()
    for absent in (path + "-not", "/" + "x" * 200):
        with pytest.raises(errors.Unreachable, match="refuses or drops"):
            await ask(client, "http://127.0.0.1/v1", unix_socket=absent)
