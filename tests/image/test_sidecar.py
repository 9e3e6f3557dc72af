"""As in a pod: the agent in a container of its own with the keys, the person's container beside it without them."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.engine import Running, container, podman, until
from tests.image.test_life import TOKEN, ask, provider

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

KEY = "sk-canary-sidecar-5d1e8a77"
MANAGE = "cal-" + "m" * 40
HARDENED = ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp")


@pytest.fixture
def pod(image: str, tmp_path: Path) -> Iterator[tuple[Running, str]]:
    """The person's container and the agent's name."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "openai_api_key").write_text(KEY)
    (secrets / "openai_api_key").chmod(0o440)
    tmp_path.chmod(0o755)
    name = f"waiide-test-{uuid.uuid4().hex[:8]}"
    with provider(50) as variables:
        env = {"CALLIOPE_AGENT_TOKEN": TOKEN, "CALLIOPE_MANAGE_TOKEN": MANAGE}
        main = container(image, *HARDENED, "--user", "1000:100", env=env, root=False)
        words = ["run", "-d", "--name", name, "--network", "host", "--cap-drop", "all", "--user", "990:0", *HARDENED]
        words += ["--security-opt", "no-new-privileges", "-v", f"{secrets}:/run/secrets/waiide:ro"]
        told = {
            **env, "HOME": "/tmp/home", "OPENAI_API_KEY_FILE": "/run/secrets/waiide/openai_api_key",
            "OPENAI_BASE_URL": variables["OPENAI_BASE_URL"], "CALLIOPE_REQUIRE_KEY_SEPARATION": "true",
            "CALLIOPE_STATE_DIR": "/tmp/calliope-state", "CALLIOPE_AGENT_PORT": "0",
        }  # fmt: skip
        try:
            podman(
                *words, *[w for pair in told.items() for w in ("-e", "=".join(pair))], image, "calliope-agent", "serve"
            )
            until(lambda: "listens at" in logs(name), f"the agent {logs(name)}", 60)
            url = logs(name).partition("listens at ")[2].split()[0]
            env["CALLIOPE_AGENT_URL"] = url
            with main as running:
                running.agent_port = int(url.rpartition(":")[2])
                yield running, name
        finally:
            podman("rm", "-f", "-t", "5", name, check=False)


def logs(name: str) -> str:
    done = subprocess.run(["podman", "logs", name], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_the_agent_serves_the_container_beside_it_and_keeps_the_key(pod: tuple[Running, str]) -> None:
    running, agent = pod
    services = running.ready()["services"]
    assert services["agent"]["status"] == "running"
    assert not [args for _, args in running.processes() if "calliope_agent serve" in args]
    with ask(running) as answer:
        assert answer.read().count(b"data: ") == 52
    assert KEY not in running.run(
        "/bin/bash", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'; ls -R /run", check=False
    )
    assert "healthy" in podman("exec", agent, "/opt/calliope/bin/healthcheck")
