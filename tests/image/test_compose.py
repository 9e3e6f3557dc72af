"""The compose file, really brought up twice through podman's Docker socket: files survive `down` and `up`."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.engine import ROOT, Running, free_ports, podman, tool, until
from tests.image.hub import podman_service

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

# Where no bridge network can be made the machine's own is used; everything else is the file as it is.
HOST_NETWORK = "services: {waiide: {network_mode: host, ports: !reset []}}\n"
PREFIX = "/user/alice/alice-waiide-local"


def bridges(image: str) -> bool:
    words = ["podman", "run", "--rm", "--network", "bridge", "--entrypoint", "/bin/true", image]
    return subprocess.run(words, capture_output=True, timeout=120, check=False).returncode == 0


def composer(folder: Path, socket: Path, project: str, variables: dict[str, str], *, own: bool) -> Callable[..., None]:
    """Runs docker-compose on the shipped file; ``own``: with the network of its own that it asks for."""
    compose = tool("docker-compose")
    if compose is None:
        pytest.skip("docker-compose is not installed (make image-test installs it)")
    (folder / "host.yaml").write_text(HOST_NETWORK)
    words = [compose, "-p", project, "-f", str(ROOT / "container" / "compose.yaml")]
    words += [] if own else ["-f", str(folder / "host.yaml")]
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "USER": "alice", "DOCKER_HOST": f"unix://{socket}", **variables,
    }  # fmt: skip

    def run(*more: str) -> None:
        done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=200, env=environ, check=False)
        assert done.returncode == 0, done.stderr

    return run


def opened(running: Running) -> list[int]:
    """Which of our ports answer at the container's own address, where its neighbours on the network would ask."""
    script = (
        "import socket\n"
        "for port in (8070, 8071, 8072):\n"
        "    with socket.socket() as s:\n"
        "        if s.connect_ex((socket.gethostbyname(socket.gethostname()), port)) == 0: print(port)"
    )
    return [int(port) for port in running.run("python3", "-c", script).split()]


def test_files_survive_down_and_up(image: str, tmp_path: Path) -> None:
    ports, token, project = free_ports(2), uuid.uuid4().hex, f"waiide-test-{uuid.uuid4().hex[:8]}"
    own = bridges(image)
    variables = {"WAIIDE_IMAGE": image, "JUPYTER_TOKEN": token}
    if own:
        variables["WAIIDE_PUBLISH"] = f"127.0.0.1:{ports[0]}"
    else:
        variables |= {"PORT": str(ports[0]), "VSCODE_PORT": str(ports[1])}
    with podman_service(tmp_path) as socket:
        run = composer(tmp_path, socket, project, variables, own=own)
        running = Running(f"{project}-waiide-1", [*ports, 0], token)
        try:
            for turn in range(2):
                run("up", "-d", "--no-build", "--pull", "never")
                until(lambda: running.get(f"{PREFIX}/health")[0] == 200, "health")
                until(lambda: '"state": "running"' in running.get(f"{PREFIX}/api/status")[1], "all of it")
                if own:
                    assert opened(running) == [8070]
                if turn == 0:
                    podman("exec", "--user", "1000:100", running.name, "touch", "/home/calliope/workspace/kept")
                assert podman("exec", running.name, "ls", "/home/calliope/workspace") == "kept"
                run("down")
        finally:
            run("down", "-v")
