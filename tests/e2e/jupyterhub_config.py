"""The hub of the end-to-end tests. Everything that differs from run to run comes from the environment (see hub.py)."""

import json
import os
from pathlib import Path
from typing import Any

import jupyterhub  # type: ignore[import-untyped]

told = json.loads(os.environ["E2E_HUB"])
root = Path(told["root"])
c = get_config()  # type: ignore[name-defined]  # noqa: F821 - traitlets puts it there

c.JupyterHub.bind_url = f"http://127.0.0.1:{told['port']}"
inside = "https" if told["tls"] else "http"
c.JupyterHub.hub_bind_url = f"{inside}://127.0.0.1:{told['hub_port']}"
c.JupyterHub.subdomain_host = told["subdomain_host"]
c.JupyterHub.internal_ssl = told["tls"]
c.JupyterHub.internal_certs_location = f"{root}/certificates"
c.JupyterHub.db_url = f"sqlite:///{root}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{root}/cookie_secret"
c.ConfigurableHTTPProxy.api_url = f"{inside}://127.0.0.1:{told['proxy_port']}"
c.ConfigurableHTTPProxy.command = told["proxy_command"]
c.ConfigurableHTTPProxy.pid_file = f"{root}/proxy.pid"
c.ConfigurableHTTPProxy.auth_token = told["proxy_token"]
# SharedPasswordAuthenticator came with 5.3; before it the one for tests took one password for everybody.
c.JupyterHub.authenticator_class = "shared-password" if jupyterhub.version_info >= (5, 3) else "dummy"
if jupyterhub.version_info < (5, 3):
    c.DummyAuthenticator.password = told["password"]
c.SharedPasswordAuthenticator.user_password = told["password"]
c.SharedPasswordAuthenticator.admin_password = told["admin_password"]
c.Authenticator.allowed_users = {"alice", "bob"}
c.Authenticator.admin_users = {"admin"}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.services = [{"name": "ci", "api_token": told["token"]}]
c.JupyterHub.load_roles = [
    {
        "name": "ci-role",
        "services": ["ci"],
        "scopes": ["admin:users", "admin:servers", "tokens", "list:users", "read:hub", "access:servers"],
    },
]
c.JupyterHub.last_activity_interval = 5
c.JupyterHub.redirect_to_server = False  # a login starts nothing that no test asked for


c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = f"{root}/home/{{username}}"


def own_folders(spawner: Any) -> None:
    """Each server has its runtime directory, and what the test asks for it by name."""
    folder = Path(told["runtime"]) / (spawner.name or spawner.user.name)[:20]
    spawner.environment = {
        **told["environment"],
        "CALLIOPE_RUNTIME_DIR": str(folder),
        **told["servers"].get(spawner.name, {}),
    }


c.Spawner.pre_spawn_hook = own_folders
c.Spawner.cmd = told["command"]
c.Spawner.default_url = "/"
c.Spawner.http_timeout = 90
c.Spawner.start_timeout = 90
