"""One child process: started so that it cannot outlive us, named by its end, killed with everything it started.

Decisions
1. Every child leads a session of its own. What it forks (extension hosts, file watchers) stays in that session, so a
   dead IDE's leftovers are found by the session's id; shells of terminals have their own session and end by the hang-up
   of their terminal. A person's ``nohup`` job survives a restart of the IDE, but not the stop of the launcher.
2. PR_SET_PDEATHSIG is set after the change of the user id, which clears it (prctl(2)), and the parent is looked at
   again afterwards: it may have died before the call.
3. ``subprocess`` starts the child, our own ``waitpid(-1)`` collects it: the launcher is a subreaper and must collect
   orphans that no ``Popen`` knows.
4. A child goes to its folder after the change of the user id: root may be locked out of a home on NFS (root_squash),
   and ``Popen(cwd=...)`` would go there as root. A folder that is closed to the person too is no reason not to start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36  # include/uapi/linux/prctl.h
PROC = Path("/proc")
CGROUP_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Account:
    """Whose process it becomes; only root may choose."""

    uid: int
    gid: int
    name: str
    home: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start. ``pass_fds`` stay open in the child."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    account: Account | None = None
    pass_fds: tuple[int, ...] = ()


def start(command: Command) -> subprocess.Popen[bytes]:
    """Standard output and error come together in the returned process's ``stdout``. Raises OSError."""
    parent = os.getpid()

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        if account is not None:
            with contextlib.suppress(OSError):
                os.chdir(command.cwd)

    account = command.account
    return subprocess.Popen(
        command.argv,
        env=dict(command.env),
        cwd="/" if account else command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        pass_fds=command.pass_fds,
        preexec_fn=before_exec,  # noqa: PLW1509 - no thread runs in the launcher; prctl has no other place
    )


def prctl(option: int, value: int) -> None:
    """Raises OSError."""
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def become_subreaper() -> None:
    """Orphans among our descendants become our children instead of init's."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """No core dump, no ptrace and no reading of ``/proc/PID/environ`` by other processes of the same user."""
    prctl(PR_SET_DUMPABLE, 0)


def describe(status: int) -> str:
    """A wait status in words: ``exit code 3``, ``SIGKILL``."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            return signal.Signals(number).name
        return f"signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"


def out_of_memory_kills() -> int:
    """How often the kernel killed for memory in this cgroup; 0 where that cannot be read."""
    for path in CGROUP_EVENTS:
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def session_members(session: int) -> set[int]:
    """Process ids of a session, its leader included."""
    return {pid for pid, (_, sid) in _table().items() if sid == session}


def descendants(root: int) -> set[int]:
    """Process ids below ``root``, at any depth."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in _table().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found


def send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _table() -> dict[int, tuple[int, int]]:
    """pid → (parent's pid, session id), without zombies: those are dead and only wait to be collected."""
    table: dict[int, tuple[int, int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The command's name stands in parentheses and may hold anything, parentheses included (proc(5)).
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z":
                    table[int(entry.name)] = int(fields[1]), int(fields[3])
    return table
