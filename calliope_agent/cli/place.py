"""Where the commands find the settings and the running agent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from calliope_agent import paths, settings, tokens, tomlfile
from calliope_agent.errors import AgentError, ConfigError
from calliope_agent.secret import Secret
from calliope_agent.settings import Loaded

NOT_RUNNING = "The agent is not running. Start it: calliope-agent serve"


@dataclass(frozen=True, slots=True)
class Door:
    """A running agent: its address and a token for it. Only the standard library is used, so that commands start at once."""

    url: str
    token: Secret

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer. Raises `AgentError` with the agent's own message, `ConfigError` when nobody answers."""
        answer = self.open(method, path, body)
        text = answer.read()
        try:
            told = json.loads(text) if text else None
        except ValueError as exc:
            raise ConfigError(f"{self.url} does not answer like an agent. Is CALLIOPE_AGENT_URL right?") from exc
        if answer.status >= 400:
            raise _failure(answer.status, told)
        return told

    def stream(self, path: str, body: Any) -> Iterator[Any]:
        """The JSON of every event until ``[DONE]``. Raises `AgentError` for an error answer or an error event."""
        answer = self.open("POST", path, body)
        if answer.status >= 400:
            raise _failure(answer.status, json.loads(answer.read() or b"null"))
        for line in answer:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            event = json.loads(data)
            if "error" in event:
                raise _failure(200, event)
            yield event
        raise AgentError("The stream ended before the answer was whole. Ask again.")

    def open(self, method: str, path: str, body: Any = None) -> HTTPResponse:
        parts = urlsplit(self.url)
        made = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = made(parts.hostname or "127.0.0.1", parts.port, timeout=600)
        headers = {
            "authorization": f"Bearer {self.token.reveal()}",
            "accept": "application/json, text/event-stream",
            "connection": "close",
        }
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            connection.request(method, parts.path + path, None if body is None else json.dumps(body), headers)
            return connection.getresponse()
        except (OSError, HTTPException) as exc:
            raise ConfigError(f"{NOT_RUNNING} (nobody answers at {self.url})") from exc


def loaded(environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Loaded:
    """The settings as the server would have them."""
    first = settings.load(environ, None, flags)
    file = tomlfile.read_if_there(paths.find(environ, first.settings).config_file)
    return first if file is None else settings.load(environ, file, flags)


def door(environ: Mapping[str, str], *, manage: bool = False) -> Door:
    """The agent of CALLIOPE_AGENT_URL, else the one whose files lie in the runtime folder. Raises `ConfigError`."""
    found = loaded(environ)
    place = paths.find(environ, found.settings)
    paths.refuse_foreign(place.runtime)
    place = _running(place)
    url = found.settings.agent_url or _announced(place)
    given = found.settings.manage_token if manage else found.settings.agent_token
    token = given or tokens.read(place.manage_token_file if manage else place.token_file)
    if token is None:
        raise ConfigError(
            f"{NOT_RUNNING}, or set CALLIOPE_{'MANAGE' if manage else 'AGENT'}_TOKEN for the one at {url}."
        )
    return Door(url, token)


def running(environ: Mapping[str, str]) -> Door | None:
    """The running agent, with the token that may change things; None where none runs here.

    Raises `ConfigError` where CALLIOPE_AGENT_URL names one that does not answer, or whose token is not known.
    """
    named = loaded(environ).settings.agent_url is not None
    try:
        found = door(environ, manage=True)
        found.open("GET", "/health").read()
    except ConfigError:
        if named:
            raise
        return None
    return found


def _running(place: paths.Paths) -> paths.Paths:
    """Root's commands in a container (``docker exec``) find the agent that the launcher gave a folder of its own."""
    below = replace(place, runtime=place.runtime / "agent")
    # os.path, because it takes a folder that may not be entered for one without the file.
    found = not os.path.exists(place.agent_file) and os.path.exists(below.agent_file)  # noqa: PTH110
    return below if found else place


def _announced(place: paths.Paths) -> str:
    """The address in agent.json, if its process is still there: a killed agent's port may be somebody else's by now."""
    try:
        told = json.loads(place.agent_file.read_text(encoding="utf-8"))
        url, pid = str(told["url"]), int(told["pid"])
        os.kill(pid, 0)
    except PermissionError:
        return url  # the agent has a user of its own
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(NOT_RUNNING) from exc
    return url


def _failure(status: int, told: Any) -> AgentError:
    inner = told.get("error") if isinstance(told, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    error = AgentError(message or f"The agent answered with status {status}.")
    error.status = status
    return error


def ago(when: float) -> str:
    """``3 min``: the age of a time in seconds since the epoch."""
    age = max(0, int(time.time() - when))
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if age >= size:
            return f"{age // size} {name}"
    return f"{age} s"
