"""The supervisor: starts the children, starts them again with backoff, stops them in order.

Decisions
1. It never gives up: a home that was full or a hub that was away comes back, and a person who waits wants the IDE then.
   After three quick deaths the state is called ``failed``, with the reason, while the attempts go on every 30 s.
2. The first delay is short (0.5 s): a killed IDE is a person looking at a reconnecting tab.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import process
from calliope_agent.launcher.process import Command

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
HEALTHY_AFTER_S = 30.0  # a child that lived this long starts its backoff anew
QUICK_DEATHS = 3
TERM_GRACE_S = 5.0
TAIL_LINES, LINE_CHARS = 200, 2000
STARTING, RUNNING, WAITING, FAILED, STOPPING, STOPPED = (
    "starting", "running", "restarting", "failed", "stopping", "stopped",
)  # fmt: skip
HEAP = "JavaScript heap out of memory"


@dataclass(slots=True)
class Child:
    """One watched child. ``make`` gives a fresh command for each start and may raise ConfigError."""

    name: str
    make: Callable[[], Command]
    status: str = STARTING
    pid: int | None = None
    restarts: int = 0
    since: float = field(default_factory=time.time)
    reason: str = ""
    wanted: bool = True
    quick_deaths: int = 0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None

    def report(self) -> dict[str, Any]:
        """The child's state for the status page; ``since`` is Unix seconds."""
        return {
            "status": self.status,
            "pid": self.pid,
            "restarts": self.restarts,
            "since": self.since,
            "reason": self.reason,
        }


class Supervisor:
    """Owns SIGCHLD of its process.

    ``changed`` is called after each change of a child's state, ``show`` with each line that a child writes, ``ended``
    with the child and its exit status; True from ``ended`` means: do not start it again.
    """

    def __init__(
        self,
        *,
        changed: Callable[[], None],
        show: Callable[[str, str], None],
        ended: Callable[[Child, int], bool],
    ) -> None:
        self.children: dict[str, Child] = {}
        self._changed, self._show, self._ended = changed, show, ended
        self._statuses: dict[int, asyncio.Future[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self._collect)
        process.become_subreaper()

    def add(self, name: str, make: Callable[[], Command]) -> Child:
        child = self.children[name] = Child(name, make)
        child.keeper = asyncio.create_task(self._keep(child), name=f"keep {name}")
        return child

    async def restart(self, names: Iterable[str]) -> None:
        """End the named children; their keepers start them again at once."""
        children = [self.children[name] for name in names]
        for child in children:
            child.quick_deaths = 0
            child.hurry.set()
        await asyncio.gather(*(self._end(child, TERM_GRACE_S) for child in children))

    async def stop(self, names: Iterable[str], grace_s: float) -> None:
        """End the named children for good, all at once, SIGKILL after ``grace_s``."""
        children = [self.children[name] for name in names if name in self.children]
        for child in children:
            child.wanted = False
            child.hurry.set()
            self._set(child, STOPPING)
        await asyncio.gather(*(self._end(child, grace_s) for child in children))
        await asyncio.gather(*(child.keeper for child in children if child.keeper))

    def kill_the_rest(self) -> None:
        """Whatever still lives below us: terminals' jobs, orphans."""
        process.send(process.descendants(os.getpid()), signal.SIGKILL)

    async def _keep(self, child: Child) -> None:
        while child.wanted:
            self._set(child, STARTING)
            started = self._loop.time()
            kills = process.out_of_memory_kills()
            status = await self._run(child)
            if status is not None:
                child.reason = _cause(child, status, process.out_of_memory_kills() > kills)
                if self._ended(child, status):
                    child.wanted = False
            lived_s = self._loop.time() - started
            child.quick_deaths = 0 if lived_s > HEALTHY_AFTER_S else child.quick_deaths + 1
            if child.wanted:
                await self._pause(child)
        self._set(child, STOPPED)

    async def _run(self, child: Child) -> int | None:
        """From start to end of one process; None when it could not be started."""
        try:
            popen = _started(child.make())
        except (ConfigError, OSError) as exc:
            child.reason = exc.message if isinstance(exc, ConfigError) else f"cannot be started: {exc}"
            child.tail.append(child.reason)
            self._show(child.name, child.reason)
            return None
        child.pid = popen.pid
        child.ended.clear()
        future = self._statuses[popen.pid] = self._loop.create_future()
        lines = asyncio.create_task(self._read(child, popen))
        self._set(child, RUNNING)
        self._collect()
        status: int = await future
        popen.returncode = status  # collected by us: the object must not look for it again
        process.send(process.session_members(popen.pid), signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(lines, 0.5)
        child.pid = None
        child.ended.set()
        return status

    async def _pause(self, child: Child) -> None:
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** max(0, child.quick_deaths - 1))
        self._set(child, FAILED if child.quick_deaths >= QUICK_DEATHS else WAITING)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.hurry.wait(), delay)
        if child.wanted:
            child.hurry.clear()
        child.restarts += 1

    async def _end(self, child: Child, grace_s: float) -> None:
        pid = child.pid
        if pid is None:
            return
        process.send({pid}, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.ended.wait(), grace_s)
        if child.pid == pid:
            process.send(process.session_members(pid), signal.SIGKILL)
            await child.ended.wait()

    async def _read(self, child: Child, popen: subprocess.Popen[bytes]) -> None:
        reader = asyncio.StreamReader(limit=1 << 16)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_read_pipe(lambda: protocol, popen.stdout)
        try:
            async for line in _lines(reader):
                child.tail.append(line)
                self._show(child.name, line)
        finally:
            transport.close()

    def _collect(self) -> None:
        """Every dead child, the adopted ones included."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                future = self._statuses.pop(pid, None)
                if future is not None and not future.done():
                    future.set_result(status)

    def _set(self, child: Child, status: str) -> None:
        if child.wanted or status in (STOPPING, STOPPED):
            child.status, child.since = status, time.time()
            self._changed()


def _started(command: Command) -> subprocess.Popen[bytes]:
    """What the child inherits is the child's alone: a copy left here would keep a socket open when the child is gone."""
    try:
        return process.start(command)
    finally:
        for number in command.pass_fds:
            os.close(number)


async def _lines(reader: asyncio.StreamReader) -> Any:
    """Printable lines of bounded length: what a child writes may hold escapes, and an endless line."""
    while True:
        try:
            raw = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as exc:
            raw = exc.partial
        except asyncio.LimitOverrunError as exc:
            raw = await reader.read(exc.consumed)
        if not raw:
            return
        text = raw.decode(errors="replace").rstrip("\r\n")
        yield "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in text)[
            :LINE_CHARS
        ]


def _cause(child: Child, status: int, killed_for_memory: bool) -> str:
    text = process.describe(status)
    if killed_for_memory and text == "SIGKILL":
        return "out of memory: the kernel killed it (SIGKILL); the container's memory limit is reached"
    if any(HEAP in line for line in child.tail):
        return f"out of memory: Node's heap is full ({text})"
    return text
