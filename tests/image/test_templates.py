"""The files that operators take: checked by the tools that read them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.image.engine import ROOT, plain, tool

pytestmark = pytest.mark.image

CONTAINER = ROOT / "container"


def run(name: str, *words: str, env: dict[str, str] | None = None, cwd: Path = CONTAINER) -> str:
    """What the tool says; fails with it. Skips where the tool is not installed."""
    found = tool(name)
    if found is None:
        pytest.skip(f"{name} is not installed (make image-test installs it)")
    done = subprocess.run(
        [found, *words], capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env={**os.environ, **(env or {})}
    )  # fmt: skip
    assert done.returncode == 0, plain(done.stdout + done.stderr)
    return done.stdout + done.stderr


def test_hadolint_finds_nothing() -> None:
    assert plain(run("hadolint", "Dockerfile")) == ""


def test_the_compose_file_is_sound_as_written(tmp_path: Path) -> None:
    run("docker-compose", "-f", "compose.yaml", "--env-file", "/dev/null", "config", "-q", env={"USER": "alice"})
    told = run("docker-compose", "-f", "compose.yaml", "--env-file", ".env.example", "config", env={"USER": "alice"})
    assert "JUPYTERHUB_SERVICE_PREFIX: /user/alice/alice-waiide-abc123/" in told
    assert "target: /home/calliope" in told


def test_the_pods_are_valid_and_the_keys_are_the_sidecar_s_alone(tmp_path: Path) -> None:
    if tool("kubernetes-validate") is None:
        pytest.skip("kubernetes-validate is not installed (make image-test installs it)")
    python = str(Path(tool("kubernetes-validate") or sys.executable).parent / "python")
    script, values = Path(__file__).parent / "manifests.py", CONTAINER / "hub" / "kubernetes-values.yaml"
    done = subprocess.run(
        [python, str(script), str(values), str(tmp_path)], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = [str(tmp_path / "pod.yaml"), str(tmp_path / "pvc.yaml"), str(CONTAINER / "hub" / "kubernetes-quota.yaml")]
    run("kubernetes-validate", "--strict", *files)


def test_the_chart_s_proxy_looks_at_names_where_people_have_their_own() -> None:
    """It runs apart, so that the hub cannot start it with the flag; without it no person's host leads anywhere."""
    values = yaml.safe_load((CONTAINER / "hub" / "kubernetes-values.yaml").read_text())
    domain = urlsplit(values["hub"]["config"]["JupyterHub"]["subdomain_host"]).hostname
    assert "--host-routing" in values["proxy"]["chp"]["extraCommandLineFlags"]
    for hosts in (values["ingress"]["hosts"], *(one["hosts"] for one in values["ingress"]["tls"])):
        assert set(hosts) == {domain, f"*.{domain}"}


@pytest.mark.parametrize("template", ["jupyterhub_config.py", "kubernetes-values.yaml"])
def test_no_user_s_name_becomes_another_s(template: str) -> None:
    """JupyterHub makes letters small after the provider has said the name: the Kelvin sign would become a k."""
    if tool("jupyterhub") is None:
        pytest.skip("jupyterhub is not installed (make image-test installs it)")
    python = str(Path(tool("jupyterhub") or sys.executable).parent / "python")
    script = Path(__file__).parent / "usernames.py"
    oidc = {"OIDC_ISSUER": "https://id.example", "OIDC_CLIENT_ID": "x", "OIDC_CLIENT_SECRET": "y"}
    done = subprocess.run(
        [python, str(script), str(CONTAINER / "hub" / template), "kate", "Kate@x.org", "\u212aate", "k/../ate", "kate\n"],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **oidc},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["kate", "kate@x.org", "403", "403", "403"]


def test_a_broken_manifest_would_be_found(tmp_path: Path) -> None:
    found = tool("kubernetes-validate")
    if found is None:
        pytest.skip("kubernetes-validate is not installed (make image-test installs it)")
    (tmp_path / "pod.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}\n")
    assert subprocess.run([found, "--strict", tmp_path / "pod.yaml"], capture_output=True, check=False).returncode == 1
