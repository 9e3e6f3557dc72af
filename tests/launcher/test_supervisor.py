"""Children that die, each in its own way; real processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import process
from calliope_agent.launcher.process import Command
from calliope_agent.launcher.supervisor import Child, Supervisor


class Watch:
    """A supervisor and what it told. ``once``: no child is started again."""

    def __init__(self, *, once: bool) -> None:
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        self.deaths: list[str] = []
        self.supervisor = Supervisor(
            changed=self._changed, show=lambda _name, line: self.lines.put_nowait(line), ended=self._ended
        )
        self._once = once
        self._tasks: set[asyncio.Task[None]] = set()

    async def until_dead(self, child: Child) -> str:
        assert child.keeper is not None
        await asyncio.wait_for(asyncio.shield(child.keeper), 20)
        return child.reason

    def _changed(self) -> None:
        """Asked by polling in these tests."""

    def _ended(self, child: Child, _status: int) -> bool:
        self.deaths.append(child.reason)
        return self._once


@pytest_asyncio.fixture
async def watch() -> AsyncIterator[Watch]:
    found = Watch(once=True)
    yield found
    await found.supervisor.stop(list(found.supervisor.children), 1.0)


def script(text: str) -> Command:
    return Command(argv=(sys.executable, "-c", text), env={"PATH": os.environ["PATH"]}, cwd=Path("/"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        (
            "import os; print('FATAL ERROR: JavaScript heap out of memory', flush=True); os.abort()",
            "out of memory: Node's heap is full (SIGABRT)",
        ),
    ],
)
async def test_the_cause_of_a_death_is_named(watch: Watch, text: str, reason: str) -> None:
    child = watch.supervisor.add("x", lambda: script(text))
    assert await watch.until_dead(child) == reason


async def test_a_kill_by_the_kernel_for_memory_is_named(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((4, 5))
    monkeypatch.setattr(process, "out_of_memory_kills", lambda: next(counts, 5))
    child = watch.supervisor.add("x", lambda: script("import os; os.kill(os.getpid(), 9)"))
    assert "out of memory" in await watch.until_dead(child)


async def test_escapes_and_endless_lines_of_a_child_are_tamed(watch: Watch) -> None:
    child = watch.supervisor.add("x", lambda: script(r"print('a\x1b[31mb'); print('y' * 100000, end='')"))
    await watch.until_dead(child)
    assert watch.lines.get_nowait() == "a\\x1b[31mb"
    assert len(watch.lines.get_nowait()) == 2000


async def test_a_child_that_cannot_be_started_is_tried_again_and_says_why() -> None:
    watch = Watch(once=False)

    def make() -> Command:
        raise ConfigError("install it first")

    child = watch.supervisor.add("x", make)
    async with asyncio.timeout(20):
        while child.restarts < 2:
            await asyncio.sleep(0)
            child.hurry.set()
    assert child.reason == "install it first"
    await watch.supervisor.stop(["x"], 1.0)
    assert child.status == "stopped"


async def test_what_a_child_should_have_inherited_is_closed_when_it_cannot_be_started(watch: Watch) -> None:
    """A copy of the listening socket left behind would take visitors whom nobody answers."""
    reading, writing = os.pipe()
    command = Command(argv=("/nonexistent",), env={}, cwd=Path("/"), pass_fds=(writing,))
    commands = iter((command, ConfigError("no more")))

    def make() -> Command:
        made = next(commands, ConfigError("no more"))
        if isinstance(made, ConfigError):
            raise made
        return made

    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(reading, ended.set)
    watch.supervisor.add("x", make)
    await asyncio.wait_for(ended.wait(), 10)
    loop.remove_reader(reading)
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_a_stubborn_child_is_killed_with_its_session() -> None:
    watch = Watch(once=False)
    text = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nos.fork()\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    watch.supervisor.add("x", lambda: script(text))
    async with asyncio.timeout(20):
        pids = {int(await watch.lines.get()) for _ in range(2)}
    assert len(pids) == 2
    await watch.supervisor.stop(["x"], 0.2)
    assert not pids & process.descendants(os.getpid())


def test_processes_are_found_by_family_and_session() -> None:
    assert os.getpid() in process.session_members(os.getsid(0))
    assert os.getpid() in process.descendants(os.getppid())
