"""The way through an HTTP proxy, and the ways that there are none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import traceback

import pytest

from calliope_agent import errors
from calliope_agent.upstream.client import Client
from tests.client.certificates import Authority
from tests.client.rig import (
    HELLO,
    OK,
    Peer,
    Serve,
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

# Not on the loopback, so asked through the proxy; the proxies here lead every name to the server of the test.
HOST = "provider.example"
PASSWORD = "canary/pass:word@ü"
USER = "per son"
ESCAPED = "per%20son:canary%2Fpass%3Aword%40%C3%BC"


class Proxy:
    """Leads every CONNECT to ``port``. ``heads`` are the requests that it got."""

    def __init__(self, port: int = 0, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.port = port
        self.answer = answer
        self.heads: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        head = await peer.head()
        self.heads.append(head)
        if not head.startswith(b"CONNECT "):
            await peer.say(HELLO)
            return
        await peer.say(self.answer)
        if b" 200 " not in self.answer:
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await asyncio.gather(_pump(peer.reader, writer), _pump(reader, peer.writer))
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while (data := await reader.read(65536)) and not writer.is_closing():
            writer.write(data)
            await writer.drain()
    writer.close()


def lines(head: bytes) -> list[bytes]:
    return head.split(b"\r\n")


@pytest.mark.parametrize("tail", ["", "/", "/some/path"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_http_is_asked_in_absolute_form(scheme: str, tail: str) -> None:
    proxy = Proxy()
    async with Server(proxy) as server:
        environ = {"HTTP_PROXY": f"{scheme}127.0.0.1:{server.port}{tail}"}
        async with opened(environ) as client:
            assert (await ask(client, f"http://{HOST}:8080/v1/x y?a=b", body=b"{}")).body == b"hello"
            assert (await ask(client, "http://[2001:db8::1]/")).body == b"hello"
    assert lines(proxy.heads[0])[0] == b"POST http://provider.example:8080/v1/x%20y?a=b HTTP/1.1"
    assert b"host: provider.example:8080" in lines(proxy.heads[0])
    assert b"proxy-authorization" not in proxy.heads[0]
    assert lines(proxy.heads[1])[0] == b"GET http://[2001:db8::1]:80/ HTTP/1.1"
    assert b"host: [2001:db8::1]" in lines(proxy.heads[1])


@pytest.mark.parametrize("outer", [False, True], ids=["http proxy", "https proxy"])
async def test_https_goes_through_a_tunnel(authority: Authority, outer: bool) -> None:
    async with Server(keeping(HELLO), tls=authority.server(HOST)) as server:
        proxy = Proxy(server.port)
        async with Server(proxy, tls=authority.server() if outer else None) as way:
            environ = {"HTTPS_PROXY": way.url + "/", "SSL_CERT_FILE": str(authority.file)}
            async with opened(environ) as client:
                for _ in range(3):
                    assert (await ask(client, f"https://{HOST}/v1", body=b"{}")).body == b"hello"
                assert len(server.peers) == len(way.peers) == 1
    assert lines(proxy.heads[0])[:2] == [b"CONNECT provider.example:443 HTTP/1.1", b"host: provider.example:443"]


@pytest.mark.parametrize(
    ("host", "authority_form"),
    [("[2001:db8::1]", b"[2001:db8::1]:443"), ("provider.example.", b"provider.example.:443")],
)
async def test_a_tunnel_leads_to_every_kind_of_name(authority: Authority, host: str, authority_form: bytes) -> None:
    async with Server(keeping(HELLO), tls=authority.server(HOST, "2001:db8::1")) as server:
        proxy = Proxy(server.port)
        environ = {"SSL_CERT_FILE": str(authority.file)}
        async with Server(proxy) as way, opened({"HTTPS_PROXY": way.url, **environ}) as client:
            assert (await ask(client, f"https://{host}/")).body == b"hello"
    assert lines(proxy.heads[0])[0] == b"CONNECT " + authority_form + b" HTTP/1.1"


@pytest.mark.parametrize("outer", [False, True], ids=["http proxy", "https proxy"])
async def test_much_goes_through_a_tunnel_and_closing_tells_both(authority: Authority, outer: bool) -> None:
    answer = OK + b"content-length: 2000000\r\n\r\n" + b"x" * 1_500_000

    async def breaking_off(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)
        await peer.left()

    async with (
        Server(breaking_off, tls=authority.server(HOST)) as server,
        Server(Proxy(server.port), tls=authority.server() if outer else None) as way,
        opened({"HTTPS_PROXY": way.url, "SSL_CERT_FILE": str(authority.file)}) as client,
    ):
        response = await client.ask(request(f"https://{HOST}/", body=b"y" * 3_000_000))
        got = 0
        while got < 1_500_000:
            got += len(await response.read())
        response.release()
        await until(lambda: server.tasks[0].done() and way.tasks[0].done())


async def test_the_certificate_inside_the_tunnel_is_the_provider_s(authority: Authority) -> None:
    async with (
        Server(keeping(HELLO), tls=authority.server("other.example")) as server,
        Server(Proxy(server.port)) as way,
        opened({"HTTPS_PROXY": way.url, "SSL_CERT_FILE": str(authority.file)}) as client,
    ):
        before = descriptors()
        with pytest.raises(errors.Unreachable, match="certificate is not trusted"):
            await ask(client, f"https://{HOST}/")
        await until(lambda: way.tasks[0].done() and descriptors() <= before)


async def test_the_certificate_of_a_proxy_is_looked_at(authority: Authority) -> None:
    async with (
        Server(Proxy(), tls=authority.server("other.example")) as way,
        opened({"ALL_PROXY": way.url, "SSL_CERT_FILE": str(authority.file)}) as client,
    ):
        for scheme in ("http", "https"):
            with pytest.raises(errors.Unreachable, match="certificate is not trusted"):
                await ask(client, f"{scheme}://{HOST}/")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_user_and_password_reach_the_proxy_and_nobody_else(
    authority: Authority, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heads: list[bytes] = []

    async def serve(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.say(HELLO)

    async with Server(serve, tls=authority.server(HOST)) as server:
        proxy = Proxy(server.port)
        async with Server(proxy) as way:
            environ = {
                f"{scheme.upper()}_PROXY": f"http://{ESCAPED}@127.0.0.1:{way.port}",
                "SSL_CERT_FILE": str(authority.file),
            }
            async with opened(environ) as client:
                assert (await ask(client, f"{scheme}://{HOST}/")).body == b"hello"
                told = repr(vars(client)) + repr(client._idle) + repr(list(client._open)) + caplog.text
    shown = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    assert b"proxy-authorization: Basic " + shown in lines(proxy.heads[0])
    assert all(b"proxy-authorization" not in head for head in heads)
    # the environment itself holds it, of course
    told = told.replace(repr(environ), "").replace(repr(client._proxies), "")
    assert "canary" not in told


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:canary@127.0.0.1:port/",
        "http://user:canary@127.0.0.1:99999/",
        "http://user:canary/slash@127.0.0.1:3128",
        "http://user:canary@[::1",
        "http://user:canary@",
        "user:canary@",
        "socks5://user:canary@127.0.0.1:1080",
        "socks5h://user:canary@127.0.0.1:1080",
        "ftp://user:canary@127.0.0.1:1080",
        "://user:canary@127.0.0.1:1080",
        "http://user:canary@127.0.0.1:1",
        "https://user:canary@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_what_is_no_proxy_is_said_without_its_password(proxy: str, scheme: str) -> None:
    async with opened({"ALL_PROXY": proxy}) as client:
        with pytest.raises(errors.Unreachable) as caught:
            await ask(client, f"{scheme}://{HOST}/", connect_s=1)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert "ALL_PROXY" in caught.value.message or "proxy" in caught.value.message.lower()


@pytest.mark.parametrize(
    "status", [b"407 Proxy Authentication Required", b"502 Bad Gateway", b"403 Forbidden", b"302 Found"]
)
@pytest.mark.parametrize("length", [b"", b"content-length: 6\r\n"])
async def test_a_proxy_that_refuses_is_named_with_its_status(status: bytes, length: bytes) -> None:
    proxy = Proxy(answer=b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\nnot so")
    async with Server(proxy) as way, opened({"HTTPS_PROXY": way.url}) as client:
        with pytest.raises(errors.Unreachable, match=rf"proxy does not let us through.*{int(status[:3])}"):
            await ask(client, f"https://{HOST}/")
        await until(way.tasks[0].done)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 Conn", b"SSH-2.0-OpenSSH\r\n", b"\x00\x01"])
async def test_a_proxy_that_hangs_up_or_is_none_is_named(said: bytes) -> None:
    async with Server(saying(said)) as way, opened({"HTTPS_PROXY": way.url}) as client:
        with pytest.raises(errors.Unreachable, match="HTTP proxy"):
            await ask(client, f"https://{HOST}/")


async def test_a_proxy_that_closes_behind_its_consent_is_an_error() -> None:
    async with Server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as way, opened({"HTTPS_PROXY": way.url}) as client:
        with pytest.raises(errors.Unreachable):
            await ask(client, f"https://{HOST}/")


@pytest.mark.parametrize(
    "serve", [hanging, keeping(b"HTTP/1.1 100 Continue\r\n\r\n"), keeping(b"HTTP/1.1 200 OK\r\n\r\n")]
)
async def test_a_proxy_that_hangs_ends_with_the_time_for_connecting(serve: Serve) -> None:
    async with (
        Server(serve) as way,
        opened({"HTTPS_PROXY": way.url}) as client,
    ):
        with pytest.raises(errors.Unreachable, match="in time"):
            await ask(client, f"https://{HOST}/", connect_s=0.1)
        await until(way.tasks[0].done)


async def test_a_consent_may_promise_a_body_that_never_comes(authority: Authority) -> None:
    """RFC 9110 §9.3.6: the header is to be ignored in an answer to CONNECT."""
    consent = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nproxy-agent: x\r\n\r\n"
    async with (
        Server(keeping(HELLO), tls=authority.server(HOST)) as server,
        Server(Proxy(server.port, consent)) as way,
        opened({"HTTPS_PROXY": way.url, "SSL_CERT_FILE": str(authority.file)}) as client,
    ):
        for _ in range(2):
            assert (await ask(client, f"https://{HOST}/")).body == b"hello"
        assert len(way.peers) == 1


async def test_leaving_while_the_proxy_thinks_closes_the_connection() -> None:
    async with Server(hanging) as way, opened({"HTTPS_PROXY": way.url}) as client:
        task = asyncio.create_task(ask(client, f"https://{HOST}/"))
        await until(lambda: any(peer.heard for peer in way.peers))
        await abandoned(task)
        await until(way.tasks[0].done)


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("provider.example", f"http://{HOST}/", True),
        (".example", f"http://{HOST}/", True),
        ("example", f"http://{HOST}/", True),
        ("PROVIDER.Example", f"http://{HOST}/", True),
        (" a.b , provider.example ", f"http://{HOST}/", True),
        ("*", f"http://{HOST}/", True),
        ("other.example", f"http://{HOST}/", False),
        ("vider.example", f"http://{HOST}/", False),
        ("10.1.2.3", "http://10.1.2.3:99/", True),
        ("10.1.2.3", "http://10.1.2.30/", False),
        ("2001:db8::1", "http://[2001:db8::1]:99/", True),
        ("provider.example:8080", f"http://{HOST}:8080/", True),
        ("provider.example:8080", f"http://{HOST}:8081/", False),
        ("provider.example:443", f"https://{HOST}/", True),
        ("", "http://127.0.0.1/", True),
        ("", "https://localhost:1/", True),
        ("", "http://x.localhost/", True),
        ("", "http://LOCALHOST/", True),
        ("", "http://[::1]:1/", True),
        ("", "http://localhost.example/", False),
    ],
)
async def test_exceptions(no_proxy: str, url: str, direct: bool) -> None:
    client = Client({"ALL_PROXY": "http://proxy:3128", "no_proxy": no_proxy})
    assert (client.proxy(url) is None) is direct


async def test_the_scheme_s_own_proxy_comes_before_all_and_small_letters_first() -> None:
    client = Client({"ALL_PROXY": "http://all", "HTTPS_PROXY": "http://large", "https_proxy": "http://small"})
    assert client.proxy(f"https://{HOST}/") == "http://small"
    assert client.proxy(f"http://{HOST}/") == "http://all"
