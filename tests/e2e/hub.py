"""A real JupyterHub with its real proxy, on free ports, for one test session."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from calliope_agent.launcher import process

ROOT = Path(__file__).parents[2]
START_S = 60
STOP_S = 20


class Failed(AssertionError):
    """The hub did not do what the test asked; the message holds the end of its log."""


@dataclass(kw_only=True)
class Hub:
    """``async with Hub(...)``: the hub runs. Servers are spawned and asked by the REST API."""

    folder: Path
    proxy: Path
    """configurable-http-proxy's executable."""
    environment: Mapping[str, str]
    """What every spawned server gets."""
    servers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Server name → further variables of that server."""
    command: tuple[str, ...] = (sys.executable, "-m", "calliope_agent", "launch")
    python: str = field(default_factory=lambda: os.environ.get("E2E_HUB_PYTHON", sys.executable))
    """The interpreter that has the hub."""
    domain: str = ""
    """Where it is set, each person has a subdomain of it; a name below ``localhost`` is this machine to every browser."""
    tls: bool = False
    """Hub, proxy and servers speak TLS with each other, by the hub's own certificates (``internal_ssl``)."""
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    admin_password: str = field(default_factory=lambda: secrets.token_urlsafe(33))
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    async def __aenter__(self) -> Self:
        self.port, hub_port, proxy_port = free_ports(3)
        # Sockets lie below it, whose paths may be 107 bytes at most: pytest's own folders are too deep.
        self.runtime = tempfile.TemporaryDirectory(prefix="cal-e2e-")
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        told = {
            "root": str(self.folder), "port": self.port, "hub_port": hub_port, "proxy_port": proxy_port,
            "proxy_command": [str(self.proxy)], "proxy_token": secrets.token_hex(16), "password": self.password,
            "admin_password": self.admin_password, "token": self.token, "runtime": self.runtime.name,
            "environment": {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)), **self.environment},
            "servers": {name: dict(more) for name, more in self.servers.items()}, "command": self.command,
            "subdomain_host": self.url if self.domain else "", "tls": self.tls,
        }  # fmt: skip
        self.log = self.folder / "hub.log"
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "E2E_HUB": json.dumps(told)}
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.python, "-m", "jupyterhub", "-f", str(Path(__file__).with_name("jupyterhub_config.py")),
                cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True, preexec_fn=ends_with_us,
            )  # fmt: skip
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"token {self.token}", "Host": urlsplit(self.url).netloc},
            timeout=aiohttp.ClientTimeout(total=30),
        )
        try:
            await self._answers()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for user in ("alice", "bob", "admin"):
            await self._stop_servers(user)
        await self.session.close()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
        self.runtime.cleanup()

    @property
    def url(self) -> str:
        """Without its last slash."""
        return f"http://{self.domain or '127.0.0.1'}:{self.port}"

    def home(self, user: str) -> Path:
        return self.folder / "home" / user

    def runtime_of(self, server: str) -> Path:
        return Path(self.runtime.name) / server[:20]

    async def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One call of the REST API as the test's own service: status and JSON (or None)."""
        async with self.session.request(method, f"http://127.0.0.1:{self.port}/hub/api{path}", json=body) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else None

    async def spawn(self, user: str, server: str = "") -> str:
        """Start the server and wait until the hub says ready; returns its address with the last slash."""
        await self.api("POST", f"/users/{user}")
        path = f"/users/{user}/servers/{server}" if server else f"/users/{user}/server"
        status, said = await self.api("POST", path, {})
        if status not in (201, 202, 400):
            raise Failed(f"spawning {server!r}: {status} {said}\n{self.tail()}")
        for _ in range(600):
            _, model = await self.api("GET", f"/users/{user}")
            found = model["servers"].get(server)
            if found and found["ready"]:
                return urljoin(self.url, str(found["url"]))
            if found is None or (not found["ready"] and not found["pending"]):
                break
            await asyncio.sleep(0.2)
        raise Failed(f"the server {server!r} of {user} did not become ready\n{self.tail()}")

    async def stop(self, user: str, server: str) -> None:
        await self.api("DELETE", f"/users/{user}/servers/{server}")
        for _ in range(200):
            _, model = await self.api("GET", f"/users/{user}")
            if not model["servers"].get(server, {}).get("pending") and server not in _running(model):
                return
            await asyncio.sleep(0.1)
        raise Failed(f"the server {server!r} did not stop\n{self.tail()}")

    async def token_of(self, user: str) -> str:
        """A new API token that acts as the person."""
        await self.api("POST", f"/users/{user}")
        status, said = await self.api("POST", f"/users/{user}/tokens", {"note": "test"})
        if status != 201:
            raise Failed(f"a token for {user}: {status} {said}")
        return str(said["token"])

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def _answers(self) -> None:
        for _ in range(START_S * 10):
            if self.process.returncode is not None:
                raise Failed(f"the hub ended with {self.process.returncode}\n{self.tail()}")
            try:
                if (await self.api("GET", "/"))[0] == 200:
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        raise Failed(f"the hub did not start within {START_S} s\n{self.tail()}")

    async def _stop_servers(self, user: str) -> None:
        try:
            _, model = await self.api("GET", f"/users/{user}")
            for name in _running(model or {}):
                await self.stop(user, name)
        except (aiohttp.ClientError, TimeoutError, Failed):
            pass  # the hub itself is ended next, and its children with it


def _running(model: Mapping[str, Any]) -> list[str]:
    return [name for name, server in model.get("servers", {}).items() if server.get("ready") or server.get("pending")]


def ends_with_us() -> None:
    """In the child: a killed test run leaves no hub behind."""
    process.prctl(process.PR_SET_PDEATHSIG, signal.SIGTERM)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now; taken together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
