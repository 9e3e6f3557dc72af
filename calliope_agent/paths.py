"""Folders: what belongs to the person lies in the home, what belongs to this machine does not.

Decisions
1. Home folders are often NFS and shared by a person's servers: keys, config.toml and extensions go there. Cache, ledger, tokens and
   sockets are this machine's and this server's, so they lie on a local disk under the server's name.
2. A folder that is a symlink or somebody else's is refused, and so is one that others could write to, unless it is still empty (a
   fresh volume): who could fill the folder owns the tokens. So does who owns a folder above it, hence what lies in a folder that
   everybody may write to (/tmp) must be ours or root's. Other folders above may be anybody's: on some platforms the home is not
   owned by the user who runs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calliope_agent.errors import ConfigError
from calliope_agent.settings import Settings

NAME = "calliope-agent"
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre", "efs"}
)


@dataclass(frozen=True, slots=True)
class Paths:
    """``config`` and ``data`` are the person's, ``state`` and ``runtime`` are this machine's. Nothing is made before it is needed."""

    config: Path
    data: Path
    state: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def agent_file(self) -> Path:
        return self.runtime / "agent.json"

    @property
    def token_file(self) -> Path:
        return self.runtime / "token"

    @property
    def manage_token_file(self) -> Path:
        return self.runtime / "manage-token"


def find(environ: Mapping[str, str], settings: Settings | None = None) -> Paths:
    """The folders by setting, else by the XDG base directory specification, else by this user's id under /tmp."""
    settings = settings or Settings()
    home = Path(environ.get("HOME") or Path.home())
    server = re.sub(r"[^A-Za-z0-9._-]", "_", environ.get("JUPYTERHUB_SERVER_NAME", "")) or "default"
    config = settings.config_dir or _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / NAME
    state = settings.state_dir or _local_state(environ, home) / server
    runtime = settings.runtime_dir or _runtime(environ) / server
    data = settings.data_dir or _xdg(environ, "XDG_DATA_HOME", home / ".local" / "share") / NAME
    return Paths(config.absolute(), data.absolute(), state.absolute(), runtime.absolute())


def private(folder: Path) -> Path:
    """Make the folder 0700 and ours. Raises `ConfigError` naming it when it is not, and what to do."""
    try:
        for missing in (*(one for one in reversed(folder.parents) if not one.exists()), folder):
            missing.mkdir(mode=0o700, exist_ok=True)  # parents=True would make the others as the umask has it
        found = folder.lstat()
    except OSError as exc:
        raise ConfigError(
            f"{folder}: cannot be made ({exc.strerror}). Set CALLIOPE_RUNTIME_DIR or CALLIOPE_STATE_DIR."
        ) from exc
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{folder}: is a symlink or a file where a folder of ours belongs. Remove it.")
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{folder}: belongs to user {found.st_uid}, not to us. Choose another folder.")
    if found.st_mode & 0o022 and any(folder.iterdir()):
        raise ConfigError(
            f"{folder}: others may write into it, and it is not empty. Look at what is in it, then: chmod 700"
        )
    refuse_foreign(folder)
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def refuse_foreign(folder: Path) -> None:
    """Raises `ConfigError` where somebody else could have put this folder, or one above it, there for us to find."""
    for one in (folder, *folder.parents[:-1]):
        try:
            open_to_all, owner = one.parent.stat().st_mode & stat.S_IWOTH, one.lstat().st_uid
        except OSError:
            continue  # what is not there holds nothing
        if open_to_all and owner not in (0, os.geteuid()):
            raise ConfigError(
                f"{one}: was made by user {owner} in a folder that everybody may write to, so it is not trusted. Remove it, or set "
                "CALLIOPE_RUNTIME_DIR and CALLIOPE_STATE_DIR to folders of yours."
            )


def network_file_system(path: Path, mounts: str) -> str | None:
    """The kind of network file system that holds ``path``, by the text of /proc/self/mounts; None for a local disk."""
    best, kind = "", None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        inside = mount == "/" or str(path) == mount or str(path).startswith(mount + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def _xdg(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    """The specification says that a relative value is to be ignored."""
    value = environ.get(variable, "")
    return Path(value) if value.startswith("/") else default


def _local_state(environ: Mapping[str, str], home: Path) -> Path:
    state = _xdg(environ, "XDG_STATE_HOME", home / ".local" / "state") / NAME
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return state
    return Path(f"/var/tmp/{NAME}-{os.geteuid()}") if network_file_system(state, mounts) else state  # noqa: S108  owner-checked


def _runtime(environ: Mapping[str, str]) -> Path:
    given = environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/") and os.access(given, os.W_OK):
        return Path(given) / NAME
    return Path(f"/tmp/{NAME}-{os.geteuid()}")  # noqa: S108  `private` checks the owner
