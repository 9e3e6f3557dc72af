"""The proxy to the IDE, through a real Jupyter Server, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from calliope_agent.launcher.headers import SECURITY
from tests.launcher.stack import TOKEN, Stack, login, read_answer

FROM_BROWSER = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}


def told(stack: Stack, method: str, path: str, **more: Any) -> Any:
    answer = stack.ask(method, path, **more)
    assert answer.status == 200, answer
    return answer.json()


def peak_memory_mib(stack: Stack) -> float:
    """The high-water mark of Jupyter's resident memory."""
    for pid in stack.below():
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"jupyter_server" in arguments:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    raise AssertionError("no Jupyter")


@pytest.mark.parametrize("path", ["a%2Fb", "a%3Fb?x=%23", "a%23b", "q?x=1&x=2&token2=3", "sp%20ace", "%C3%A9"])
def test_paths_arrive_as_they_were_sent(alone: Stack, path: str) -> None:
    assert told(alone, "GET", path)["raw"] == f"/{path}"
    assert told(alone, "GET", f"proxy/{alone.ide_port}/{path}")["raw"] == f"/{path}"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_methods_with_and_without_a_body(alone: Stack, method: str) -> None:
    assert told(alone, method, "x")["method"] == method
    assert told(alone, method, "x", body=b"12345")["body"] == "12345"


def test_head_keeps_the_length_and_has_no_body(alone: Stack) -> None:
    got = alone.ask("GET", "pour?size=65536")
    head = alone.ask("HEAD", "pour?size=65536")
    assert head.status == 200
    assert head.get("Content-Length") == got.get("Content-Length") == "65536"
    assert head.body == b""


def test_chunked_uploads_arrive_whole(alone: Stack) -> None:
    head = (
        f"POST {alone.prefix}x HTTP/1.1\r\nHost: 127.0.0.1:{alone.port}\r\nAuthorization: token {TOKEN}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert alone.raw(head.encode() + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").json()["body"] == "abcde"


def test_credentials_stay_here_and_claims_are_ours(alone: Stack) -> None:
    sent = {
        "Authorization": f"token {TOKEN}",
        "Cookie": "_xsrf=1; jupyterhub-session-id=2; mine=3",
        "X-JupyterHub-User": "root",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "host=evil.example",
    }
    arrived = {name.lower(): value for name, value in told(alone, "GET", "x", headers=sent)["headers"]}
    assert arrived["cookie"] == "mine=3"
    assert arrived["x-forwarded-host"] == f"127.0.0.1:{alone.port}"
    assert arrived["x-forwarded-prefix"] == alone.prefix.rstrip("/")
    assert not {"authorization", "x-jupyterhub-user", "forwarded"} & set(arrived)


def test_answers_carry_the_security_headers_and_the_visitor(alone: Stack) -> None:
    answer = alone.get("x")
    for name, value in SECURITY.items():
        assert answer.all(name) == [value]
    assert answer.get("Content-Security-Policy") == "frame-ancestors 'self'"
    assert answer.get("X-JupyterHub-User") == "alice"
    assert answer.get("X-JupyterHub-Server") == "alice-waiide-abc123"
    assert answer.get("X-Kept") == "yes"
    assert answer.get("X-Hop") is None
    assert answer.get("Service-Worker-Allowed") is None


@pytest.mark.parametrize("to", ["/inside?x=1", "http://127.0.0.1:{ide}/inside?x=1"])
def test_redirects_of_the_backend_stay_below_the_prefix(alone: Stack, to: str) -> None:
    answer = alone.get("redirect?to=" + to.format(ide=alone.ide_port).replace("?", "%3F"))
    assert answer.status == 302
    assert answer.get("Location") == f"{alone.prefix}inside?x=1"


def test_a_cut_answer_is_no_whole_one(alone: Stack) -> None:
    answer = alone.get("cut")
    assert answer.get("Content-Length") == "1000"
    assert answer.body == b"0123456789"


@pytest.mark.slow
def test_an_ide_that_says_nothing_gives_a_page_that_looks_again(alone: Stack) -> None:
    page = alone.get("silent", {"Authorization": f"token {TOKEN}", "Accept": "text/html,*/*"}, limit_s=40)
    assert page.status == 503
    assert page.get("Retry-After") == "2"
    for part in (
        b"The IDE does not answer yet",
        b"has said nothing for 15 s",
        b'http-equiv="refresh"',
        b"fake IDE starts",
    ):
        assert part in page.body
    assert f"GET {alone.prefix}silent: The IDE took the request and has said nothing for 15 s." in alone.text()


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "application/json, text/event-stream"])
async def test_events_come_one_by_one(alone: Stack, accept: str) -> None:
    """The backend sends its second event only after we have told that we have the first."""
    async with alone.session() as session, session.get(alone.url("gated"), headers={"Accept": accept}) as answer:
        assert await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 10) == b"data: first\n\n"
        await session.post(alone.url("release"))
        assert await asyncio.wait_for(answer.content.read(), 10) == b"data: second\n\n"


async def test_a_reader_that_leaves_is_told_to_the_backend(alone: Stack) -> None:
    before = told(alone, "GET", "x")["seen"].count("reader left")
    async with alone.session() as session, session.get(alone.url("stream?events=600")) as answer:
        await answer.content.readany()
    async with alone.session() as session:
        for _ in range(100):
            async with session.get(alone.url("x")) as answer:
                if (await answer.json())["seen"].count("reader left") > before:
                    return
            await asyncio.sleep(0.02)
    raise AssertionError("the backend was not told")


@pytest.mark.slow
async def test_big_bodies_pass_in_constant_memory(alone: Stack) -> None:
    size = 100 << 20
    before = peak_memory_mib(alone)

    async def body() -> Any:
        for _ in range(size >> 16):
            yield bytes(1 << 16)

    async with alone.session() as session:
        async with session.post(alone.url("swallow"), data=body()) as answer:
            assert (await answer.json())["size"] == size
        async with session.get(alone.url(f"pour?size={size}")) as answer:
            received = 0
            async for chunk in answer.content.iter_any():
                received += len(chunk)
        assert received == size
    assert peak_memory_mib(alone) - before < 24


async def test_websocket_messages_of_any_size(alone: Stack) -> None:
    big = os.urandom(12 << 20)
    async with alone.session() as session, session.ws_connect(alone.url("socket"), max_msg_size=0) as connection:
        await connection.send_str("text é")
        assert await connection.receive_str() == "text é"
        await connection.send_bytes(big)
        assert await connection.receive_bytes() == big


async def test_the_backend_chooses_the_subprotocol(alone: Stack) -> None:
    async with alone.session() as session:
        async with session.ws_connect(alone.url("socket"), protocols=("first", "second")) as connection:
            assert connection.protocol == "second"
        async with session.ws_connect(alone.url("socket?hello")) as connection:
            assert connection.protocol is None
            names = {name.lower() for name in await connection.receive_json()}
    assert "authorization" not in names


async def test_a_refused_websocket_keeps_its_status(alone: Stack) -> None:
    async with alone.session() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(alone.url("socket?refuse"))
    assert caught.value.status == 409


async def test_a_closed_websocket_is_closed_behind(alone: Stack) -> None:
    async with alone.session() as session:
        async with session.ws_connect(alone.url("socket")) as connection:
            await connection.close(code=4001)
        for _ in range(100):
            async with session.get(alone.url("x")) as answer:
                if "socket closed 4001" in (await answer.json())["seen"]:
                    return
            await asyncio.sleep(0.02)
    seen = alone.get("x").json()["seen"]
    raise AssertionError(f"the backend's websocket stayed open: {seen}")


def test_upgrades_carry_the_security_headers(alone: Stack) -> None:
    request = (
        f"GET {alone.prefix}socket HTTP/1.1\r\nHost: 127.0.0.1:{alone.port}\r\nAuthorization: token {TOKEN}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", alone.port), 10) as connection:
        connection.sendall(request.encode())
        head = connection.recv(65536).decode()
    assert head.startswith("HTTP/1.1 101")
    for name in SECURITY:
        assert f"\r\n{name.lower()}: " in head.lower()


@pytest.mark.parametrize("path", ["", "x", "proxy/{ide}/", "socket"])
async def test_anonymous_websockets_are_refused(alone: Stack, path: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(alone.url(path.format(ide=alone.ide_port)))
    assert caught.value.status == 403


@pytest.mark.parametrize("path", ["", "x?y=1", "proxy/{ide}/"])
def test_anonymous_pages_lead_to_the_login_and_writes_nowhere(alone: Stack, path: str) -> None:
    path = path.format(ide=alone.ide_port)
    page = alone.get(path, {})
    assert page.status == 302
    assert (page.get("Location") or "").startswith(f"{alone.prefix}login?next=")
    assert alone.ask("POST", path, {}, b"x").status == 403
    assert alone.get(path, {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}).status == 403


def test_refusals_keep_the_connection(alone: Stack) -> None:
    """Answered inside `prepare`, tornado closes the connection; the hub's proxy gives the next request a 503."""
    refused = f"POST {alone.prefix}x HTTP/1.1\r\nHost: 127.0.0.1:{alone.port}\r\nContent-Length: 3\r\n\r\nabc"
    odd = f"PROPFIND {alone.prefix}x HTTP/1.1\r\nHost: 127.0.0.1:{alone.port}\r\nContent-Length: 3\r\n\r\nabc"
    with socket.create_connection(("127.0.0.1", alone.port), 10) as connection:
        for request, status in ((refused, 403), (odd, 405), (refused, 403), (odd, 405)):
            connection.sendall(request.encode())
            answer = read_answer(connection)
            assert answer.status == status
            assert answer.get("Connection") != "close"


def test_two_lengths_and_other_malformed_requests_are_400(alone: Stack) -> None:
    host = f"Host: 127.0.0.1:{alone.port}\r\nAuthorization: token {TOKEN}\r\nConnection: close\r\n"
    encoded = alone.prefix.replace("alice", "al%69ce", 1)
    for target in (alone.url("x"), f"{alone.prefix}../x", f"{alone.prefix}%2e%2e/x", encoded):
        assert alone.raw(f"GET {target} HTTP/1.1\r\n{host}\r\n".encode()).status == 400, target
    both = f"POST {alone.prefix}x HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert alone.raw(both.encode()).status == 400


@pytest.mark.parametrize(
    "spelling",
    ["absolute/{0}/", "localhost:{0}/", "127.0.0.1:{0}/", "0{0}/", "absolute/localhost:0{0}/", "127.0.0.1%3A{0}/"],
)
def test_no_spelling_of_a_private_port_is_proxied(alone: Stack, spelling: str) -> None:
    for port in (alone.ide_port, alone.port):
        assert alone.get("proxy/" + spelling.format(port)).status == 403


def test_no_port_is_taken_modulo_65536(alone: Stack) -> None:
    """getaddrinfo(3) does: /proxy/PORT+65536/ reached every private port."""
    for port in (alone.ide_port, alone.port):
        for spelling in ("{0}/", "localhost:{0}/", "absolute/{0}/"):
            assert alone.get("proxy/" + spelling.format(port + 65536)).status == 400


def test_no_path_becomes_another_host_s_address(alone: Stack) -> None:
    for target in ("//evil.example/?token=x", "/\\evil.example/?token=x", "/%5cevil.example/../?token=x"):
        answer = alone.get(target)
        assert (answer.status, answer.get("Location")) == (400, None), target


def test_other_ports_are_jupyter_server_proxy_s(alone: Stack) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(10)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", alone.port), 10) as visitor:
            visitor.sendall(
                f"GET {alone.prefix}proxy/{port}/mine HTTP/1.1\r\nHost: 127.0.0.1:{alone.port}\r\n"
                f"Authorization: token {TOKEN}\r\n\r\n".encode()
            )
            app, _ = listener.accept()
            with app:
                assert app.recv(65536).startswith(b"GET /mine ")
                app.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            assert b" 200 " in visitor.recv(65536)


def test_foreign_pages_change_nothing(alone: Stack) -> None:
    cookie = login(alone)
    assert alone.ask("POST", "x", {"Cookie": cookie}, b"1").status == 200
    assert alone.ask("POST", "x", {"Cookie": cookie, **FROM_BROWSER}, b"1").status == 403
    assert alone.ask("POST", "x", {"Cookie": cookie, "Origin": "https://evil.example"}, b"1").status == 403
    upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    assert alone.get("socket", {"Cookie": cookie, **upgrade, "Origin": "https://evil.example"}).status == 403


def test_service_workers_are_refused(alone: Stack) -> None:
    token = {"Authorization": f"token {TOKEN}", "Service-Worker": "script"}
    for path in ("sw.js", f"proxy/{alone.ide_port}/sw.js", "proxy/3000/sw.js", "files/sw.js"):
        assert alone.get(path, token).status == 403
    own = "stable-1/static/out/vs/workbench/contrib/webview/browser/pre/service-worker.js"
    assert alone.get(own, token).status == 200


def test_a_token_in_the_address_moves_to_the_cookie(alone: Stack) -> None:
    answer = alone.get(f"?folder=/w&token={TOKEN}&x=", {})
    assert answer.status == 302
    assert answer.get("Location") == f"{alone.prefix}?folder=%2Fw&x="
    cookie = "; ".join(value.partition(";")[0] for value in answer.all("Set-Cookie"))
    assert alone.get("x", {"Cookie": cookie}).status == 200


def test_a_foreign_host_is_refused(alone: Stack) -> None:
    """DNS rebinding: a page's own name that points to 127.0.0.1."""
    assert alone.get("x", {"Host": "evil.example", "Authorization": f"token {TOKEN}"}).status == 403
