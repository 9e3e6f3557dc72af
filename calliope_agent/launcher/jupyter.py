"""How Jupyter is started: ``jupyterhub-singleuser`` under a hub, ``jupyter server`` alone; both with our extension.

Decisions
1. The extensions are switched on by command line, which beats every configuration file: a person's own configuration
   cannot leave a server without its guard.
2. The stand-alone token goes by the environment, not by argv, where every process of the machine could read it.
3. Alone on the loopback the Host check stays on (DNS rebinding); in a container the published port has any name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from calliope_agent.launcher import isolated
from calliope_agent.launcher.hub import Hub

EXTENSION = "calliope_agent.launcher.extension"
EXTENSIONS = "--ServerApp.jpserver_extensions"
LOG_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def argv(hub: Hub, *, address: tuple[str, int], root: Path, log_level: str, extra: Sequence[str]) -> tuple[str, ...]:
    """``extra`` is what the spawner added to the launcher's own command line (``c.Spawner.args``)."""
    common = (
        f"{EXTENSIONS}={EXTENSION}=True",
        f"{EXTENSIONS}=jupyter_server_proxy=True",
        f"--ServerApp.log_level={LOG_LEVELS[log_level]}",
        f"--ServerApp.root_dir={root}",
        f"--ServerApp.preferred_dir={root}",
        "--ServerApp.open_browser=False",
        *(["--ServerApp.allow_root=True"] if os.geteuid() == 0 else []),
    )
    if hub.present:
        return isolated.argv("jupyterhub.singleuser", *_without(common, extra), *extra)
    host, port = address
    alone = (
        f"--ServerApp.ip={host}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.base_url={hub.prefix}",
        "--ServerApp.default_url=/",
        f"--ServerApp.allow_remote_access={host not in ('127.0.0.1', '::1', 'localhost')}",
    )
    return isolated.argv("jupyter_server", *_without((*common, *alone), extra), *extra)


def _without(ours: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    """Jupyter refuses an option given twice, and the spawner's word wins; extensions add up."""
    given = {word.partition("=")[0] for word in extra} - {EXTENSIONS}
    return tuple(word for word in ours if word.partition("=")[0] not in given)


def environment(base: Mapping[str, str], hub: Hub, token: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """``base`` is `childenv.for_jupyter` with the agent's names; ``inherited`` names the descriptors it gets."""
    env = {**base, **inherited}
    env.pop("JUPYTERHUB_SINGLEUSER_APP", None)  # it and the next exclude each other
    if hub.present:
        env["JUPYTERHUB_SINGLEUSER_EXTENSION"] = "1"
    else:
        env["JUPYTER_TOKEN"] = token
    return env
