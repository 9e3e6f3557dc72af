"""A real JupyterHub with the shipped template spawns real containers through podman's Docker socket."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.image.engine import ROOT, free_ports, podman, tool, until
from tests.image.test_life import TOKEN, provider

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

SERVER = "same-waiide-abc123"
PASSWORD = "a-password-for-everybody"


class Hub:
    """The hub's API with a service's token, and visitors with a browser's cookies."""

    def __init__(self, port: int, token: str) -> None:
        self.origin, self._token = f"http://127.0.0.1:{port}", token

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.origin}/hub/api{path}", data, method=method)
        request.add_header("authorization", f"token {self._token}")
        return self._answer(request)

    def server(self, user: str) -> dict[str, Any]:
        _, told = self.api("GET", f"/users/{user}?include_stopped_servers=true")
        found: dict[str, Any] = told["servers"].get(SERVER, {}) if isinstance(told, dict) else {}
        return found

    def start(self, user: str) -> None:
        code, told = self.api("POST", f"/users/{user}/servers/{SERVER}", {})
        assert code in (201, 202), told
        until(lambda: self.server(user).get("ready"), f"{user}'s server", 180)

    def stop(self, user: str) -> None:
        self.api("DELETE", f"/users/{user}/servers/{SERVER}")
        until(lambda: not self.server(user).get("ready") and not self.server(user).get("pending"), "its end", 60)

    def as_user(self, user: str, path: str) -> tuple[int, str]:
        _, made = self.api("POST", f"/users/{user}/tokens", {"note": "test"})
        request = urllib.request.Request(f"{self.origin}{path}")
        request.add_header("authorization", f"token {made['token']}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode(errors="replace")

    def browser(self, user: str) -> urllib.request.OpenerDirector:
        """Logged in at the hub's own page."""
        jar = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        opener.open(f"{self.origin}/hub/login", timeout=30).read()
        xsrf = next(cookie.value for cookie in jar if cookie.name == "_xsrf")
        form = urllib.parse.urlencode({"username": user, "password": PASSWORD, "_xsrf": xsrf or ""}).encode()
        opener.open(f"{self.origin}/hub/login", form, timeout=30).read()
        return opener

    def _answer(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
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


@pytest.fixture(scope="module")
def hub(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    jupyterhub = tool("jupyterhub")
    folder = tmp_path_factory.mktemp("hub")
    python = Path(jupyterhub or sys.executable).parent / "python"
    if subprocess.run([python, "-c", "import dockerspawner, jupyterhub"], capture_output=True, check=False).returncode:
        pytest.skip("dockerspawner is not installed (make image-test installs it)")
    port, hub_port, proxy_port = free_ports(3)
    told = {
        "shipped": str(ROOT / "container" / "hub" / "jupyterhub_config.py"),
        "port": port, "hub_port": hub_port, "proxy_port": proxy_port, "proxy": proxy_command(),
        "token": secrets.token_hex(16),
    }  # fmt: skip
    with provider(50) as variables, podman_service(folder) as socket:
        told["environment"] = variables
        environ = {
            **os.environ, "IMAGE_HUB": json.dumps(told), "DOCKER_HOST": f"unix://{socket}", "WAIIDE_IMAGE": image,
            "WAIIDE_TRIAL_PASSWORD": PASSWORD, "WAIIDE_PULL_POLICY": "never", "WAIIDE_MEMORY": "1G",
        }  # fmt: skip
        log = folder / "hub.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [python, "-m", "jupyterhub", "-f", Path(__file__).parent / "hub_config.py"],
                env=environ, cwd=folder, stdout=sink, stderr=subprocess.STDOUT,
            )  # fmt: skip
        found = Hub(port, str(told["token"]))
        try:
            until(lambda: found.api("GET", "/users")[0] == 200, "the hub\n" + log.read_text()[-3000:], 90)
            for user in ("alice", "bob"):
                found.api("POST", f"/users/{user}")
            yield found
        finally:
            for user in ("alice", "bob"):
                with contextlib.suppress(AssertionError):
                    found.stop(user)
            process.terminate()
            process.wait(30)
            print(log.read_text()[-6000:])
            for name in podman("volume", "ls", "-q", check=False).splitlines():
                if name.startswith(
                    ("waiide-home-alice-", "waiide-home-bob-", "waiide-agent-alice-", "waiide-agent-bob-")
                ):
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
    return [name for name in podman("ps", "--format", "{{.Names}}").splitlines() if name.startswith(f"{user}-")]


def test_two_people_with_one_server_name_stay_apart(hub: Hub) -> None:
    started = time.monotonic()
    hub.start("alice")
    print(f"spawn to ready: {time.monotonic() - started:.1f} s")
    hub.start("bob")
    alice, bob = names_of("alice"), names_of("bob")
    assert len(alice) == len(bob) == 1
    assert alice[0].startswith("alice-same-waiide-abc123-")
    podman("exec", "--user", "1000:100", alice[0], "touch", "/home/alice/workspace/hers")
    assert podman("exec", bob[0], "ls", "/home/bob/workspace") == ""
    for user, status in (("alice", 200), ("bob", 403)):
        code, page = hub.as_user(user, f"/user/alice/{SERVER}/")
        assert code == status, page[-500:]
    code, page = hub.as_user("alice", f"/user/alice/{SERVER}/?folder=/home/alice/workspace")
    assert "workbench" in page


def test_it_streams_through_the_agent_in_there(hub: Hub) -> None:
    name = names_of("alice")[0]
    script = (
        "import json,os,urllib.request as u;"
        "b=json.dumps({'model':'openai/gpt-4o','stream':True,'messages':[{'role':'user','content':'x'}]}).encode();"
        f"h={{'authorization':'Bearer {TOKEN}','content-type':'application/json'}};"
        "p=os.environ['CALLIOPE_AGENT_PORT'];"
        "print(u.urlopen(u.Request(f'http://127.0.0.1:{p}/v1/chat/completions',b,h)).read().count(b'data: '))"
    )
    assert podman("exec", "--user", "1000:100", name, "python3", "-c", script) == "52"


def test_a_file_a_setting_and_an_extension_survive_a_respawn(hub: Hub) -> None:
    files = (
        "workspace/kept",
        ".calliope-ide/User/settings.json",
        ".calliope-ide/extensions/mine.mine-1.0.0/package.json",
    )
    for file in files:
        script = f"mkdir -p $(dirname /home/alice/{file}) && echo '{{\"mine\": 1}}' > /home/alice/{file}"
        podman("exec", "--user", "1000:100", names_of("alice")[0], "bash", "-c", script)
    hub.stop("alice")
    assert names_of("alice") == []
    hub.start("alice")
    for file in files:
        assert podman("exec", names_of("alice")[0], "cat", f"/home/alice/{file}") == '{"mine": 1}'


def test_the_address_of_old_leads_to_the_server_of_now(hub: Hub) -> None:
    opener = hub.browser("alice")
    for old, new in (("waiide/lab?a=b", "lab?a=b"), ("waiide/WAIIDE/?folder=x", "?folder=x"), ("waiide", "")):
        try:
            url = opener.open(f"{hub.origin}/user/alice/{old}", timeout=60).url
        except urllib.error.HTTPError as exc:
            url = exc.url  # no JupyterLab in this image, so /lab is a 404 of the right server
        assert url.startswith(f"{hub.origin}/user/alice/{SERVER}/{new}"), url


@pytest.mark.parametrize("name", ["Bad_Name", "-x", "x" * 49, "a..b", "a%2Fb"])
def test_a_name_that_is_none_is_refused(hub: Hub, name: str) -> None:
    code, _ = hub.api("POST", f"/users/alice/servers/{name}", {})
    assert code >= 400
