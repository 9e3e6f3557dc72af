"""A real JupyterHub with the shipped template, and podman's Docker socket for its spawner."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.image.engine import ROOT, free_ports, podman, tool, until
from tests.image.test_life import provider

SERVER = "same-waiide-abc123"
PASSWORD = "a-password-for-everybody"
PEOPLE = ("alice", "bob")


@dataclass(frozen=True)
class Tls:
    """A certificate for ``host``, every name below it, and 127.0.0.1. Its authority is itself."""

    host: str
    certificate: Path
    key: Path

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


class Hub:
    """The hub's API with a service's token, and visitors with a browser's cookies."""

    def __init__(self, port: int, token: str, tls: Tls | None = None) -> None:
        self.port, self._token = port, token
        self._scheme = "https" if tls else "http"
        self._host = f"{tls.host if tls else '127.0.0.1'}:{port}"
        self.origin = f"{self._scheme}://{self._host}"
        self._handlers = [urllib.request.HTTPSHandler(context=tls.context)] if tls else []
        self._opener = urllib.request.build_opener(*self._handlers)

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        # By number: no resolver but a browser's knows names below localhost.
        url = f"{self._scheme}://127.0.0.1:{self.port}/hub/api{path}"
        headers = {"host": self._host, "authorization": f"token {self._token}"}
        request = urllib.request.Request(url, data, headers, method=method)
        return self._answer(request)

    def server(self, user: str) -> dict[str, Any]:
        _, told = self.api("GET", f"/users/{user}?include_stopped_servers=true")
        found: dict[str, Any] = told["servers"].get(SERVER, {}) if isinstance(told, dict) else {}
        return found

    def start(self, user: str) -> None:
        if self.server(user).get("ready"):
            return
        code, told = self.api("POST", f"/users/{user}/servers/{SERVER}", {})
        assert code in (201, 202), told
        until(lambda: self.server(user).get("ready"), f"{user}'s server", 180)

    def stop(self, user: str) -> None:
        self.api("DELETE", f"/users/{user}/servers/{SERVER}")
        until(lambda: not self.server(user).get("ready") and not self.server(user).get("pending"), "its end", 60)

    def token_of(self, user: str) -> str:
        _, made = self.api("POST", f"/users/{user}/tokens", {"note": "test"})
        return str(made["token"])

    def as_user(self, user: str, path: str) -> tuple[int, str]:
        return self.visit(path, self.token_of(user))

    def visit(self, path: str, token: str) -> tuple[int, str]:
        request = urllib.request.Request(f"{self.origin}{path}", headers={"authorization": f"token {token}"})
        try:
            with self._opener.open(request, timeout=60) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode(errors="replace")

    def browser(self, user: str) -> urllib.request.OpenerDirector:
        """Logged in at the hub's own page."""
        jar = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar), *self._handlers)
        opener.open(f"{self.origin}/hub/login", timeout=30).read()
        xsrf = next(cookie.value for cookie in jar if cookie.name == "_xsrf")
        form = urllib.parse.urlencode({"username": user, "password": PASSWORD, "_xsrf": xsrf or ""}).encode()
        opener.open(f"{self.origin}/hub/login", form, timeout=30).read()
        return opener

    def _answer(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with self._opener.open(request, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode(errors="replace")
        except OSError as exc:
            return 0, str(exc)


def proxy_command() -> list[str]:
    folder = Path(os.environ.get("CALLIOPE_DATA_DIR") or ROOT / ".data") / "e2e" / "proxy"
    found = folder / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    if not found.exists():
        pytest.skip("JupyterHub's proxy is not installed (make e2e installs it: tests/e2e/install)")
    return ["node", str(found)]


def hub_python(*modules: str) -> Path:
    """The Python that has the hub and these; skips without it."""
    python = Path(tool("jupyterhub") or sys.executable).parent / "python"
    words = [str(python), "-c", f"import jupyterhub, {', '.join(modules)}"]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip(f"{', '.join(modules)} not installed (make image-test installs it)")
    return python


@contextlib.contextmanager
def serving(
    image: str, folder: Path, settings: Mapping[str, str], *, port: int = 0, tls: Tls | None = None, gateway: str = ""
) -> Iterator[Hub]:
    """``settings``: the template's own variables, beside those that every test needs.

    ``gateway``: this machine's address on the containers' own network, which the settings name.
    """
    python = hub_python("dockerspawner", "jupyterhub_idle_culler", "oauthenticator")
    free, hub_port, proxy_port = free_ports(3)
    told = {
        "shipped": str(ROOT / "container" / "hub" / "jupyterhub_config.py"),
        "port": port or free, "hub_port": hub_port, "proxy_port": proxy_port, "proxy": proxy_command(),
        "token": secrets.token_hex(16), "tls": [str(tls.key), str(tls.certificate)] if tls else None,
        "gateway": gateway,
    }  # fmt: skip
    with provider(50) as variables, podman_service(folder) as socket:
        told["environment"] = variables
        environ = {
            **os.environ, "IMAGE_HUB": json.dumps(told), "DOCKER_HOST": f"unix://{socket}", "WAIIDE_IMAGE": image,
            "WAIIDE_PULL_POLICY": "never", "WAIIDE_MEMORY": "1G", **settings,
        }  # fmt: skip
        log = folder / "hub.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [python, "-m", "jupyterhub", "-f", Path(__file__).parent / "hub_config.py"],
                env=environ, cwd=folder, stdout=sink, stderr=subprocess.STDOUT,
            )  # fmt: skip
        found = Hub(port or free, str(told["token"]), tls)
        try:
            until(lambda: found.api("GET", "/users")[0] == 200, f"the hub, {log}", 90)
            yield found
        finally:
            for user in PEOPLE:
                with contextlib.suppress(AssertionError):
                    found.stop(user)
            process.terminate()
            process.wait(30)
            print(log.read_text()[-6000:])
            remove_volumes()


@contextlib.contextmanager
def own_network(image: str) -> Iterator[tuple[str, str]]:
    """A bridge network's name and this machine's address on it; skips where none can be made."""
    name = f"waiide-test-{secrets.token_hex(4)}"
    podman("network", "create", name)
    try:
        # The address is there as long as a container is.
        words = ["run", "-d", "--name", name, "--network", name, "--entrypoint", "/bin/sleep", image, "3600"]
        if subprocess.run(["podman", *words], capture_output=True, timeout=120, check=False).returncode:
            pytest.skip("no bridge network can be made here")
        told = json.loads(podman("inspect", name))[0]["NetworkSettings"]["Networks"][name]
        yield name, str(told["Gateway"])
    finally:
        podman("rm", "-f", "-t", "1", name, check=False)
        podman("network", "rm", "-f", name, check=False)


def remove_volumes() -> None:
    prefixes = tuple(f"waiide-{kind}-{user}-" for kind in ("home", "agent") for user in PEOPLE)
    for name in podman("volume", "ls", "-q", check=False).splitlines():
        if name.startswith(prefixes):
            podman("volume", "rm", "-f", name, check=False)


@contextlib.contextmanager
def podman_service(folder: Path) -> Iterator[Path]:
    """podman's Docker API on a socket."""
    socket = folder / "podman.sock"
    process = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{socket}"])
    try:
        until(socket.exists, "podman's socket", 30)
        yield socket
    finally:
        process.terminate()
        process.wait(20)


def names_of(user: str) -> list[str]:
    """The person's containers."""
    return [name for name in podman("ps", "--format", "{{.Names}}").splitlines() if name.startswith(f"{user}-")]
