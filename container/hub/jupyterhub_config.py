"""JupyterHub for one machine with Docker: one WAIIDE container a person and server.

    pip install 'jupyterhub>=5' dockerspawner jupyterhub-idle-culler oauthenticator
    WAIIDE_DOMAIN=hub.example.com OIDC_ISSUER=... jupyterhub -f jupyterhub_config.py

Everything site-specific comes from the environment of the hub: see the table in ../README.md, "Environment Variables".

Decisions
1. The reference's ``name_template = '{servername}'`` lets anybody take anybody's container: the name of a server is the
   person's to choose, and DockerSpawner removes or restarts whatever container has it. So the names are made here, from
   the user, the service and a hash over both as they were typed.
2. Where a domain is given every person gets an origin of their own (``alice.hub.example.com``) with ``__Host-`` cookies.
   On one origin, pages of one person's server could act in another's: good enough for a trial, not for strangers.
3. Provider keys are files on the host, mounted read-only and readable by the agent's user (990) alone: no ``docker
   inspect``, no environment, no terminal shows them.
"""

import hashlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote

from jupyterhub import handlers
from jupyterhub.handlers import base
from tornado import web

c = get_config()  # noqa: F821 - JupyterHub gives it

DOMAIN = os.environ.get("WAIIDE_DOMAIN", "")
AGENT_UID, PERSON_UID, PERSON_GID = 990, 1000, 100


# --- names --------------------------------------------------------------------------------------------------------------

SERVER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def slug(text: str, longest: int) -> str:
    """What a container's name may hold; unique only together with the hash."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:longest].strip("-") or "x"


def short_hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def container_name(user: str, server: str) -> str:
    """``{user}-{service}-{hash}``; the service is what the server is called, without the user's name before it."""
    service = server.removeprefix(f"{user.lower()}-") or "waiide"
    return f"{slug(user, 20)}-{slug(service, 24)}-{short_hash(user, server)}"


def name_of(told: dict) -> str:
    """The user's name as the identity provider has it.

    Checked before JupyterHub makes its letters small: Unicode has a Kelvin sign that becomes a plain k, and with it a
    person would become another one.
    """
    name = told.get(os.environ.get("OIDC_USERNAME_CLAIM", "preferred_username"))
    if not isinstance(name, str) or not USER_NAME.fullmatch(name):
        raise web.HTTPError(403, "This user name cannot be used here. Ask the administrator for another.")
    return name


def name_it(spawner) -> None:
    """The pre_spawn_hook: names and volumes that are this person's and nobody else's."""
    user, server = spawner.user.name, spawner.name
    if not USER_NAME.fullmatch(user) or ".." in user:
        raise web.HTTPError(400, "This user name cannot name a home folder. Ask the administrator for another.")
    if server and not SERVER_NAME.fullmatch(server):
        raise web.HTTPError(400, "A server's name is made of small letters, digits and dashes, at most 48 of them.")
    # Both: DockerSpawner renders the template again when the image changes.
    spawner.name_template = spawner.object_name = container_name(user, server)
    whose = f"{slug(user, 20)}-{short_hash(user)}"
    spawner.volumes = {
        f"waiide-home-{whose}": f"/home/{user}",
        f"waiide-agent-{whose}": "/var/lib/calliope-agent",
    }


# --- the reference's template ---------------------------------------------------------------------------------------------

c.JupyterHub.allow_named_servers = True
c.JupyterHub.redirect_to_server = False  # the home page, where servers are named, instead of a nameless one
c.JupyterHub.named_server_limit_per_user = int(os.environ.get("WAIIDE_SERVERS_PER_USER", "0"))
c.JupyterHub.active_server_limit = int(os.environ.get("WAIIDE_ACTIVE_SERVERS", "0"))
c.JupyterHub.concurrent_spawn_limit = 10
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = os.environ.get("WAIIDE_IMAGE", "calliopeai/waiide:latest")
c.DockerSpawner.pull_policy = os.environ.get("WAIIDE_PULL_POLICY", "ifnotpresent")
c.DockerSpawner.port = 8070
c.Spawner.default_url = "/"
c.Spawner.pre_spawn_hook = name_it
c.DockerSpawner.environment = {
    "USE_ALL_COMPONENTS": "true",
    "LOG_LEVEL": os.environ.get("LOG_LEVEL", "INFO"),
    "VSCODE_PORT": "8071",
}
c.DockerSpawner.mem_limit = os.environ.get("WAIIDE_MEMORY", "4G")
c.DockerSpawner.cpu_limit = float(os.environ.get("WAIIDE_CPUS", "2"))

# --- the container's walls ------------------------------------------------------------------------------------------------

c.DockerSpawner.remove = True  # a container is cattle, the volumes are the person's
c.DockerSpawner.network_name = os.environ.get("WAIIDE_NETWORK", "waiide")
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.extra_host_config = {
    "cap_drop": ["ALL"],
    # What the launcher needs to become two users, to end their processes, and to reach their folders afterwards.
    "cap_add": ["SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 1024,
    "init": False,  # tini is in the image
}

# One file a key, named like its variable in small letters: openai_api_key, anthropic_api_key, ...
# chown 990 and chmod 0400 them; the agent reads a changed file anew, nobody needs to restart.
KEYS = os.environ.get("WAIIDE_KEYS_DIR", "")
if KEYS:
    c.DockerSpawner.read_only_volumes = {KEYS: "/run/secrets/waiide"}
    c.DockerSpawner.environment |= {
        f"{file.name.upper()}_FILE": f"/run/secrets/waiide/{file.name}" for file in sorted(Path(KEYS).glob("*_key"))
    } | {"CALLIOPE_REQUIRE_KEY_SEPARATION": "true"}

# --- times ----------------------------------------------------------------------------------------------------------------

c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
c.Spawner.poll_interval = 30
c.Spawner.poll_jitter = 0.2

# --- where the hub listens ------------------------------------------------------------------------------------------------

c.JupyterHub.bind_url = os.environ.get("WAIIDE_BIND_URL", "http://:8000")
c.JupyterHub.hub_ip = os.environ.get("WAIIDE_HUB_IP", "0.0.0.0")  # noqa: S104 - containers reach it over their network
c.JupyterHub.hub_connect_ip = os.environ.get("WAIIDE_HUB_NAME", "")  # the hub's name on WAIIDE_NETWORK
c.JupyterHub.db_url = os.environ.get("WAIIDE_DATABASE", "sqlite:///jupyterhub.sqlite")
c.JupyterHub.cookie_secret_file = os.environ.get("WAIIDE_COOKIE_SECRET_FILE", "jupyterhub_cookie_secret")
c.JupyterHub.cleanup_servers = False  # a restart of the hub leaves people's servers running
c.ConfigurableHTTPProxy.should_start = os.environ.get("WAIIDE_OWN_PROXY", "true") == "true"

if DOMAIN:
    # A wildcard name and certificate are needed: *.DOMAIN beside DOMAIN.
    c.JupyterHub.public_url = f"https://{DOMAIN}/"
    c.JupyterHub.subdomain_host = f"https://{DOMAIN}"
    c.JupyterHub.cookie_host_prefix_enabled = True
    c.JupyterHub.tornado_settings = {
        "headers": {"Strict-Transport-Security": "max-age=31536000"},
        "xsrf_cookie_kwargs": {"secure": True},
    }

# --- who may enter --------------------------------------------------------------------------------------------------------

if os.environ.get("OIDC_ISSUER"):
    issuer = os.environ["OIDC_ISSUER"].rstrip("/")
    c.JupyterHub.authenticator_class = "generic-oauth"
    c.GenericOAuthenticator.client_id = os.environ["OIDC_CLIENT_ID"]
    c.GenericOAuthenticator.client_secret = os.environ["OIDC_CLIENT_SECRET"]
    c.GenericOAuthenticator.authorize_url = os.environ.get(
        "OIDC_AUTHORIZE_URL", f"{issuer}/protocol/openid-connect/auth"
    )
    c.GenericOAuthenticator.token_url = os.environ.get("OIDC_TOKEN_URL", f"{issuer}/protocol/openid-connect/token")
    c.GenericOAuthenticator.userdata_url = os.environ.get(
        "OIDC_USERDATA_URL", f"{issuer}/protocol/openid-connect/userinfo"
    )
    c.GenericOAuthenticator.scope = ["openid", "profile", "email"]
    c.GenericOAuthenticator.username_claim = name_of
    allowed = os.environ.get("OIDC_ALLOWED_GROUPS", "")
    if allowed:
        c.GenericOAuthenticator.manage_groups = True
        c.GenericOAuthenticator.auth_state_groups_key = "oauth_user.groups"
        c.GenericOAuthenticator.allowed_groups = set(allowed.split(","))
    else:
        c.GenericOAuthenticator.allow_all = True
    c.Authenticator.auto_login = True
elif os.environ.get("WAIIDE_TRIAL_PASSWORD"):
    c.JupyterHub.authenticator_class = "shared-password"
    c.SharedPasswordAuthenticator.user_password = os.environ["WAIIDE_TRIAL_PASSWORD"]
    c.Authenticator.allow_all = True
elif "generate" not in " ".join(sys.argv):
    sys.exit("Nobody could log in: set OIDC_ISSUER and its fellows, or WAIIDE_TRIAL_PASSWORD to try it out.")
c.Authenticator.admin_users = set(filter(None, os.environ.get("WAIIDE_ADMINS", "").split(",")))

# --- idle servers ---------------------------------------------------------------------------------------------------------

IDLE_S = int(os.environ.get("WAIIDE_IDLE_S", "7200"))
if IDLE_S:
    # What happens in a server is told to the hub every five minutes only: a shorter limit would cull people at work.
    told_every_s = max(1, min(300, IDLE_S // 4))
    c.JupyterHub.last_activity_interval = told_every_s
    c.DockerSpawner.environment |= {"JUPYTERHUB_ACTIVITY_INTERVAL": str(told_every_s)}
    c.JupyterHub.services = [
        {
            "name": "idle-culler",
            "command": [
                sys.executable,
                "-m",
                "jupyterhub_idle_culler",
                f"--timeout={IDLE_S}",
                f"--cull-every={told_every_s}",
            ],
        }
    ]
    c.JupyterHub.load_roles = [
        {
            "name": "idle-culler",
            "services": ["idle-culler"],
            "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        }
    ]


# --- addresses of old -----------------------------------------------------------------------------------------------------


class OldAddress(base.UserUrlHandler):
    """``/user/NAME/waiide/...`` of the time when a person had one server: to the server they have now.

    The hub sees such an address only while no server answers there itself. Its query and the rest of its path are kept;
    ``/WAIIDE`` and ``/ide`` were the IDE, which is the root now.
    """

    @web.authenticated
    async def get(self, user_name: str, user_path: str | None) -> None:
        owner = self.find_user(user_name)
        if owner is None or owner.name != self.current_user.name or "waiide" in owner.spawners:
            await super().get(user_name, f"/waiide{user_path or ''}")
            return
        named = owner.all_spawners(include_default=False)
        names = sorted(named, key=lambda one: (not one.ready, one.name))
        chosen = next((one for one in names if "waiide" in one.name), names[0] if names else None)
        if chosen is None:
            self.redirect(f"{self.hub.base_url}home")
            return
        rest = re.sub(r"^/(WAIIDE|ide)(?=/|$)", "", user_path or "").lstrip("/")
        query = f"?{self.request.query}" if self.request.query else ""
        self.redirect(f"{owner.server_url(chosen.name)}{quote(rest)}{query}")


# Before the hub's own rule for /user/..., which extra_handlers would come after.
handlers.default_handlers.insert(0, (r"/user/(?P<user_name>[^/]+)/waiide(?P<user_path>/.*)?", OldAddress))
