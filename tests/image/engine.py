"""podman, and one container of ours in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CAPABILITIES = ("SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE")
START_S = 120  # a bound for failures on a busy machine, not a promise


def podman(*words: str, check: bool = True, timeout: float = 600, given: str | None = None) -> str:
    """Its standard output."""
    done = subprocess.run(
        ["podman", *words], capture_output=True, text=True, timeout=timeout, check=False, input=given
    )  # fmt: skip
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(words[:3])}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def missing() -> str:
    """Why no image can be built here; empty when it can."""
    if shutil.which("podman") is None:
        return "podman is needed (Debian: apt-get install podman buildah runc)"
    if subprocess.run(["podman", "info"], capture_output=True, timeout=60, check=False).returncode != 0:
        return "podman does not work here: `podman info` says why"
    return ""


def build() -> str:
    """The image's name: WAIIDE_TEST_IMAGE if that is set, else what ``make image`` builds. Layers are cached."""
    given = os.environ.get("WAIIDE_TEST_IMAGE")
    if given:
        return given
    name = "localhost/waiide:image-test"
    words = ["make", "-C", str(ROOT), "image", f"IMAGE={name}", "CONTAINER_ENGINE=podman"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return name


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def until(looked: Callable[[], Any], what: str, limit_s: float = START_S) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := looked():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {limit_s:g} s: {what}")


class Running:
    """A started container on the machine's own network, on ports of its own, bound to the loopback."""

    def __init__(self, name: str, ports: Sequence[int], token: str) -> None:
        self.name, self.token = name, token
        self.port, self.ide_port, self.agent_port = ports
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str, timeout: float = 10) -> tuple[int, str]:
        """Status and text; 0 when nobody answers."""
        join = "&" if "?" in path else "?"
        try:
            with self._opener.open(
                f"http://127.0.0.1:{self.port}{path}{join}token={self.token}", timeout=timeout
            ) as answer:  # fmt: skip
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode(errors="replace")
        except (OSError, ValueError):
            return 0, ""

    def status(self) -> dict[str, Any]:
        code, text = self.get("/api/status")
        found: dict[str, Any] = json.loads(text) if code == 200 else {}
        return found

    def ready(self) -> dict[str, Any]:
        try:
            until(lambda: self.status().get("state") == "running", "a running server")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log()}") from exc
        return self.status()

    def log(self) -> str:
        done = subprocess.run(["podman", "logs", self.name], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def run(self, *words: str, user: str = "", check: bool = True) -> str:
        """A command in the container, by default as its own user."""
        return podman("exec", *(["--user", user] if user else []), self.name, *words, check=check)

    def processes(self) -> list[tuple[int, str]]:
        """User id and command line of each process."""
        lines = podman("top", self.name, "-eo", "uid,args").splitlines()[1:]
        return [(int(uid), args) for uid, args in (line.strip().split(maxsplit=1) for line in lines)]

    def stop(self) -> tuple[float, int]:
        """Seconds it took, and the exit code."""
        started = time.monotonic()
        podman("stop", "-t", "10", self.name)
        return time.monotonic() - started, int(podman("inspect", self.name, "--format", "{{.State.ExitCode}}"))

    def start(self) -> None:
        podman("start", self.name)

    def healthy(self) -> bool:
        done = subprocess.run(["podman", "healthcheck", "run", self.name], capture_output=True, timeout=60, check=False)
        return done.returncode == 0


@contextmanager
def container(
    image: str, *options: str, env: dict[str, str] | None = None, root: bool = True, network: str = "host"
) -> Iterator[Running]:
    """``root``: with the five capabilities that the README names; every other one is dropped in any case."""
    ports, token, name = free_ports(3), uuid.uuid4().hex, f"waiide-test-{uuid.uuid4().hex[:8]}"
    variables = {
        "PORT": str(ports[0]), "VSCODE_PORT": str(ports[1]), "CALLIOPE_AGENT_PORT": str(ports[2]),
        "JUPYTER_TOKEN": token, **(env or {}),
    }  # fmt: skip
    words = ["run", "-d", "--name", name, "--network", network, "--cap-drop", "all"]
    words += ["--security-opt", "no-new-privileges"]
    words += [word for capability in CAPABILITIES if root for word in ("--cap-add", capability)]
    words += [word for pair in variables.items() for word in ("-e", "=".join(pair))]
    try:
        podman(*words, *options, image, "calliope-agent", "launch", "--ServerApp.ip=127.0.0.1")
        yield Running(name, ports, token)
    finally:
        podman("rm", "-f", "-v", "-t", "5", name, check=False)


def volume() -> str:
    return f"waiide-test-{uuid.uuid4().hex[:8]}"


def tool(name: str) -> str | None:
    """A program of tests/image/requirements.lock: in IMAGE_TOOLS, beside this Python, or on PATH."""
    beside = [os.environ.get("IMAGE_TOOLS", ""), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(filter(None, beside)))


def plain(text: str) -> str:
    """Without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
