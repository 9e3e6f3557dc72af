"""Certificates, and connections that are encrypted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from calliope_agent import errors
from calliope_agent.upstream.client import Client
from tests.client.certificates import Authority
from tests.client.rig import (
    HELLO,
    OK,
    Peer,
    Server,
    abandoned,
    ask,
    descriptors,
    hanging,
    keeping,
    opened,
    request,
    saying,
    until,
)


async def test_a_company_s_own_authority_is_trusted_where_it_is_named(trusting: Client, authority: Authority) -> None:
    async with Server(keeping(HELLO), tls=authority.server()) as server:
        for _ in range(3):
            assert (await ask(trusting, server.url, body=b"{}")).body == b"hello"
        assert (await ask(trusting, server.url.replace("127.0.0.1", "localhost"))).body == b"hello"
        assert len(server.peers) == 2, "one connection per name, used again"


async def test_certificates_are_looked_for_in_a_folder_too(authority: Authority, tmp_path: Path) -> None:
    async with (
        Server(keeping(HELLO), tls=authority.server()) as server,
        opened({"SSL_CERT_DIR": str(tmp_path)}) as client,
    ):
        with pytest.raises(errors.Unreachable, match="certificate is not trusted"):
            await ask(client, server.url)


async def test_an_unknown_authority_is_not_trusted(client: Client, authority: Authority) -> None:
    async with Server(keeping(HELLO), tls=authority.server()) as server:
        before = descriptors()
        for _ in range(3):
            with pytest.raises(errors.Unreachable, match=r"certificate is not trusted.* set SSL_CERT_FILE"):
                await ask(client, server.url)
        await until(lambda: descriptors() <= before)


async def test_a_certificate_for_another_name_is_not_trusted(trusting: Client, authority: Authority) -> None:
    async with Server(keeping(HELLO), tls=authority.server("provider.example")) as server:
        with pytest.raises(errors.Unreachable, match="certificate is not trusted"):
            await ask(trusting, server.url)


@pytest.mark.parametrize("made", ["missing", "a folder", "no certificate"])
async def test_certificates_that_cannot_be_read_are_said_so_and_leave_nothing_open(
    authority: Authority, tmp_path: Path, made: str
) -> None:
    named = tmp_path / "authority.pem"
    if made == "a folder":
        named.mkdir()
    elif made == "no certificate":
        named.write_text("not one", encoding="utf-8")
    async with (
        Server(keeping(HELLO), tls=authority.server()) as server,
        opened({"SSL_CERT_FILE": str(named)}) as client,
    ):
        before = descriptors()
        for _ in range(3):
            with pytest.raises(errors.Unreachable, match="SSL_CERT_FILE or SSL_CERT_DIR cannot be read"):
                await ask(client, server.url)
        await until(lambda: descriptors() <= before)


async def test_https_to_a_server_without_it_names_the_scheme(trusting: Client) -> None:
    async def complaining(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with Server(complaining) as server:
        with pytest.raises(errors.Unreachable, match=r"does not speak TLS.*https"):
            await ask(trusting, server.url.replace("http:", "https:"))


async def test_http_to_a_server_that_wants_https_ends_in_an_error(client: Client, authority: Authority) -> None:
    async with Server(keeping(HELLO), tls=authority.server()) as server:
        with pytest.raises((errors.Unreachable, errors.Malformed), match="base URL"):
            await ask(client, server.url.replace("https:", "http:"))


async def test_a_handshake_that_hangs_ends_with_the_time_for_connecting(trusting: Client) -> None:
    async with Server(hanging) as server:
        with pytest.raises(errors.Unreachable, match="did not accept a connection in time"):
            await ask(trusting, server.url.replace("http:", "https:"), connect_s=0.1)
        await until(server.tasks[0].done)


async def test_leaving_in_the_handshake_closes_the_connection(trusting: Client) -> None:
    async with Server(hanging) as server:
        before = descriptors()
        task = asyncio.create_task(ask(trusting, server.url.replace("http:", "https:")))
        await until(lambda: any(peer.heard for peer in server.peers))
        await abandoned(task)
        await until(server.tasks[0].done)
        await until(lambda: descriptors() <= before)


async def test_leaving_at_any_step_of_the_way_disturbs_no_other_connection(
    trusting: Client, authority: Authority
) -> None:
    """A transport left on a closed socket reads from, and closes, whichever connection gets the socket's number next."""
    async with Server(keeping(HELLO), tls=authority.server()) as server, Server(keeping(HELLO)) as other:
        before = descriptors()
        for turns in range(40):
            task = asyncio.create_task(ask(trusting, server.url))
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            if turns % 2:
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            response = await trusting.ask(request(other.url, body=b"{}"))
            await asyncio.sleep(0.001)
            assert await response.read() == b"hello"
            response.release()
            await trusting.close()
        await until(lambda: descriptors() <= before)


async def test_an_idle_connection_that_the_provider_closes_is_not_used_again(
    trusting: Client, authority: Authority
) -> None:
    async with Server(saying(HELLO), tls=authority.server()) as server:
        for _ in range(3):
            assert (await ask(trusting, server.url)).body == b"hello"
            await until(lambda: not trusting._open)
        assert len(server.peers) == 3


async def test_a_long_body_is_whole_in_both_directions(trusting: Client, authority: Authority) -> None:
    answer = OK + b"content-length: 3000000\r\n\r\n" + b"x" * 3_000_000
    async with Server(keeping(answer), tls=authority.server()) as server:
        for _ in range(2):
            assert len((await ask(trusting, server.url, body=b"y" * 3_000_000)).body) == 3_000_000
        assert len(server.peers) == 1


@pytest.mark.parametrize("close", [b"", b"connection: close\r\n"])
async def test_a_slow_reader_gets_all_of_it(trusting: Client, authority: Authority, close: bytes) -> None:
    answer = OK + close + b"content-length: 600000\r\n\r\n" + b"x" * 600_000
    async with Server(saying(answer), tls=authority.server()) as server:
        response = await trusting.ask(request(server.url))
        await asyncio.sleep(0.1)
        got = 0
        while piece := await response.read():
            got += len(piece)
            await asyncio.sleep(0.01)
        response.release()
        assert got == 600_000
