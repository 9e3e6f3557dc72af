"""The embedded local model: a child process that starts on first use and is reached as any OpenAI-wire provider.

`local_server` is the child and `local_child` one run of it. Here is its life: started once for all who ask at the
same time, started again when it died, stopped with the agent.

Decisions
1. A unix socket in a folder of mode 0700 and a random key besides: no other user of the machine reaches the model
   and no port is taken. The socket's path stays the same over restarts, so that pooled connections know the place.
2. Idle time is the engine's own business (`local_server`, decision 4): it alone knows whether somebody is being
   answered.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calliope_agent.errors import LocalModelAbsent, Unreachable, UpstreamError, UpstreamTimeout
from calliope_agent.secret import Secret
from calliope_agent.upstream import local_server, weights
from calliope_agent.upstream.local_child import Child, NotReady

_ENGINE = "xllamacpp"
_SOCKET_PATH_MAX = 107  # bytes: sun_path of unix(7) less its NUL


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """Where the child answers. The host in ``base_url`` is for the Host header only."""

    base_url: str
    unix_socket: str
    api_key: Secret


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """``start_s`` bounds a start; ``idle_s`` frees the weights (-1: never); 0 threads: as many as cores, 4 at most.

    ``context_tokens`` is for a GGUF file of the person's own; known models have theirs. ``python`` runs the child.
    """

    start_s: float = 60.0
    idle_s: int = 900
    answer_tokens: int = 2048
    context_tokens: int = 8192
    threads: int = 0
    python: str = sys.executable


class LocalModel:
    """One model's child. ``model`` is CALLIOPE_LOCAL_MODEL: a known name (its file in ``data_dir``) or a path."""

    def __init__(
        self,
        model: str,
        data_dir: Path,
        runtime_dir: Path,
        environ: Mapping[str, str],
        options: LocalOptions | None = None,
    ) -> None:
        self._model = model
        self._data_dir = data_dir
        self._runtime_dir = runtime_dir
        self._environ = environ
        self._options = options or LocalOptions()
        self._folder: Path | None = None
        self._starting: asyncio.Task[LocalAddress] | None = None
        self._child: Child | None = None
        self._address: LocalAddress | None = None
        self._failure: str | None = None

    @property
    def state(self) -> str:
        """For ``/api/health``: absent (and what), idle (starts on first use), starting, running, failed (and why)."""
        if self._starting is not None and not self._starting.done():
            return "starting"
        if self._child is not None and self._child.alive:
            return "running"
        if importlib.util.find_spec(_ENGINE) is None:
            return "absent: no engine"
        if weights.find(self._data_dir, self._model) is None:
            return "absent: no weights"
        if self._child is not None:
            return f"failed: the model's process {self._child.epitaph}; the next request starts it again"
        return f"failed: {self._failure}" if self._failure else "idle"

    @property
    def remedy(self) -> str:
        """What to do while ``state`` says that something is absent."""
        if weights.sealed() or importlib.util.find_spec(_ENGINE) is None:
            return f"{weights.how_to_install()}."
        return "Fetch it once: calliope-agent models pull"

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def start(self) -> LocalAddress:
        """The running child's address; starts it if need be. One start serves all who wait for it.

        Raises `LocalModelAbsent` (engine or weights missing or broken), `UpstreamTimeout` (not ready in time) and
        `Unreachable` (it died while loading, or was stopped).
        """
        starting = self._starting
        if starting is None or starting.done():
            if self._address is not None and self._child is not None and self._child.alive:
                return self._address
            starting = self._starting = asyncio.create_task(self._start())
            starting.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if starting.cancelled() and task is not None and not task.cancelling():
                raise Unreachable("The local model was stopped while it was starting.") from exc
            raise

    async def stop(self) -> None:
        """End the child, by closing its standard input and, after a second, by force. It may be started again."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait((starting,))
        await self._end()
        self._failure = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _start(self) -> LocalAddress:
        self._failure = None
        try:
            path = self._check()
            await self._end()
            async with asyncio.timeout(self._options.start_s):
                return await self._spawn(path)
        except TimeoutError as exc:
            self._failure = f"not ready after {self._options.start_s:g} s"
            raise UpstreamTimeout(
                f"The local model was {self._failure}. The machine may be busy or short of memory; try again."
            ) from exc
        except UpstreamError as exc:
            self._failure = exc.message
            raise
        finally:
            if self._address is None:
                await self._end()

    def _check(self) -> Path:
        if importlib.util.find_spec(_ENGINE) is None:
            raise LocalModelAbsent(f"The local model's engine is not installed. {weights.how_to_install()}")
        path = weights.find(self._data_dir, self._model)
        if path is None:
            raise LocalModelAbsent(_absent(self._model, weights.place(self._model, self._data_dir)))
        return path

    async def _spawn(self, path: Path) -> LocalAddress:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="calliope-local-", dir=_socket_dir(self._runtime_dir)))
        place = self._folder / "model.sock"
        place.unlink(missing_ok=True)  # the engine leaves it, and cannot bind over it
        address = LocalAddress("http://localhost/v1", str(place), Secret(secrets.token_urlsafe(32)))
        self._child = await Child.spawn(self._options.python, self._order(path, address), self._environ)
        try:
            await self._child.ready()
        except NotReady as exc:
            raise self._refusal(exc, path) from exc
        self._address = address
        return address

    def _order(self, path: Path, address: LocalAddress) -> local_server.Order:
        options = self._options
        served = next((known for known in weights.KNOWN if known.name == self._model), None)
        return {
            "parent": os.getpid(),
            "model": str(path.absolute()),
            "name": served.name if served else path.stem,
            "socket": address.unix_socket,
            "key": address.api_key.reveal(),
            "context": served.context_tokens if served else options.context_tokens,
            "most": options.answer_tokens,
            "threads": options.threads or max(1, min(4, len(os.sched_getaffinity(0)))),
            "idle": options.idle_s,
        }

    def _refusal(self, exc: NotReady, path: Path) -> UpstreamError:
        if exc.failed == "engine":
            hint = " Install the system's libgomp1." if "libgomp" in exc.why else f" {weights.how_to_install()}"
            return LocalModelAbsent(f"The local model's engine does not load: {exc.why}.{hint}")
        if exc.failed == "weights":
            return LocalModelAbsent(_broken(self._model, path, exc.why))
        return Unreachable(f"The local model {exc.why} while it was loading.")

    async def _end(self) -> None:
        child, self._child, self._address = self._child, None, None
        if child is not None:
            await child.end()


def _retrieve(task: asyncio.Task[LocalAddress]) -> None:
    """Takes note of a failure that nobody waited for, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()


def _socket_dir(runtime_dir: Path) -> str | None:
    """The runtime directory if a socket's path fits there, else the system's temporary one (None)."""
    longest = len(os.fsencode(runtime_dir)) + len("/calliope-local-xxxxxxxx/model.sock")
    return str(runtime_dir) if longest <= _SOCKET_PATH_MAX and os.access(runtime_dir, os.W_OK | os.X_OK) else None


def _absent(model: str, path: Path) -> str:
    if weights.is_known(model) and weights.sealed():
        return f"The local model's weights are not here. {weights.how_to_install()}"
    if weights.is_known(model):
        name = "" if model == weights.DEFAULT else f" {model}"
        return f"The local model's weights are not here yet. Run: calliope-agent models pull{name}"
    names = ", ".join(known.name for known in weights.KNOWN)
    return f"CALLIOPE_LOCAL_MODEL names {path}, and no file is there. Give a GGUF file's path or one of: {names}"


def _broken(model: str, path: Path, why: str) -> str:
    if weights.is_known(model):
        return f"The local model's weights do not load ({why}). Run: calliope-agent models pull {model} --verify"
    return f"{path} does not load as a GGUF model ({why}). Set CALLIOPE_LOCAL_MODEL to one that does."
