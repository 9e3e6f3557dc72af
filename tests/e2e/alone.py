"""The launcher without a hub, as a process of its own with a real IDE."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp

from tests.e2e.hub import ROOT, Failed, ends_with_us, free_ports

START_S = 60
STOP_S = 20
TOKEN = "a-token-of-the-end-to-end-tests"


@dataclass(kw_only=True)
class Alone:
    """``async with Alone(...)``: the launcher runs; ``home`` outlives it."""

    home: Path
    data_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: int = 200
    """The status of the root that means: as started as it gets."""

    async def __aenter__(self) -> Self:
        (self.port,) = free_ports(1)
        self.home.mkdir(exist_ok=True)
        self.runtime = tempfile.TemporaryDirectory(prefix="cal-e2e-")
        self.log = self.home.with_name(f"{self.home.name}.log")
        env = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "PORT": str(self.port), "JUPYTER_TOKEN": TOKEN,
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)), "CALLIOPE_DATA_DIR": str(self.data_dir),
            "CALLIOPE_RUNTIME_DIR": str(Path(self.runtime.name) / "run"), **self.environment,
        }  # fmt: skip
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "calliope_agent", "launch",
                cwd=self.home, env=env, stdout=log, stderr=log, start_new_session=True, preexec_fn=ends_with_us,
            )  # fmt: skip
        try:
            await self.answers(self.ready)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
        self.runtime.cleanup()

    @property
    def root(self) -> str:
        """The instance's address with its last slash."""
        return f"http://127.0.0.1:{self.port}{self.environment.get('JUPYTERHUB_SERVICE_PREFIX', '/')}"

    @property
    def url(self) -> str:
        """With the token, as the launcher prints it."""
        return f"{self.root}?token={TOKEN}"

    async def answers(self, status: int) -> None:
        """Wait until the IDE's page has the status."""
        headers = {"Authorization": f"token {TOKEN}"}
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            for _ in range(START_S * 5):
                if self.process.returncode is not None:
                    break
                try:
                    async with session.get(self.root) as answer:
                        if answer.status == status:
                            return
                except TimeoutError:
                    break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)
        raise Failed(f"the instance did not answer {status}\n{self.log.read_text(errors='replace')[-4000:]}")


async def eventually(check: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until the check is true; a file that is not there yet counts as not yet."""
    for _ in range(int(seconds * 20)):
        try:
            if check():
                return
        except FileNotFoundError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"it did not become true within {seconds} s")


def family(pid: int) -> list[int]:
    """The living descendants of a process."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        mine = children.get(todo.pop(), [])
        found += mine
        todo += mine
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
