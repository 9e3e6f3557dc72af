"""Limits, stops, restarts, and everything around it that may be away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.image.engine import Running, container, free_ports, podman, until, volume

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

TOKEN = "cal-" + "t" * 40
EVENTS, EVERY_S = 2000, 0.02


class Words(BaseHTTPRequestHandler):
    """A provider that tells a long story, one word at a time."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            for number in range(self.server.events):  # type: ignore[attr-defined]
                self.event({"content": f"w{number} "}, None)
                time.sleep(EVERY_S)
            self.event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass

    def event(self, delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        told = {"id": "x", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice]}
        self.wfile.write(b"data: " + json.dumps(told).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def provider(events: int) -> Iterator[dict[str, str]]:
    """The variables that point an agent at it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Words)
    server.daemon_threads = True
    server.events = events  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {
            "OPENAI_API_KEY": "sk-canary-life-12345678",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
            "CALLIOPE_AGENT_TOKEN": TOKEN,
        }
    finally:
        server.shutdown()
        server.server_close()


def ask(running: Running) -> Any:
    """An answer that is still being written."""
    body = {"model": "openai/gpt-4o", "stream": True, "messages": [{"role": "user", "content": "a story"}]}
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{running.agent_port}/v1/chat/completions"
    return urlopen(Request(url, json.dumps(body).encode(), headers), timeout=60)


def test_sigterm_in_a_stream_is_told_to_its_reader(image: str) -> None:
    with provider(EVENTS) as variables, container(image, env=variables) as running:
        running.ready()
        with ask(running) as answer:
            assert answer.readline().startswith(b"data: ")
            ended: list[tuple[float, int]] = []
            stopping = threading.Thread(target=lambda: ended.append(running.stop()))
            stopping.start()
            rest = answer.read()
            stopping.join()
        assert b"server_stopping" in rest
        assert b"[DONE]" not in rest
        took, code = ended[0]
        assert code == 143
        assert took < 9


def test_it_starts_again_and_the_files_are_there(image: str) -> None:
    home, keys = volume(), volume()
    try:
        with container(image, "-v", f"{home}:/home/calliope", "-v", f"{keys}:/var/lib/calliope-agent") as running:
            running.ready()
            running.run("touch", "/home/calliope/workspace/mine", user="1000:100")
            running.stop()
            running.start()
            running.ready()
            assert running.run("ls", "/home/calliope/workspace") == "mine"
            podman("kill", "--signal", "KILL", running.name)
            running.start()
            running.ready()
    finally:
        podman("volume", "rm", "-f", home, keys, check=False)


def test_without_any_network_everything_here_works(image: str) -> None:
    with container(image, network="none") as running:
        until(running.healthy, "health without a network")
        until(lambda: "Jupyter Server" in running.log(), "Jupyter without a network")
        assert "Traceback" not in running.log()


def test_a_hub_that_is_away_is_said_and_waited_for(image: str) -> None:
    hub, port = free_ports(2)
    variables = {
        "JUPYTERHUB_API_TOKEN": "t" * 32,
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub}/hub/api",
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/alice/one/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/one/",
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_SERVER_NAME": "one",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice-one",
        "JUPYTERHUB_ACTIVITY_URL": f"http://127.0.0.1:{hub}/hub/api/users/alice/activity",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/alice/one/oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!server=alice/one"]',
    }
    with container(image, env=variables) as running:
        running.port = port
        until(lambda: running.get("/health")[0] == 200, "health without a hub")
        until(running.healthy, "the image's own check")
        until(lambda: "does not answer yet" in running.log(), "the launcher's word on the hub")
        assert "Running as named server: one for user: alice" in running.log()
        assert running.run("stat", "-c", "%u", "/home/alice") == "1000"
        took, code = running.stop()
        assert (code, took < 9) == (143, True)


def test_a_disk_that_runs_full_stops_nothing(image: str) -> None:
    with provider(50) as variables, container(image, "--tmpfs=/home/calliope:rw,size=1m", env=variables) as running:
        running.ready()
        fill = "cat /dev/zero > /home/calliope/big 2>/dev/null; df --output=avail /home/calliope | tail -1"
        assert running.run("/bin/bash", "-c", fill).strip() == "0"
        with ask(running) as answer:
            assert answer.read().count(b"data: ") == 52
        running.run("pkill", "-f", "entry.js")
        until(lambda: running.status()["services"]["WAIIDE"].get("restarts", 0) >= 1, "the IDE's end")
        until(lambda: running.status()["services"]["WAIIDE"]["status"] == "running", "the IDE on a full disk")
        assert running.healthy()
