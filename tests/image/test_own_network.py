"""The hub's template as shipped, spawner and addresses included: each container behind its own address on a bridge.

Apart from the other tests of the hub: two hubs on one engine would give their containers the same names.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.image.engine import podman
from tests.image.hub import PASSWORD, SERVER, names_of, own_network, serving

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]


def test_the_template_s_own_network_carries_all_of_it(image: str, tmp_path: Path) -> None:
    with own_network(image) as (name, gateway):
        settings = {"WAIIDE_TRIAL_PASSWORD": PASSWORD, "WAIIDE_NETWORK": name, "WAIIDE_HUB_NAME": gateway}
        with serving(image, tmp_path, settings, gateway=gateway) as found:
            found.api("POST", "/users/alice")
            found.start("alice")
            code, page = found.as_user("alice", f"/user/alice/{SERVER}/?folder=/home/alice/workspace")
            assert (code, "workbench" in page) == (200, True), page[-500:]
            ports = podman("inspect", names_of("alice")[0], "--format", "{{.NetworkSettings.Ports}}")
            assert "127.0.0.1" not in ports
            assert "0.0.0.0" not in ports
            # A neighbour on the network, who has no login: the door and nothing behind it.
            address = json.loads(podman("inspect", names_of("alice")[0]))[0]["NetworkSettings"]["Networks"][name][
                "IPAddress"
            ]
            script = (
                "import socket\n"
                "for port in (8070, 8071, 8072):\n"
                f"    with socket.socket() as s:\n        if s.connect_ex(({address!r}, port)) == 0: print(port)"
            )
            assert podman("exec", name, "python3", "-c", script) == "8070"
