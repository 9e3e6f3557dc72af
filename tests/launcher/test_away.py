"""A hub that is away, of another age, or comes back; a home that is full. The hub is a stand-in that tells its version."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from calliope_agent.launcher.headers import SECURITY
from tests.launcher.stack import Stack, free_port, wait_for

PREFIX = "/user/alice/alice-waiide-abc123/"


@contextmanager
def hub(port: int, version: str) -> Iterator[None]:
    class Tell(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-JupyterHub-Version", version)
            self.end_headers()
            self.wfile.write(b'{"version": "%s"}' % version.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Tell)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def spawned(folder: Path, hub_port: int) -> Stack:
    """As a hub's spawner would start it."""
    stack = Stack(folder, prefix=PREFIX, arguments=())
    stack.environ |= {
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_SERVER_NAME": "alice-waiide-abc123",
        "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{stack.port}{PREFIX}",
        "JUPYTERHUB_API_TOKEN": "0123456789abcdef0123456789abcdef",
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub_port}/hub/api",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice-alice-waiide-abc123",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{PREFIX}oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!server=alice/alice-waiide-abc123"]',
        "JUPYTERHUB_BASE_URL": "/",
    }
    return stack


@pytest.mark.parametrize("version", ["4.1.6", "7.0.0"])
def test_a_hub_of_another_age_is_refused(tmp_path: Path, version: str) -> None:
    port = free_port()
    stack = spawned(tmp_path, port)
    with hub(port, version):
        stack.start()
        assert stack.process is not None
        assert stack.process.wait(30) == 1
    assert f"This hub is JupyterHub '{version}'; this launcher works with JupyterHub 5 to 6" in stack.text()
    assert stack.below() == set()


@pytest.mark.parametrize("version", ["5.0.0", "6.1.1"])
def test_the_ends_of_the_supported_range_start(tmp_path: Path, version: str) -> None:
    port = free_port()
    stack = spawned(tmp_path, port)
    with hub(port, version):
        stack.start()
        try:
            answer = wait_for(lambda: (found := stack.get("api", {})).status == 200 and found, "Jupyter")
            assert answer.get("X-JupyterHub-Version")
        finally:
            stack.stop()


def test_health_answers_while_the_hub_is_away_and_jupyter_comes_with_it(tmp_path: Path) -> None:
    port = free_port()
    stack = spawned(tmp_path, port)
    stack.start()
    try:
        wait_for(lambda: "does not answer yet" in stack.text(), "the word about the hub")
        wait_for(lambda: "Failed to connect to my Hub" in stack.text(), "Jupyter's first try")
        assert stack.get("health", {}).status == 200
        assert stack.get("/health", {}).status == 200
        waiting = stack.get("api", {})
        assert waiting.status == 503
        assert b"jupyter: running" in waiting.body
        assert waiting.get("Retry-After") == "2"
        for name, value in SECURITY.items():
            assert waiting.all(name) == [value]
        with hub(port, "6.1.1"):
            wait_for(lambda: stack.get("api", {}).status == 200, "Jupyter after the hub", 40)
            assert stack.get("health", {}).status == 200
    finally:
        stack.stop()


def test_a_full_home_is_said_and_the_rest_works(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", stack.home], check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(OSError, match="No space"):
            (stack.home / "big").write_bytes(bytes(1 << 20))
        for number in range(100):  # the last inodes and bytes
            try:
                (stack.home / f"d{number}").mkdir()
            except OSError:
                break
        stack.start()
        wait_for(lambda: stack.get("api/status").status == 200, "Jupyter")
        assert "cannot be made" in stack.text()
        assert stack.get("/health", {}).status == 200
    finally:
        stack.stop()
        subprocess.run(["umount", "-l", stack.home], check=True)
