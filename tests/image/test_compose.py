"""The compose file, really brought up twice through podman's Docker socket: files survive `down` and `up`."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.image.engine import ROOT, Running, free_ports, podman, tool, until
from tests.image.hub import podman_service

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

# Without a bridge network the machine's own is used; everything else is the file as it is.
HOST_NETWORK = "services: {waiide: {network_mode: host, ports: !reset []}}\n"


def test_files_survive_down_and_up(image: str, tmp_path: Path) -> None:
    compose = tool("docker-compose")
    if compose is None:
        pytest.skip("docker-compose is not installed (make image-test installs it)")
    (tmp_path / "host.yaml").write_text(HOST_NETWORK)
    ports, token, project = free_ports(2), uuid.uuid4().hex, f"waiide-test-{uuid.uuid4().hex[:8]}"
    with podman_service(tmp_path) as socket:
        environ = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "USER": "alice", "DOCKER_HOST": f"unix://{socket}",
            "WAIIDE_IMAGE": image, "PORT": str(ports[0]), "VSCODE_PORT": str(ports[1]), "JUPYTER_TOKEN": token,
        }  # fmt: skip
        files = ["-f", str(ROOT / "container" / "compose.yaml"), "-f", str(tmp_path / "host.yaml")]

        def run(*words: str) -> None:
            done = subprocess.run(
                [compose, "-p", project, *files, *words], capture_output=True, text=True, timeout=200, env=environ, check=False
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        running = Running(f"{project}-waiide-1", [*ports, 0], token)
        prefix = "/user/alice/alice-waiide-local"
        try:
            for turn in range(2):
                run("up", "-d", "--no-build", "--pull", "never")
                until(lambda: running.get(f"{prefix}/health")[0] == 200, "health")
                until(lambda: '"state": "running"' in running.get(f"{prefix}/api/status")[1], "all of it")
                if turn == 0:
                    podman("exec", "--user", "1000:100", running.name, "touch", "/home/calliope/workspace/kept")
                assert podman("exec", running.name, "ls", "/home/calliope/workspace") == "kept"
                run("down")
        finally:
            run("down", "-v")
