"""Custody of keys in the process: what others of this machine may see of it.

**Decisions**

1. Whether the person at the terminal could read the operator's keys is decided from uids: of this process, of its
   ancestors (whose initial environment held the keys too), and of the mounted files. The launcher says who the person
   is (`PERSON_UID`); without it the person is whoever owns the other processes that can be seen, which in a sidecar
   container is nobody.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from calliope_agent.environment import sounds_secret
from calliope_agent.errors import ConfigError

PERSON_UID = "CALLIOPE_PERSON_UID"
REQUIRE = "CALLIOPE_REQUIRE_KEY_SEPARATION"
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class Hardening:
    """What `harden_process` could do; ``problems`` are sentences for log and `doctor`."""

    dumpable: bool
    core_dumps: bool
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeparationReport:
    """``separated`` when the person at the terminal cannot read the operator's keys; ``reasons`` say why not, or what
    makes it so.
    """

    separated: bool
    reasons: tuple[str, ...]


def harden_process() -> Hardening:
    """No core dumps, and nobody but root may look into this process. To be called after the last change of uid, which
    undoes it.
    """
    problems: list[str] = []
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as exc:
        problems.append(f"Core dumps could not be switched off ({exc}).")
    if not _set_undumpable():
        problems.append(
            "This system has no PR_SET_DUMPABLE: other processes of the same user can read this one's memory."
        )
    return Hardening(is_dumpable(), resource.getrlimit(resource.RLIMIT_CORE)[0] != 0, tuple(problems))


def is_dumpable() -> bool:
    """Whether processes of the same user may trace this one and read its environment."""
    libc = _libc()
    return libc is None or libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0


def separation(environ: Mapping[str, str]) -> SeparationReport:
    """Whether the person at the terminal could read what the operator gave this process."""
    person = _person_uid(environ)
    if person is None:
        return _separation_by_sight(environ)
    against = [
        *_same_user(person),
        *_ancestors_of(person),
        *(f"{path} can be read by user {person}." for path in _key_files(environ) if _readable_by(path, person)),
    ]
    if against:
        return SeparationReport(False, tuple(against))
    return SeparationReport(True, (f"The agent runs as user {os.geteuid()}, the person as user {person}.",))


def enforce_separation(environ: Mapping[str, str], given: Collection[str]) -> None:
    """For CALLIOPE_REQUIRE_KEY_SEPARATION. ``given`` names what the operator gave: variables, files, commands.

    Raises ConfigError when there is something to protect and no separation.
    """
    report = separation(environ)
    if given and not report.separated:
        raise ConfigError(
            f"{REQUIRE} is set, and the person at the terminal could read {', '.join(sorted(given))}: "
            f"{' '.join(report.reasons)} Start the container as root, so that the agent gets a user of its own; or run "
            "the agent as a sidecar container with the keys mounted only there; or take the keys away; or unset "
            f"{REQUIRE}."
        )


def _set_undumpable() -> bool:
    libc = _libc()
    return libc is not None and libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _person_uid(environ: Mapping[str, str]) -> int | None:
    text = environ.get(PERSON_UID, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _same_user(person: int) -> Iterator[str]:
    if person == 0:
        yield "The person is root."
    elif os.geteuid() == person:
        yield f"The agent runs as the person's own user ({person})."


def _ancestors_of(person: int) -> Iterator[str]:
    for pid in _ancestors():
        if person != 0 and person in _uids(pid):
            yield (
                f"Process {pid}, which started the agent, runs as the person's user ({person}) "
                "and had the keys in its environment."
            )


def _separation_by_sight(environ: Mapping[str, str]) -> SeparationReport:
    """No launcher told who the person is: look whose processes are here besides ours."""
    own, me = {os.getpid(), *_ancestors()}, os.getpid()
    others = [pid for pid in _pids() if pid not in own and me not in _ancestors(pid) and os.geteuid() in _uids(pid)]
    if not others and _in_container(environ):
        return SeparationReport(True, ("The agent is alone in its container.",))
    return SeparationReport(
        False, (f"Programs of the agent's own user ({os.geteuid()}) on this machine can read what the agent reads.",)
    )


def _in_container(environ: Mapping[str, str]) -> bool:
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return "KUBERNETES_SERVICE_HOST" in environ or any(mark.exists() for mark in marks)


def _key_files(environ: Mapping[str, str]) -> list[str]:
    return [value for name, value in environ.items() if value and name.endswith("_FILE") and sounds_secret(name[:-5])]


def _readable_by(path: str, uid: int) -> bool:
    """By mode and owner of the file; directories above it may close it, which only makes the answer too careful."""
    try:
        found = Path(path).stat()
    except OSError:
        return False
    if uid in {0, found.st_uid}:
        return True
    return bool(found.st_mode & (stat.S_IROTH | stat.S_IRGRP))


def _pids() -> list[int]:
    try:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return []


def _ancestors(pid: int | None = None) -> list[int]:
    found: list[int] = []
    current = _parent(pid or os.getpid())
    while current and current not in found:
        found.append(current)
        current = _parent(current)
    return found


def _parent(pid: int) -> int:
    fields = _status(pid).get("PPid", "0").split()
    return int(fields[0]) if fields else 0


def _uids(pid: int) -> set[int]:
    return {int(field) for field in _status(pid).get("Uid", "").split()}


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
