"""The launcher's own settings: ports, the IDE's command, who may restart, when an idle server ends.

Decisions
1. An empty variable is an unset one: compose files and spawners write ``NAME=`` for "not given".
2. Under a hub the service URL's port wins over PORT, because the hub looks nowhere else; the disagreement is said.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from calliope_agent import parse
from calliope_agent.errors import ConfigError
from calliope_agent.launcher.hub import Hub
from calliope_agent.secret import Secret

MAIN_PORT, IDE_PORT, AGENT_PORT = 8070, 8071, 8072
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Every value the launcher takes from its environment, apart from the hub's. Times are seconds."""

    port: int = MAIN_PORT
    ide_port: int = IDE_PORT
    agent_port: int | None = None  # None: 8072, or another free one
    all_components: bool = True
    log_level: str = "INFO"
    ide_command: tuple[str, ...] = ()
    ide_tcp: str = "auto"
    gallery: str = "none"
    restart_role: str = "admin"
    idle_shutdown_s: float = 0.0
    allow_shared: bool = False
    pass_names: tuple[str, ...] = ()
    token: Secret | None = None  # the stand-alone server's; None: a new one
    agent_url: str = ""  # an agent that runs elsewhere (a sidecar)
    agent_token: Secret | None = None
    manage_token: Secret | None = None
    data_dir: Path | None = None
    runtime_dir: Path | None = None
    notes: tuple[str, ...] = ()  # what the log should say about these settings


def read(environ: Mapping[str, str], hub: Hub) -> Options:
    """Raises `ConfigError` naming the variable, what it holds and what is allowed."""

    def value(name: str, parser: Callable[[str], T], default: Any = None) -> T | Any:
        text = environ.get(name, "").strip()
        if not text:
            return default
        try:
            return parser(text)
        except ValueError as exc:
            raise ConfigError(f"{name}: {exc}, not {text[:80]!r}", param=name) from exc

    asked = value("PORT", parse.port, value("JUPYTERHUB_PORT", parse.port))
    bind = hub.bind
    port = bind[1] if bind else asked or MAIN_PORT
    notes: tuple[str, ...] = ()
    if bind and asked not in (None, port):
        notes = (f"the hub says port {port} (JUPYTERHUB_SERVICE_URL), so PORT {asked} is not used",)
    return Options(
        port=port,
        ide_port=value("VSCODE_PORT", parse.port, IDE_PORT),
        agent_port=value("CALLIOPE_AGENT_PORT", parse.port),
        all_components=value("USE_ALL_COMPONENTS", parse.flag, True),
        log_level=value("LOG_LEVEL", parse.log_level, "INFO"),
        ide_command=value("WAIIDE_IDE_COMMAND", _argv, ()),
        ide_tcp=value("WAIIDE_IDE_TCP", parse.one_of("auto", "true", "false"), "auto"),
        gallery=value("WAIIDE_EXTENSIONS_GALLERY", parse.text, "none"),
        restart_role=value("WAIIDE_RESTART_ROLE", parse.one_of("admin", "owner"), "admin"),
        idle_shutdown_s=value("WAIIDE_IDLE_SHUTDOWN_S", _seconds_or_off, 0.0),
        allow_shared=value("WAIIDE_ALLOW_SHARED", parse.flag, False),
        pass_names=value("WAIIDE_PASS_ENV", _names, ()),
        token=value("JUPYTER_TOKEN", parse.secret),
        agent_url=value("CALLIOPE_AGENT_URL", parse.http_url, ""),
        agent_token=_token(environ, "CALLIOPE_AGENT_TOKEN"),
        manage_token=_token(environ, "CALLIOPE_MANAGE_TOKEN"),
        data_dir=value("CALLIOPE_DATA_DIR", Path),
        runtime_dir=value("CALLIOPE_RUNTIME_DIR", Path),
        notes=notes,
    )


def _token(environ: Mapping[str, str], name: str) -> Secret | None:
    """Apart from the rest: a bad token's text is not repeated in the error."""
    text = environ.get(name, "").strip()
    try:
        return parse.token(text) if text else None
    except ValueError as exc:
        raise ConfigError(f"{name}: {exc}", param=name) from exc


def _argv(text: str) -> tuple[str, ...]:
    return tuple(shlex.split(text))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _seconds_or_off(text: str) -> float:
    return 0.0 if text == "0" else parse.seconds(text)
