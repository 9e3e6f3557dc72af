"""What is in the image, and what is not."""

from __future__ import annotations

import json
import re

import pytest

from tests.image.engine import podman

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]


def inside(image: str, script: str) -> str:
    return podman("run", "--rm", "--network", "none", "--entrypoint", "/bin/bash", image, "-c", f"{script}; true")


def test_nothing_can_be_written_and_nothing_raises_privileges(image: str) -> None:
    assert inside(image, "find /opt/calliope -not -type l \\( -perm /022 -o -not -uid 0 \\)") == ""
    assert inside(image, "find / -xdev -type f -perm /6000") == ""
    assert inside(image, "find / -xdev -name '*.pth' -not -path '/proc/*'") == ""
    written = (
        "for f in /opt/calliope /opt/calliope/venv/lib /opt/calliope/ide; do touch $f/x && echo WRITTEN; done; true"
    )
    assert "WRITTEN" not in podman(
        "run", "--rm", "--user", "1000:100", "--entrypoint", "/bin/bash", image, "-c", written
    )


def test_it_holds_no_key_and_nothing_of_the_build(image: str) -> None:
    told = json.loads(podman("image", "inspect", image))[0]
    names = [line.partition("=")[0] for line in told["Config"]["Env"]]
    assert not [name for name in names if re.search("KEY|TOKEN|SECRET|PASS", name)]
    assert (
        inside(image, "find /run/secrets /build /root/.npmrc /etc/pip.conf /root/.cache /tmp -type f 2>/dev/null") == ""
    )
    pattern = r"sk-(ant-|proj-)?[A-Za-z0-9]{32,}|AIza[0-9A-Za-z_-]{35}|-----BEGIN [A-Z ]*PRIVATE KEY-----\s*$"
    found = inside(image, f"grep -rEIl '{pattern}' /home /root /etc /var/lib/calliope-agent /opt/calliope/bin || true")
    assert found == ""


def test_only_the_main_port_is_exposed_and_health_needs_no_argument(image: str) -> None:
    told = json.loads(podman("image", "inspect", image))[0]
    assert list(told["Config"]["ExposedPorts"]) == ["8070/tcp"]
    check = told.get("Healthcheck") or told["Config"].get("Healthcheck")
    assert check["Test"] == ["CMD", "/opt/calliope/bin/healthcheck"]
    assert told["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert told["Config"]["Entrypoint"] == ["/usr/bin/tini", "--"]
    assert told["Config"]["Cmd"] == ["calliope-agent", "launch"]
    assert told["User"] == ""


def test_the_bill_of_materials_names_every_kind_of_package(image: str) -> None:
    bill = json.loads(inside(image, "cat /opt/calliope/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    refs = {one["bom-ref"].partition("@")[0] for one in bill["components"]}
    assert {"pkg:deb/debian/tini", "pkg:pypi/litellm", "pkg:pypi/calliope-agent", "pkg:npm/code-server"} <= refs


def test_the_parts_are_there(image: str) -> None:
    extensions = inside(image, "ls $(calliope-agent ide path)/node_modules/code-server/lib/vscode/extensions")
    assert "theme" in extensions
    assert [name for name in extensions.split() if name.startswith("calliope")]
    assert "git version" in inside(image, "git --version")
    # The health check has nothing to ask in a container that serves nothing.
    assert "nothing has said yet" in inside(image, "/opt/calliope/bin/healthcheck || true")
