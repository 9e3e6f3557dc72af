"""Everything that is decided before the first child starts: addresses, folders, accounts, tokens.

Decisions
1. Root in a container becomes three: the launcher stays root, Jupyter and IDE are the person (``calliope``), the agent
   is its own account (``calliope-agent``), so that no process of the person's ever held a provider's key. Root
   elsewhere (a developer's machine) stays one.
2. The tokens of the agent are the operator's when set, otherwise those in its runtime directory, where the commands of
   a terminal find them; the launcher makes them, so that the IDE need not wait for the agent.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from calliope_agent import paths
from calliope_agent.errors import ConfigError
from calliope_agent.launcher import home as homes
from calliope_agent.launcher import hub as hubs
from calliope_agent.launcher import ide, ide_install, options, ports, relay, runtime
from calliope_agent.launcher.childenv import AgentAccess
from calliope_agent.launcher.hub import Hub
from calliope_agent.launcher.options import AGENT_PORT, Options
from calliope_agent.launcher.process import Account
from calliope_agent.secret import Secret

PERSON, AGENT = "calliope", "calliope-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this launcher and its children live."""

    hub: Hub
    options: Options
    home: Path
    runtime: Path
    agent_runtime: Path
    bind: tuple[str, int]
    tls: bool
    token: Secret
    agent: AgentAccess | None
    manage_token: Secret
    agent_port: int
    ide: ide.IdePlace
    ide_install: Callable[[], ide_install.IdeInstall | None]
    relay: relay.Relay | None = None
    account: Account | None = None
    agent_account: Account | None = None
    identity: dict[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        """``~/workspace``, or the home while that could not be made."""
        return self.ide.workspace

    @property
    def agent_home(self) -> Path:
        """The person's, unless the agent is somebody of its own: the keys then lie where the person cannot look."""
        own = self.agent_account
        return self.home if own is None or own == self.account else own.home

    @property
    def agent_runs_here(self) -> bool:
        return not self.options.agent_url

    @property
    def url(self) -> str:
        """What to open in a browser; the stand-alone token is in it, as Jupyter prints it too."""
        if self.hub.present:
            return self.hub.public(self.hub.prefix.removeprefix(self.hub.base_url))
        host = "127.0.0.1" if self.bind[0] in ("", "0.0.0.0", "::") else self.bind[0]  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.bind[1]}{self.hub.prefix}"

    def hello(self) -> dict[str, Any]:
        """What the extension needs to know, over the private wire only: the manage token is in it."""
        tcp = self.ide.tcp
        return {
            "ide": {"socket": None if tcp else str(self.ide.socket), "port": tcp[1] if tcp else None},
            "ide_static": self._ide_static(),
            "ide_port": self.options.ide_port,
            "port": self.bind[1],
            "agent_url": self.agent.url if self.agent else "",
            "manage_token": self.manage_token.reveal(),
            "user": self.hub.user or _name_of(self.account.uid if self.account else os.geteuid()),
            "server_name": self.hub.server_name,
            "under_hub": self.hub.present,
            "hub_base": self.hub.host + self.hub.base_url,
            "restart_role": self.options.restart_role,
            "allow_shared": self.options.allow_shared,
            "idle_shutdown_s": self.options.idle_shutdown_s,
            "notes": list(self.options.notes),
        }

    def _ide_static(self) -> str:
        """Where our VS Code keeps its static files: below a folder named after its build."""
        install = None if self.options.ide_command not in ((), ide.OURS) else self.ide_install()
        if install is None:
            return ""
        try:
            product = json.loads((install.vscode / "product.json").read_bytes())
            return f"{product['quality']}-{product['commit']}/"
        except (OSError, ValueError, KeyError):
            return ""


def decide(environ: Mapping[str, str], extra: Sequence[str] = ()) -> Place:
    """Reads the environment and makes the home and the runtime directories. Raises `ConfigError`.

    ``extra`` are Jupyter's options: an address to bind may be among them.
    """
    hub = hubs.read(environ)
    chosen = options.read(environ, hub)
    container = homes.in_container(environ)
    account, agent_account = _accounts(container=container)
    home = homes.choose(environ, hub.user, container=container, is_mount=os.path.ismount)
    homes.prepare(home, account)
    place = runtime.make(
        chosen.runtime_dir or paths.find({**environ, "HOME": str(home)}).runtime, passable=account is not None
    )
    own = runtime.make(runtime.for_sockets(place), account)
    agent_runtime = runtime.make(place / "agent", agent_account) if agent_account else place
    tcp = (
        ("127.0.0.1", chosen.ide_port)
        if any("$PORT" in word or "${PORT}" in word for word in chosen.ide_command)
        else None
    )
    home_of_ide, notes = _prepared(ide.IdePlace(home=home, runtime_dir=own, tcp=tcp, prefix=hub.prefix), account)
    tunnel = tcp is None and relay.wanted(chosen.ide_tcp, environ, container=container)
    port = chosen.agent_port or (AGENT_PORT if ports.is_free(AGENT_PORT) else ports.any_free())
    return Place(
        hub=hub,
        options=replace(chosen, notes=(*chosen.notes, *notes)),
        home=home,
        runtime=place,
        agent_runtime=agent_runtime,
        bind=hub.bind or (_address(extra, container=container), chosen.port),
        tls=bool(environ.get("JUPYTERHUB_SSL_CERTFILE")) or urlsplit(hub.service_url).scheme == "https",
        token=chosen.token or Secret(secrets.token_urlsafe(32)),
        agent=_access(chosen, port, agent_runtime / "token", agent_account),
        manage_token=chosen.manage_token or runtime.token(agent_runtime / "manage-token", agent_account),
        agent_port=port,
        ide=home_of_ide,
        ide_install=lambda: ide_install.refreshed(_data_dir(chosen, environ, home)),
        relay=relay.Relay(chosen.ide_port, home_of_ide.socket) if tunnel else None,
        account=account,
        agent_account=agent_account,
        identity=_identity(home_of_ide, agent_runtime, hub, account),
    )


def _data_dir(chosen: Options, environ: Mapping[str, str], home: Path) -> Path:
    """Where `calliope-agent ide install` puts the IDE."""
    return chosen.data_dir or Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "calliope-agent"


def _address(extra: Sequence[str], *, container: bool) -> str:
    """Jupyter's own option wins; a container's published port needs every interface."""
    for word in extra:
        name, _, value = word.partition("=")
        if name in ("--ServerApp.ip", "--ip"):
            return value
    return "0.0.0.0" if container else "127.0.0.1"  # noqa: S104 - a published port


def _access(chosen: Options, port: int, file: Path, account: Account | None) -> AgentAccess | None:
    if not chosen.all_components:
        return None
    token = chosen.agent_token or runtime.token(file, account)
    return AgentAccess(chosen.agent_url or f"http://127.0.0.1:{port}", token)


def _prepared(place: ide.IdePlace, account: Account | None) -> tuple[ide.IdePlace, tuple[str, ...]]:
    """A full or broken home is said, not died of: the person needs the server to mend it."""
    try:
        homes.as_person(account, lambda: ide.prepare(place))
    except ConfigError as exc:
        spare = replace(place, read_only=True)
        homes.as_person(account, lambda: ide.prepare(spare))
        return spare, (
            f"{exc.message} Until then nothing can be saved there; IDE settings last as long as the server.",
        )
    return place, ()


def _identity(place: ide.IdePlace, agent_runtime: Path, hub: Hub, account: Account | None) -> dict[str, str]:
    """Jupyter's runtime files (sockets of kernels, the cookie's secret) are this machine's, whatever the home is."""
    names = {
        "HOME": str(place.home),
        "CALLIOPE_RUNTIME_DIR": str(agent_runtime),
        "JUPYTER_RUNTIME_DIR": str(place.runtime_dir / "jupyter"),
    }
    if account is not None:
        names |= {"USER": hub.user or account.name, "LOGNAME": account.name, "XDG_RUNTIME_DIR": ""}
    return names


def _accounts(*, container: bool) -> tuple[Account | None, Account | None]:
    if os.geteuid() != 0 or not container:
        return None, None
    person = _account(PERSON)
    return person, _account(AGENT) or person


def _name_of(uid: int) -> str:
    """A container may run as a user whom no file names (OpenShift's random ones)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid, name, Path(entry.pw_dir))
