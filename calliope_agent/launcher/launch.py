"""The launcher: reads the hub's environment, starts IDE, agent and Jupyter, keeps them, stops them in order.

::

    SIGTERM ─► state stopping ─► agent and IDE end (agent drains its streams through Jupyter, 5 s) ─► Jupyter ends ─►
    the rest

Decisions
1. The agent's port and tokens are chosen here and given to the agent, so that the IDE can start beside it and a
   restarted agent is found where the running shells were told it is.
2. Ended by a signal, it says so as a shell would (128 + its number): 143 is what orchestrators expect after SIGTERM.
3. Jupyter's clean end (exit code 0: ``POST /api/shutdown``, the idle clock) ends the launcher: the person asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from calliope_agent import custody
from calliope_agent.errors import ConfigError
from calliope_agent.launcher import childenv, control, handover, hub, ide, isolated, jupyter, ports
from calliope_agent.launcher.childenv import AgentAccess
from calliope_agent.launcher.front import Front
from calliope_agent.launcher.place import Place
from calliope_agent.launcher.process import Command
from calliope_agent.launcher.relay import Relay
from calliope_agent.launcher.supervisor import Child, Supervisor

AGENT_DRAIN_S, JUPYTER_GRACE_S = 6.0, 2.0
HUB_TIMEOUT_S = 5.0


class Launcher:
    """One run of the stack. ``extra`` is passed on to Jupyter's command line."""

    def __init__(self, place: Place, environ: Mapping[str, str], extra: Sequence[str]) -> None:
        self._place, self._environ, self._extra = place, environ, extra
        self._state = "starting"
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._jupyter_listens = False
        self._front = Front(place.bind[0], place.bind[1], place.hub.prefix, self._waiting_for)
        self._control = control.Server(self._answer)
        self._work = Supervisor(changed=self._changed, show=_show, ended=self._ended)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        if not self._place.tls:
            await self._front.open()
        if self._place.relay is not None:
            await self._open_relay(self._place.relay)
        if self._place.agent is not None and self._place.agent_runs_here:
            self._work.add("agent", partial(self._agent_command, self._place.agent))
        self._work.add("ide", self._ide_command)
        self._work.add("jupyter", self._jupyter_command)
        if self._place.hub.present:
            self._spawn(self._check_hub())
        code = await self._exit
        await self._stop()
        return code

    async def _open_relay(self, relay: Relay) -> None:
        """A convenience: another server of the person's on the same loopback may have the port."""
        try:
            await relay.open()
        except OSError as exc:
            _show("launcher", f"nothing listens for the IDE on port {self._place.options.ide_port}: {exc.strerror}")

    # --- the children -----------------------------------------------------------------------------------------------

    def _agent_command(self, access: AgentAccess) -> Command:
        place = self._place
        env = childenv.for_agent(self._environ) | {
            "CALLIOPE_AGENT_PORT": str(place.agent_port),
            "CALLIOPE_AGENT_TOKEN": access.token.reveal(),
            "CALLIOPE_MANAGE_TOKEN": place.manage_token.reveal(),
            "CALLIOPE_RUNTIME_DIR": str(place.agent_runtime),
            "HOME": str(place.agent_home),
        }
        env.pop("CALLIOPE_AGENT_URL", None)
        env[custody.PERSON_UID] = str(place.account.uid if place.account else os.geteuid())
        argv = isolated.argv("calliope_agent", "serve")
        return Command(argv=argv, env=env, cwd=place.agent_runtime, account=place.agent_account)

    def _ide_command(self) -> Command:
        place, options = self._place, self._place.options
        if place.ide.tcp is None:
            place.ide.socket.unlink(missing_ok=True)  # the one of an IDE that was killed
        env = childenv.with_agent(childenv.personal(self._environ, options.pass_names), place.agent) | place.identity
        chosen = ide.IdeOptions(command=options.ide_command, gallery=options.gallery, log_level=options.log_level)
        found = ide.command(place.ide_install(), place.ide, chosen, env)
        return Command(argv=found.argv, env=found.env, cwd=found.cwd, account=place.account)

    def _jupyter_command(self) -> Command:
        place, options = self._place, self._place.options
        first = self._work.children["jupyter"].restarts == 0
        control_fd, listening = self._control.open(), self._front.lend() if first else ()
        base = (
            childenv.with_agent(childenv.for_jupyter(self._environ, options.pass_names), place.agent) | place.identity
        )
        inherited = {control.FD_VARIABLE: str(control_fd), **handover.name(listening)}
        env = jupyter.environment(base, place.hub, place.token.reveal(), inherited)
        argv = jupyter.argv(
            place.hub, address=place.bind, root=place.workspace, log_level=options.log_level, extra=self._extra
        )
        return Command(argv=argv, env=env, cwd=place.home, account=place.account, pass_fds=(control_fd, *listening))

    def _ended(self, child: Child, status: int) -> bool:
        _show("launcher", f"{child.name} ended: {child.reason}")
        if child.name != "jupyter" or self._state == "stopping":
            return False
        self._jupyter_listens = False
        if status == 0:
            self._finish(0)
            return True
        if not self._place.tls:
            self._spawn(self._reopen())
        return False

    async def _reopen(self) -> None:
        """Answer /health while Jupyter is away; its port may still be held by what it left behind."""
        try:
            await self._front.open()
        except OSError as exc:
            _show("launcher", f"nothing answers on port {self._place.bind[1]} until Jupyter is back: {exc.strerror}")

    # --- what the extension asks -------------------------------------------------------------------------------------

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        match asked.get("do"):
            case "hello":
                return self._place.hello() | self._report()
            case "port":
                self._jupyter_listens = True
                await self._front.close()
                self._changed()
                return {}
            case "restart":
                names = [name for name in ("agent", "ide") if name in self._work.children]
                self._spawn(self._work.restart(names))
                return {"restarting": names}
            case "tail":
                child = self._work.children.get(str(asked.get("name")))
                return {"lines": list(child.tail) if child else []}
            case "stop":
                _show("launcher", str(asked.get("why", "asked to stop")))
                self._finish(0)
                return {}
        return {"error": "unknown question"}

    def _report(self) -> dict[str, Any]:
        return {"state": self._state, "children": {n: c.report() for n, c in self._work.children.items()}}

    def _changed(self) -> None:
        if self._state == "starting" and self._jupyter_listens:
            self._state = "running"
        self._control.tell({"event": "state", **self._report()})

    def _waiting_for(self) -> str:
        waiting = {name: child.status for name, child in self._work.children.items()}
        return ", ".join(f"{name}: {status}" for name, status in waiting.items()) or "starting"

    # --- the hub ------------------------------------------------------------------------------------------------------

    async def _check_hub(self) -> None:
        """Refuse a hub of another age; a hub that is away is waited for by Jupyter itself."""
        mine = self._place.hub
        try:
            async with asyncio.timeout(HUB_TIMEOUT_S):
                version = await hub.version(mine.api_url, mine.tls())
            hub.check_version(version)
        except ConfigError as exc:
            _show("launcher", exc.message)
            self._finish(1)
        except (OSError, ValueError, TimeoutError) as exc:
            _show("launcher", f"the hub at {mine.api_url} does not answer yet: {exc}")

    # --- the end ------------------------------------------------------------------------------------------------------

    def _asked_to_stop(self, number: signal.Signals) -> None:
        self._finish(128 + number)

    def _finish(self, code: int) -> None:
        if not self._exit.done():
            self._state = "stopping"
            self._exit.set_result(code)

    async def _stop(self) -> None:
        self._changed()
        await self._front.close()
        if self._place.relay is not None:
            self._place.relay.close()
        await self._work.stop(("agent", "ide"), AGENT_DRAIN_S)
        await self._work.stop(("jupyter",), JUPYTER_GRACE_S)
        self._work.kill_the_rest()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run(place: Place, environ: Mapping[str, str], extra: Sequence[str]) -> int:
    """Block until the stack has ended; the exit code."""

    async def main() -> int:
        return await Launcher(place, environ, extra).run()

    return asyncio.run(main())


def check_ports(place: Place) -> None:
    """Raises `ConfigError`, one line, before anything is started."""
    variable = "JUPYTERHUB_SERVICE_URL" if place.hub.present else "PORT"
    ports.require(place.bind[1], place.bind[0] or "0.0.0.0", variable)  # noqa: S104 - the address the hub asked for
    if place.ide.tcp is not None:
        ports.require(place.ide.tcp[1], place.ide.tcp[0], "VSCODE_PORT")
    if place.options.agent_port and place.agent_runs_here:
        ports.require(place.options.agent_port, "127.0.0.1", "CALLIOPE_AGENT_PORT")


def _show(name: str, line: str) -> None:
    with contextlib.suppress(OSError):  # a closed log must not end the servers
        print(f"[{name}] {line}", file=sys.stderr, flush=True)
