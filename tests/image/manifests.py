"""The pod and the volume claim that KubeSpawner makes of the values: ``manifests.py VALUES FOLDER``. No cluster is asked.

Run by a Python that has jupyterhub-kubespawner, with KUBECONFIG=FOLDER/kubeconfig, which is read at import. Also asserts
what only the manifest shows.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import yaml
from jupyterhub.objects import Hub, Server  # type: ignore[import-untyped]
from kubernetes_asyncio.client import ApiClient  # type: ignore[import-not-found]
from kubespawner import KubeSpawner  # type: ignore[import-not-found]
from traitlets.config import Config

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: x, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: x, context: {cluster: x, user: x}}]
current-context: x
users: [{name: x, user: {}}]
"""


class Alice:
    """As much of a hub's user as the spawner looks at."""

    name = escaped_name = "alice"
    id, url, host, admin = 1, "/user/alice/", "", False
    server = Server()
    orm_user = None
    groups: tuple[str, ...] = ()


async def main(told: dict[str, Any], folder: Path) -> None:
    config = Config()
    config.KubeSpawner.update(told["config"]["KubeSpawner"])
    names: dict[str, Any] = {"c": config}
    exec(told["extraConfig"]["10-waiide"], names)
    spawner = KubeSpawner(hub=Hub(), user=Alice(), config=config, _mock=True)
    spawner.api_token, spawner.oauth_client_id = "t" * 32, "x"
    pod = names["pair_with_agent"](spawner, await spawner.get_pod_manifest())
    api = ApiClient()
    made = {
        "pod": api.sanitize_for_serialization(pod),
        "pvc": api.sanitize_for_serialization(spawner.get_pvc_manifest()),
    }
    await api.close()
    for name, manifest in made.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
    check(made["pod"]["spec"])


def check(spec: dict[str, Any]) -> None:
    main, agent = spec["containers"]
    mounts = {one["name"]: [mount["name"] for mount in one["volumeMounts"]] for one in (main, agent)}
    assert "keys" not in mounts["notebook"], mounts
    assert "keys" in mounts["agent"], mounts
    assert main["startupProbe"]["periodSeconds"] * main["startupProbe"]["failureThreshold"] == 120
    for one in (main, agent):
        security = one["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
    tokens = [{e["name"]: e["value"] for e in one["env"] if e["name"].endswith("_TOKEN")} for one in (main, agent)]
    assert tokens[0]["CALLIOPE_AGENT_TOKEN"] == tokens[1]["CALLIOPE_AGENT_TOKEN"]
    assert "JUPYTERHUB_API_TOKEN" not in tokens[1]
    assert spec["automountServiceAccountToken"] is False


if __name__ == "__main__":
    made_in = Path(sys.argv[2])
    (made_in / "kubeconfig").write_text(KUBECONFIG)
    asyncio.run(main(yaml.safe_load(Path(sys.argv[1]).read_text())["hub"], made_in))
