# mypy: ignore-errors
"""The shipped hub template in a test: what differs is here, told in IMAGE_HUB as JSON.

Containers share the machine's network, where the providers of the tests are, unless a network of their own is told.
"""

import json
import os
import socket

from dockerspawner import DockerSpawner

told = json.loads(os.environ["IMAGE_HUB"])
c = get_config()  # noqa: F821 - JupyterHub gives it
load_subconfig(told["shipped"])  # noqa: F821 - and this

shipped_hook = c.Spawner.pre_spawn_hook


class OnThisMachine(DockerSpawner):
    """Containers share the machine's network: an address is the loopback and a port of their own."""

    async def get_ip_and_port(self):
        return "127.0.0.1", self.port


def hook(spawner):
    shipped_hook(spawner)
    held = [socket.socket() for _ in range(3)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    spawner.port, ide, agent = (one.getsockname()[1] for one in held)
    for one in held:
        one.close()
    spawner.environment = {
        **spawner.environment,
        "VSCODE_PORT": str(ide),
        "CALLIOPE_AGENT_PORT": str(agent),
        **told["environment"],
    }


if told["gateway"]:
    hub_ip = told["gateway"]  # the shipped template listens everywhere; a test need not
else:
    hub_ip = "127.0.0.1"
    c.JupyterHub.spawner_class = OnThisMachine
    c.Spawner.pre_spawn_hook = hook
    c.DockerSpawner.network_name = "host"
if told["tls"]:
    c.JupyterHub.ssl_key, c.JupyterHub.ssl_cert = told["tls"]
c.JupyterHub.bind_url = f"{'https' if told['tls'] else 'http'}://127.0.0.1:{told['port']}"
c.JupyterHub.hub_bind_url = f"http://{hub_ip}:{told['hub_port']}"
c.JupyterHub.hub_ip = hub_ip
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{told['proxy_port']}"
c.ConfigurableHTTPProxy.command = told["proxy"]
c.JupyterHub.services = [*c.JupyterHub.services, {"name": "checks", "api_token": told["token"]}]
c.JupyterHub.load_roles = [
    *c.JupyterHub.load_roles,
    {
        "name": "checks",
        "services": ["checks"],
        "scopes": ["admin:users", "admin:servers", "tokens", "list:users", "access:servers"],
    },
]
