"""The person's home: which folder it is, and that it is theirs to write.

Decisions
1. ``/home/$JUPYTERHUB_USER`` in a container, as spawners mount it, unless somebody set HOME to a folder of their own;
   but the reference's compose file mounts only ``/home/calliope`` and sets the user as well: then the files are there,
   so the home is.
2. Nothing is done through a symlink, nothing is chowned recursively: a home is on NFS, belongs to the person, and root
   that follows the person's links can be led anywhere. Root makes the folder itself; everything in it is made as the
   person.
3. Root may be nobody there: an NFS server squashes it, and a home of mode 0700 is closed to it then. What root may not
   look at is looked at as the person, who is the one that has to be able to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from calliope_agent.errors import ConfigError
from calliope_agent.launcher.process import Account

HOMES = Path("/home")
COMPOSE_HOME = Path("/home/calliope")
IMAGE_HOMES = ("", "/", "/root", str(COMPOSE_HOME))  # what an image sets, not a spawner or a person
MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def in_container(environ: Mapping[str, str]) -> bool:
    return any(environ.get(name) for name in ("KUBERNETES_SERVICE_HOST", "container")) or any(m.exists() for m in MARKS)


def choose(environ: Mapping[str, str], user: str, *, container: bool, is_mount: Callable[[Path], bool]) -> Path:
    """Raises `ConfigError` for a user name that is no folder's name, and when there is no HOME."""
    home = environ.get("HOME", "").strip()
    if container and user and home in IMAGE_HOMES:
        if "/" in user or user in (".", ".."):
            raise ConfigError(f"JUPYTERHUB_USER {user[:40]!r} cannot name a home folder.", param="JUPYTERHUB_USER")
        own = HOMES / user
        if is_mount(COMPOSE_HOME) and not is_mount(own):
            return COMPOSE_HOME
        if own.is_dir() or os.access(HOMES, os.W_OK):
            return own
    if not home.startswith("/"):
        raise ConfigError("HOME is not set. Set it to the person's home folder.", param="HOME")
    return Path(home)


def prepare(home: Path, account: Account | None) -> None:
    """Make the folder if it is missing; as root, give it (and nothing in it) to the account. Raises `ConfigError`."""
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except PermissionError as exc:
        if account is None:
            raise ConfigError(f"The home {home} cannot be used: {exc.strerror}{_whose(home)}") from exc
        as_person(account, lambda: prepare(home, None))
        return
    except OSError as exc:
        raise ConfigError(
            f"The home {home} cannot be used: {exc.strerror}. Mount a folder there, or set HOME."
        ) from exc
    try:
        owner = os.fstat(handle)
        if account is not None and owner.st_uid != account.uid:
            if owner.st_uid != 0 or not stat.S_ISDIR(owner.st_mode):
                raise ConfigError(f"The home {home} belongs to user id {owner.st_uid}, not to {account.name}.")
            os.fchown(handle, account.uid, account.gid)
    except OSError as exc:
        raise ConfigError(f"The home {home} cannot be given to {account and account.name}: {exc.strerror}.") from exc
    finally:
        os.close(handle)


def _whose(home: Path) -> str:
    """Why it may not be entered, and the cure. A tmpfs belongs to root, whoever the container starts as."""
    cure = ". Mount a folder there, or set HOME."
    try:
        found = home.lstat()
    except OSError:
        return cure
    owner = (
        f"it belongs to user id {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; this is user id {os.geteuid()}"
    )
    return f" ({owner}). chown it, mount a volume there, or set HOME."


def as_person(account: Account | None, act: Callable[[], None]) -> None:
    """Run ``act`` with the account's rights, in a fork. Raises `ConfigError` with its message."""
    if account is None:
        act()
        return
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            act()
            code = 0
        except (OSError, ConfigError) as exc:
            os.write(writing, str(exc).encode(errors="replace")[:2000])
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise ConfigError(said or "The home could not be prepared.")
