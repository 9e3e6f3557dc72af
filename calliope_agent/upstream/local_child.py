"""One run of the embedded model's process, from the agent's side: spawn, ready or why not, alive, end.

Decisions
1. An allow-listed environment without any key, and a session of its own: Ctrl-C in the agent's terminal must not take
   the model away from a stream that is being drained.
2. Whether it lives is read from ``/proc/PID/stat``: asyncio learns of a death later, and even ``waitid`` and the
   listening socket still say "alive" for a moment after a killed process has cut its connections. In that moment the
   retry of a cut answer asks. The kernel sets PF_EXITING before it closes a dying process's files.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from calliope_agent.upstream import local_server

_NAMES = ("LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_PF_EXITING = 0x4  # linux/sched.h
_STOP_S = 1.0
_WORDS_BYTES = 4096


class NotReady(Exception):
    """The child gave up before it served. ``failed`` is engine, weights or (it died) process; ``why`` says more."""

    def __init__(self, failed: str, why: str) -> None:
        super().__init__(why)
        self.failed = failed
        self.why = why


class Child:
    """A started process. Its owner awaits `ready` once and `end` in any case."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._words = asyncio.create_task(_beginning(cast("asyncio.StreamReader", process.stderr)))

    @classmethod
    async def spawn(cls, python: str, order: local_server.Order, environ: Mapping[str, str]) -> Child:
        process = await asyncio.create_subprocess_exec(
            python,
            "-I",
            local_server.__file__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: environ[name] for name in _NAMES if name in environ},
            cwd="/",
            start_new_session=True,
        )
        child = cls(process)
        child._stdin.write(json.dumps(order).encode() + b"\n")
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        if self._process.returncode is not None:
            return False
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return False
        fields = stat.rpartition(")")[2].split()  # proc_pid_stat(5): from field 3 on, the name may hold blanks
        return fields[0] not in "ZX" and not int(fields[6]) & _PF_EXITING

    async def ready(self) -> None:
        """Waits until it serves. Raises `NotReady`; has no bound of its own."""
        line = await self._stdout.readline()
        said = json.loads(line) if line else {"failed": "process", "why": ""}
        if said.get("ready"):
            return
        status = await self._process.wait()
        if said["failed"] == "process":
            raise NotReady("process", ended(status))
        raise NotReady(said["failed"], _first_error(await self._words) or said["why"])

    async def end(self) -> int:
        """Closes its standard input, kills it after a second; the exit status."""
        self._stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
        status = await self._process.wait()
        await self._words
        return status

    @property
    def epitaph(self) -> str:
        """How it ended, for a person."""
        return ended(self._process.returncode)


def ended(status: int | None) -> str:
    """An exit status in words that say what is likely behind it."""
    if status is None:
        return "ended"
    if status == -signal.SIGILL:
        return "ended by SIGILL: this CPU lacks instructions (AVX2, FMA) that the engine was built for"
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL), most likely because memory ran out"
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


async def _beginning(stream: asyncio.StreamReader) -> bytes:
    """Reads to the end, keeps the beginning: the first complaint is the cause, the others follow from it."""
    kept = b""
    while data := await stream.read(4096):
        kept = (kept + data)[:_WORDS_BYTES]
    return kept


def _first_error(words: bytes) -> str:
    """The engine's first error line less clock and function: ``0.00.034 E llama_model_load: reason`` → ``reason``."""
    for line in words.decode("utf-8", "replace").splitlines():
        _, marked, rest = line.partition(" E ")
        if marked:
            return rest.partition(": ")[2].strip() or rest.strip()
    return ""
