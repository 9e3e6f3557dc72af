"""How the IDE is started: its command line, its environment, and the person's folders.

Decisions
1. Flags and environment both say what the server is, because some hold only in one of the two: ``PORT`` in the
   environment beats ``--bind-addr``, ``VSCODE_IPC_HOOK_CLI`` makes a start into "open in the running one".
2. Authentication is off in the server: only the launcher's proxy reaches its 0600 socket, and a second login would be a
   second password to leak.
3. One folder in the home, ``~/.calliope-ide``, as the desktop edition has it: settings in ``User/``, extensions beside
   it. Sockets lie in the runtime directory: homes may be network file systems and are shared by a person's servers.
4. Settings are seeded once and then the person's. Nothing is written over, not even a default that changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import ide_files
from calliope_agent.launcher.ide_install import IdeInstall

OURS = ("code-server",)
# From an IDE's own terminal or a container's environment: each would make this server someone else's or move it.
UNSET_PREFIXES = ("CODE_SERVER_", "VSCODE_", "CS_")
UNSET = frozenset({"PORT", "PASSWORD", "HASHED_PASSWORD", "ELECTRON_RUN_AS_NODE", "EXTENSIONS_GALLERY"})
KEPT = frozenset({"VSCODE_PORT"})
LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error", "CRITICAL": "error"}
# VS Code keeps the extension host of a closed tab (some 190 MB) this long, three hours unless told: long enough for a
# lunch with the laptop shut, not for a forgotten tab.
RECONNECTION_GRACE_S = 3600
LONGEST_SOCKET_PATH = 107  # sun_path of unix(7) holds 108 bytes, one of them the end


@dataclass(frozen=True, slots=True)
class IdeCommand:
    """What to start, for ``subprocess``."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class IdePlace:
    """Where the IDE listens and lives, and whose it is."""

    home: Path
    runtime_dir: Path
    """Machine-local and 0700; the unix socket lies here as ``ide.sock``."""
    tcp: tuple[str, int] | None = None
    """Address and port instead of the unix socket."""
    prefix: str = "/"
    """The instance's root as the browser sees it, with its slashes: for the links to the person's other ports."""
    read_only: bool = False
    """The home cannot be written: settings and extensions live in the runtime directory, as long as the server."""

    @property
    def socket(self) -> Path:
        return self.runtime_dir / "ide.sock"

    @property
    def workspace(self) -> Path:
        made = self.home / "workspace"
        return made if not self.read_only or made.is_dir() else self.home

    @property
    def user_data(self) -> Path:
        return self.runtime_dir / "ide-data" if self.read_only else self.home / ".calliope-ide"

    @property
    def extensions(self) -> Path:
        return self.user_data / "extensions"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdeOptions:
    """The operator's choices; values as the variables hold them."""

    command: tuple[str, ...] = ()
    """WAIIDE_IDE_COMMAND in words: nothing or ``code-server`` is the one we install; otherwise see `command`."""
    gallery: str = "none"
    """WAIIDE_EXTENSIONS_GALLERY: none, default, or a gallery as a JSON object."""
    log_level: str = "INFO"


def command(install: IdeInstall | None, place: IdePlace, options: IdeOptions, environ: Mapping[str, str]) -> IdeCommand:
    """The command of the IDE; ``environ`` is the children's allow-listed environment.

    Another server's command line (WAIIDE_IDE_COMMAND) may hold ``$SOCKET``, ``$HOST``, ``$PORT``, ``$PREFIX``,
    ``$USER_DATA``, ``$EXTENSIONS``, ``$WORKSPACE``, ``$LOG_LEVEL``; no shell runs it.
    Raises ConfigError when the command is not usable or nothing is installed.
    """
    if options.command not in ((), OURS):
        argv = _other(place, options)
    elif install is None:
        raise ConfigError("No IDE is installed. Run `calliope-agent ide install`, or set WAIIDE_IDE_COMMAND.")
    else:
        argv = (str(install.node), str(install.entry), "--config", str(install.config), *_flags(place, options))
    return IdeCommand(argv, _environment(place, options, environ), place.workspace)


def prepare(place: IdePlace) -> None:
    """Make the person's folders and seed the settings where there are none. To be called as the person.

    Raises ConfigError when the home cannot be written; the same place as ``read_only`` can be prepared then.
    """
    try:
        if not place.read_only:
            place.workspace.mkdir(parents=True, exist_ok=True)
        place.extensions.mkdir(parents=True, exist_ok=True)
        (place.user_data / "User").mkdir(exist_ok=True)
        _seed(place.user_data / "User" / "settings.json")
        # VS Code trusts this list for the whole first start after an update and would show the old extensions.
        for old in place.user_data.glob("CachedProfilesData/*/extensions.builtin*.cache"):
            old.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(f"The IDE's folders cannot be made in {place.home}: {exc}. Free or mend the home.") from exc


def _seed(target: Path) -> None:
    """Exclusive creation follows no symlink, not even a dangling one."""
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "wb") as file:
        file.write((ide_files.folder() / "settings.json").read_bytes())


def _flags(place: IdePlace, options: IdeOptions) -> tuple[str, ...]:
    return (
        "--auth", "none",
        *_listen(place),
        "--session-socket", _socket(place.runtime_dir / "ide-cli.sock"),
        "--user-data-dir", str(place.user_data),
        "--extensions-dir", str(place.extensions),
        "--app-name", "WAIIDE",
        "--log", LEVELS.get(options.log_level, "info"),
        "--disable-telemetry",
        "--disable-update-check",
        "--disable-getting-started-override",
        "--disable-proxy",
        "--ignore-last-opened",
        "--reconnection-grace-time", str(RECONNECTION_GRACE_S),
        str(place.workspace),
    )  # fmt: skip


def _listen(place: IdePlace) -> tuple[str, ...]:
    if place.tcp is None:
        return "--socket", _socket(place.socket), "--socket-mode", "600"
    host, port = place.tcp
    return "--bind-addr", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _socket(path: Path) -> str:
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ConfigError(f"{path} is too long for a unix socket. Set CALLIOPE_RUNTIME_DIR to a shorter path.")
    return str(path)


def _other(place: IdePlace, options: IdeOptions) -> tuple[str, ...]:
    host, port = place.tcp or ("", "")
    values = {
        "SOCKET": str(place.socket),
        "HOST": host,
        "PORT": str(port),
        "PREFIX": place.prefix,
        "USER_DATA": str(place.user_data),
        "EXTENSIONS": str(place.extensions),
        "WORKSPACE": str(place.workspace),
        "LOG_LEVEL": LEVELS.get(options.log_level, "info"),
    }
    try:
        return tuple(Template(word).substitute(values) for word in options.command)
    except (ValueError, KeyError) as exc:
        raise ConfigError(
            f"WAIIDE_IDE_COMMAND cannot be read: {exc}. Known placeholders: {', '.join(values)}."
        ) from exc


def _environment(place: IdePlace, options: IdeOptions, environ: Mapping[str, str]) -> dict[str, str]:
    env = {name: value for name, value in environ.items() if name in KEPT or not _unset(name)}
    env["HOME"] = str(place.home)
    env["CS_DISABLE_GETTING_STARTED_OVERRIDE"] = "1"
    env["VSCODE_PROXY_URI"] = f"{place.prefix}proxy/{{{{port}}}}/"
    gallery = _gallery(options.gallery)
    if gallery is not None:
        env["EXTENSIONS_GALLERY"] = gallery
    _outgoing(env)
    return env


def _unset(name: str) -> bool:
    return name in UNSET or name.startswith(UNSET_PREFIXES)


def _gallery(text: str) -> str | None:
    if text == "default":
        return None
    if text in ("none", ""):
        return "{}"
    try:
        readable = isinstance(json.loads(text), dict)
    except ValueError:
        readable = False
    if not readable:
        raise ConfigError("WAIIDE_EXTENSIONS_GALLERY must be none, default, or a gallery as a JSON object.")
    return text


def _outgoing(env: dict[str, str]) -> None:
    """Node reads neither the proxy variables nor SSL_CERT_FILE by itself, and would ask the proxy for the agent."""
    if env.get("SSL_CERT_FILE"):
        env.setdefault("NODE_EXTRA_CA_CERTS", env["SSL_CERT_FILE"])
    if not any(env.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")):
        return
    env.setdefault("NODE_USE_ENV_PROXY", "1")
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in env.get(name, "").split(",") if host]
        env[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost", "::1"]))
