"""The main port goes from the front to Jupyter without ever closing; without Jupyter's help it still goes."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calliope_agent.launcher import handover, ports
from tests.launcher.stack import Stack

REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def server_of(port: int) -> str:
    """Who answers on the port: the front says no name."""
    with socket.create_connection(("127.0.0.1", port), 20) as visitor:
        visitor.sendall(REQUEST)
        answer = b""
        while part := visitor.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    return "jupyter" if b"\r\nServer: TornadoServer" in answer else "front"


def test_the_port_never_closes_between_front_and_jupyter(tmp_path: Path) -> None:
    stack, seen, sockets = Stack(tmp_path), list[str](), list[set[str]]()
    stack.start()
    deadline = time.monotonic() + 40
    try:
        while "jupyter" not in seen and time.monotonic() < deadline:
            try:
                seen.append(server_of(stack.port))
                sockets.append(ports._listeners(stack.port))
            except OSError:
                assert not seen, f"nobody listens after {len(seen)} answers"
    finally:
        stack.stop()
    assert seen[0] == "front"
    assert seen[-1] == "jupyter"
    assert len(sockets[0]) == 1
    assert sockets[0] == sockets[-1], "it is another socket: between the two the port was closed"


class Server(SimpleNamespace):
    """What `install` knows of Jupyter's ServerApp; it notes what it does."""

    def init_httpserver(self) -> None:
        self.done.append("init")
        if hasattr(self, handover.BIND):
            getattr(self, handover.FIND)()
            getattr(self, handover.BIND)()


def started(port: int, *, known: bool, listener: socket.socket) -> list[Any]:
    done: list[Any] = []
    own = {handover.FIND: lambda: done.append("find"), handover.BIND: lambda: done.append("bind")} if known else {}
    app = Server(port=port, sock="", done=done, http_server=SimpleNamespace(add_sockets=done.append), **own)
    environ = {"KEPT": "1", **handover.name([os.dup(listener.fileno())])}
    inherited = handover.inherited(environ)
    assert environ == {"KEPT": "1"}
    assert not any(os.get_inheritable(each.fileno()) for each in inherited)
    handover.install(app, inherited, lambda: done.append("leave"))
    app.init_httpserver()
    served = [each for each in done if isinstance(each, tuple)]
    assert all(each.fileno() == -1 for each in inherited) is not bool(served)
    for each in inherited:
        each.close()
    return ["serve" if isinstance(each, tuple) else each for each in done]


@pytest.mark.parametrize(
    ("own_port", "known", "expected"),
    [
        (False, True, ["leave", "init", "serve"]),
        (True, True, ["leave", "init", "find", "bind"]),
        (False, False, ["leave", "init"]),
    ],
)
def test_a_server_of_another_port_or_version_binds_as_ever(own_port: bool, known: bool, expected: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert started(1 if own_port else port, known=known, listener=listener) == expected


def test_nothing_is_inherited_where_nothing_was_lent() -> None:
    assert handover.name([]) == {}
    assert handover.inherited({}) == ()
