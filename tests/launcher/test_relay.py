"""The TCP door to the IDE's socket looks at Host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from calliope_agent.launcher import relay
from tests.launcher.stack import free_port


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n", "reached"),
        ("GET / HTTP/1.1\r\nhost:  LOCALHOST:{port} \r\n\r\n", "reached"),
        ("GET / HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n", "421"),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET / HTTP/1.0\r\n\r\n", "421"),
    ],
)
async def test_only_the_loopback_s_names_pass(tmp_path: Path, head: str, expected: str) -> None:
    async def ide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"reached")
        writer.close()

    socket, port = tmp_path / "s", free_port()
    async with await asyncio.start_unix_server(ide, str(socket)):
        door = relay.Relay(port, socket)
        await door.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.format(port=port).encode())
        assert expected in (await asyncio.wait_for(reader.read(), 5)).decode()
        writer.close()
        door.close()


def test_by_default_only_where_the_loopback_is_the_container_s_own() -> None:
    assert relay.wanted("true", {}, container=False)
    assert not relay.wanted("false", {}, container=True)
    assert not relay.wanted("auto", {}, container=False)
    assert not relay.wanted("auto", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, container=True)
