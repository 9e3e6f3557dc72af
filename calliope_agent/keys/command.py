"""The operator's key command: a program that prints a key.

**Decisions**

1. It gets the allow-listed environment of every child, no other key of ours among it; what else it needs, its argv says
   (``env NAME=…``).
2. Its error output is not repeated: programs of this kind print what they were about to return.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping

from calliope_agent import environment
from calliope_agent.errors import ConfigError

TIMEOUT_S = 10.0
MAX_OUTPUT = 64 << 10


async def printed(argv: tuple[str, ...], environ: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> str:
    """What the command printed. Raises ConfigError: not found, failed, too slow, too much."""
    name = argv[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment.allowed(environ),
            cwd="/",
            start_new_session=True,
            limit=MAX_OUTPUT,
        )
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"The key command {name!r} cannot be started ({type(exc).__name__}). Check its path."
        ) from exc
    try:
        async with asyncio.timeout(timeout_s):
            output = await _read(process, name)
            code = await process.wait()
    except TimeoutError as exc:
        raise ConfigError(
            f"The key command {name!r} gave no key in {timeout_s:g} s. Run it by hand to see why."
        ) from exc
    finally:
        await _end(process)
    if code != 0:
        raise ConfigError(f"The key command {name!r} failed (exit status {code}). Run it by hand to see why.")
    return output


async def _read(process: asyncio.subprocess.Process, name: str) -> str:
    assert process.stdout is not None  # noqa: S101  asked for as a pipe above
    chunks = []
    size = 0
    while chunk := await process.stdout.read(8192):
        size += len(chunk)
        if size > MAX_OUTPUT:
            raise ConfigError(
                f"The key command {name!r} printed more than {MAX_OUTPUT} bytes; it must print the key alone."
            )
        chunks.append(chunk)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Its whole group, for a command that left helpers behind; then its exit status is collected."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await process.wait()
