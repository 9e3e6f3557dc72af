"""The operator's keys: variables, mounted files, a command."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from calliope_agent.errors import ConfigError
from calliope_agent.keys.bounded import bounded
from calliope_agent.keys.command import printed
from calliope_agent.keys.need import MAX_VALUE, KeyNeed, cleaned, is_own_token
from calliope_agent.keys.private import Stamp, stamp
from calliope_agent.keys.source import Look

FILE_TIMEOUT_S = 5.0
COMMAND_TTL_S = 300.0
FAILURE_TTL_S = 5.0
OWN = "it is a token of this agent, which opens no provider"


@dataclass(slots=True)
class OperatorKeys:
    """Asked in order: each variable and its ``_FILE``, the manifest's file, its command. ``clock`` is monotonic
    seconds.
    """

    environ: Mapping[str, str]
    clock: Callable[[], float]
    _files: dict[str, tuple[Stamp | None, Look]] = field(default_factory=dict)
    _commands: dict[tuple[str, ...], tuple[float, Look]] = field(default_factory=dict)
    _variables: dict[tuple[str, str], Look] = field(default_factory=dict)

    def quick(self, need: KeyNeed) -> list[Look] | None:
        """Every look up to the deciding one, when no thread and no process is needed for it."""
        looks: list[Look] = []
        for look in self._steps(need):
            if look is None:
                return None
            looks.append(look)
            if look.decides:
                break
        return looks

    async def looks(self, need: KeyNeed, *, all_of_them: bool) -> list[Look]:
        """Looks up to the deciding one, or every look, for who wants to see what is shadowed."""
        found: list[Look] = []
        for ask in self._questions(need):
            found.append(await ask())
            if found[-1].decides and not all_of_them:
                break
        return found

    def forget(self, need: KeyNeed) -> None:
        """The provider rejected the key: the command is asked again next time."""
        if need.command:
            self._commands.pop(need.command, None)

    def _questions(self, need: KeyNeed) -> Iterator[Callable[[], Awaitable[Look]]]:
        for name in need.env:
            yield partial(self._async_variable, name)
            yield partial(self._file, *self._file_of(name))
        if need.file:
            yield partial(self._file, need.file, f"file {need.file}")
        if need.command:
            yield partial(self._command, need.command)

    async def _async_variable(self, name: str) -> Look:
        return self._variable(name)

    def _steps(self, need: KeyNeed) -> Iterator[Look | None]:
        for name in need.env:
            yield self._variable(name)
            yield self._known_file(*self._file_of(name))
        if need.file:
            yield self._known_file(need.file, f"file {need.file}")
        if need.command:
            yield self._known_command(need.command)

    def _variable(self, name: str) -> Look:
        value = self.environ.get(name, "")
        known = self._variables.get((name, value))
        if known is None:
            self._variables = {key: look for key, look in self._variables.items() if key[0] != name}
            known = self._variables[name, value] = _look(value, f"environment {name}")
        return known

    def _file_of(self, name: str) -> tuple[str, str]:
        path = self.environ.get(f"{name}_FILE", "")
        return path, f"file {path} (environment {name}_FILE)"

    def _known_file(self, path: str, source: str) -> Look | None:
        if not path:
            return Look(source)
        known = self._files.get(path)
        return known[1] if known is not None and known[0] == stamp(path) else None

    async def _file(self, path: str, source: str) -> Look:
        known = self._known_file(path, source)
        if known is not None:
            return known
        before = stamp(path)
        try:
            look = await bounded(lambda: _read(path, source), FILE_TIMEOUT_S)
        except TimeoutError:
            look = Look(source, note=f"{path} did not answer in {FILE_TIMEOUT_S:g} s; its disk hangs.", broken=True)
        self._files[path] = (before, look)
        return look

    def _known_command(self, argv: tuple[str, ...]) -> Look | None:
        known = self._commands.get(argv)
        return known[1] if known is not None and self.clock() < known[0] else None

    async def _command(self, argv: tuple[str, ...]) -> Look:
        known = self._known_command(argv)
        if known is not None:
            return known
        source = f"command {argv[0]}"
        try:
            look = _look(await printed(argv, self.environ), source, empty="It printed no key.")
        except ConfigError as exc:
            look = Look(source, note=exc.message, broken=True)
        self._commands[argv] = (self.clock() + (FAILURE_TTL_S if look.broken else COMMAND_TTL_S), look)
        return look


def _read(path: str, source: str) -> Look:
    # Kubernetes mounts a secret as a chain of links, so links are followed here; a pipe or a device would hang the
    # open.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return Look(
                    source, note=f"{path} is not a plain file. Name a file that holds the key alone.", broken=True
                )
            text = file.read(MAX_VALUE + 8).decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as exc:
        if isinstance(exc, OSError) and exc.errno in {errno.ENOENT, errno.ENOTDIR}:
            return Look(source, note=f"There is no file {path}.")
        why = exc.strerror if isinstance(exc, OSError) else "not a path"
        return Look(source, note=f"{path} cannot be read ({why}). Let user {os.geteuid()} read it.", broken=True)
    return _look(text, source, empty=f"{path} is empty.")


def _look(text: str, source: str, empty: str = "") -> Look:
    """Empty means unset, with ``empty`` as the note where a person would wonder."""
    if not text.strip():
        return Look(source, note=empty)
    try:
        value = cleaned(text)
    except ValueError as exc:
        return Look(source, note=f"The key in {source} {exc}.", broken=True)
    if is_own_token(value):
        return Look(source, note=f"Ignored: {OWN}.")
    return Look(source, value)
