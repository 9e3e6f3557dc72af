"""``serve``: the socket, the files that tell others where it is, the signals, and an orderly end.

Decisions
1. The socket is bound by us before uvicorn starts: a taken port is one clear line, and the files never name a port that is not ours.
2. agent.json is written when the server answers and removed when it stops, so that its presence is a promise.
3. uvicorn's own graceful stop is kept for connections; streams are drained and ended by the agent first (design §4.8), since uvicorn
   can only cut them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
import uvloop

from calliope_agent import __version__, catalog, custody, log, paths, tokens
from calliope_agent.agent import Agent
from calliope_agent.api.app import Edge
from calliope_agent.api.guard import Tokens
from calliope_agent.api.heads import BoundedHeads
from calliope_agent.errors import ConfigError
from calliope_agent.keys.need import OWN_PREFIX
from calliope_agent.paths import Paths
from calliope_agent.settings import Loaded

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
KEEPALIVE_S = 75
LEFT_AFTER_DRAIN_S = 3


@dataclass(frozen=True, slots=True)
class Running:
    """What agent.json says of a server that answers."""

    url: str
    pid: int
    version: str


def running(place: Paths) -> Running | None:
    """The server that the runtime folder promises, if it really answers; None otherwise."""
    try:
        told = json.loads(place.agent_file.read_text())
        found = Running(told["url"], int(told["pid"]), told["version"])
        # Not urllib.request: it would ask the proxy of HTTP_PROXY, whose answer says nothing about us.
        connection = HTTPConnection(HOST, urlsplit(found.url).port, timeout=2)
        with contextlib.closing(connection):
            connection.request("GET", "/health")
            return found if connection.getresponse().status == 200 else None
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return None


def serve(environ: Mapping[str, str], loaded: Loaded) -> int:
    """Run until SIGTERM or SIGINT. Raises `ConfigError` when it cannot start."""
    place = paths.find(environ, loaded.settings)
    paths.private(place.runtime)
    already = running(place)
    if already is not None:
        print(f"already running at {already.url}")
        return 0
    custody.harden_process()
    if loaded.settings.require_key_separation:
        custody.enforce_separation(environ, _operators_keys(environ))
    bound = bind(loaded)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_serve(environ, loaded, place, bound))
        # Everything is closed by now. Python would still wait for threads: litellm's import, a keyring that never answers.
        sys.stdout.flush()
        os._exit(status)


class Service:
    """An agent on its socket: started, announced, and stopped in order. ``url`` is where it answers."""

    def __init__(self, environ: Mapping[str, str], loaded: Loaded, place: Paths, bound: socket.socket) -> None:
        self.url = f"http://{HOST}:{bound.getsockname()[1]}"
        self._kept = tokens.Kept(place, loaded.settings)
        self.agent = Agent(environ, loaded, place, own_origins=(self.url,))
        for token in (self.tokens.complete, self.tokens.manage):
            self.agent.redactor.add(token)
        self._place = place
        self._bound = bound
        self._server = _Server(_config(Edge(self.agent, self._kept)))
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def tokens(self) -> Tokens:
        """Those that count now."""
        return self._kept.current

    async def start(self) -> None:
        """Returns when the socket is served. Catalog and keyring are looked at behind that, not before."""
        serving = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        self._tasks = [serving, asyncio.create_task(_warm(self.agent))]
        await self._server.begun.wait()
        _announce(self._place.agent_file, self.url)

    async def ended(self) -> None:
        """Wait until the server ends by itself, which it does only when something broke."""
        await asyncio.wait(self._tasks[:1])

    async def stop(self) -> None:
        """Drain, then close. Under drain + `LEFT_AFTER_DRAIN_S` seconds."""
        await self.agent.stop(self.agent.settings.drain_s)
        self._server.should_exit = True
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._place.agent_file.unlink(missing_ok=True)
        await self.agent.close()


async def _serve(environ: Mapping[str, str], loaded: Loaded, place: Paths, bound: socket.socket) -> int:
    service = Service(environ, loaded, place, bound)
    log.set_up(loaded.settings.log_level, service.agent.redactor.scrub)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await service.start()
        logger.info("calliope-agent %s listens at %s", __version__, service.url)
        waiting = [asyncio.ensure_future(service.ended()), asyncio.ensure_future(stop.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()
        logger.info("stopping: running streams have %g s", loaded.settings.drain_s)
    finally:
        await service.stop()
    return 0


def _operators_keys(environ: Mapping[str, str]) -> set[str]:
    """What the operator gave: variables, files and commands by name. The person's own files cannot give any."""
    given: set[str] = set()
    for provider in catalog.load(catalog.standard(environ, None), environ).providers:
        for name in (*provider.key_env, *(f"{name}_FILE" for name in provider.key_env)):
            value = environ.get(name, "").strip()
            if value and not value.startswith(OWN_PREFIX):
                given.add(name)
        given |= {name for name in (provider.credentials, provider.key_file, *provider.key_command[:1]) if name}
    return given


async def _warm(agent: Agent) -> None:
    """What the first request would wait for: the doors, the catalog, the keyring's probe, and litellm where it is asked for."""
    try:
        await agent.refresh()
    finally:
        # What is there by now stays: looking through it again and again would cost 20 ms in the middle of somebody's stream.
        gc.freeze()
        gc.enable()
    if agent.settings.preload == "litellm":
        agent.doors.litellm.preload()


def bind(loaded: Loaded) -> socket.socket:
    """The port of the setting; when it is only the default and taken, any free one. Raises `ConfigError` naming the holder."""
    port = loaded.settings.agent_port
    defaulted = loaded.origins["agent_port"].kind == "default"
    for candidate in (port, 0) if defaulted else (port,):
        # The protocol by name: asyncio switches Nagle off only for sockets that say TCP.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, candidate))
        except OSError as exc:
            bound.close()
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return bound
    raise ConfigError(f"Port {port} (CALLIOPE_AGENT_PORT) is taken or not allowed. Set another one, or 0 for any.")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the agent drains its streams before connections are closed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _config(app: Edge) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        proxy_headers=False,
        http=BoundedHeads,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEPALIVE_S,
        timeout_graceful_shutdown=LEFT_AFTER_DRAIN_S,
        backlog=512,
    )


def _announce(file: Path, url: str) -> None:
    told = {
        "url": url,
        "port": int(url.rpartition(":")[2]),
        "pid": os.getpid(),
        "version": __version__,
        "started": time.time(),
    }
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(told) + "\n")
    fresh.replace(file)
