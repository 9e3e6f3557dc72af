"""Where providers' files lie, in order of trust, and what is in them now."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from calliope_agent import manifest, tomlfile
from calliope_agent.errors import ConfigError
from calliope_agent.manifest import Manifest, Trust

Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """``operator`` and ``person`` are folders of ``NAME.toml``, ``config`` is the person's config.toml."""

    shipped: Path
    operator: Path | None = None
    person: Path | None = None
    config: Path | None = None


def shipped_dir() -> Path:
    """The wheel's copy, or the checkout's folder: an editable install has no copy, so edits there count at once.

    By ``__file__``: importlib.resources would cost 10 ms at every start for packages in zip files, which this is not.
    """
    package = Path(__file__).parent
    return next(folder for folder in (package / "providers", package.parent / "providers") if folder.is_dir())


def standard(environ: Mapping[str, str], config_dir: Path | None) -> Sources:
    """The usual places. ``config_dir`` is the person's (CALLIOPE_CONFIG_DIR), None where there is none."""
    operator = environ.get("CALLIOPE_PROVIDERS_DIR", "").strip() or "/etc/calliope/providers.d"
    person = config_dir / "providers.d" if config_dir else None
    return Sources(shipped_dir(), Path(operator), person, config_dir / "config.toml" if config_dir else None)


@dataclass(frozen=True, slots=True)
class Found:
    """One provider's place: its manifest, or why there is none."""

    place: str
    name: str
    trust: Trust
    manifest: Manifest | None
    problem: str | None


def read(sources: Sources) -> list[Found]:
    """Every provider of every source, shipped first; a broken file is one `Found` with its problem."""
    found = [item for folder, trust in _folders(sources) for item in _from_folder(folder, trust)]
    if sources.config is not None and _is_file(sources.config):
        found += _from_config(sources.config)
    return found


def stamp(sources: Sources) -> Stamp:
    """Changes whenever a file was added, removed or written (by stat alone, cheap enough to ask every second)."""
    paths = [sources.config] if sources.config else []
    for folder, _ in _folders(sources):
        with contextlib.suppress(OSError):
            paths += _paths(folder)
    return tuple(line for path in paths if (line := _stat(path)))


def _stat(path: Path) -> tuple[str, int, int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return str(path), info.st_mtime_ns, info.st_size, info.st_ino


def _folders(sources: Sources) -> Iterator[tuple[Path, Trust]]:
    yield sources.shipped, "shipped"
    if sources.operator is not None:
        yield sources.operator, "operator"
    if sources.person is not None:
        yield sources.person, "person"


def _paths(folder: Path) -> list[Path]:
    """Raises OSError for a folder that is there but cannot be read."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names if name.endswith(".toml") and not name.startswith(".")]


def _from_folder(folder: Path, trust: Trust) -> list[Found]:
    try:
        return [_from_file(path, trust) for path in _paths(folder)]
    except OSError as exc:
        return [Found(str(folder), "", trust, None, f"{folder}: cannot be read ({exc.strerror})")]


def _from_file(path: Path, trust: Trust) -> Found:
    name = path.name.removesuffix(".toml")
    try:
        if not _is_file(path):
            raise ConfigError(f"{path}: is no regular file")
        return Found(str(path), name, trust, manifest.parse(tomlfile.read(path), name, trust), None)
    except ConfigError as exc:
        return Found(str(path), name, trust, None, exc.message)


def _from_config(path: Path) -> list[Found]:
    """The tables ``[providers.NAME]``. What is not TOML at all is the settings' problem, and is said there."""
    try:
        file = tomlfile.read(path)
    except ConfigError as exc:
        return [Found(str(path), "", "person", None, exc.message)]
    tables = file.data.get("providers", {})
    if not isinstance(tables, dict):
        problem = f"{file.where('providers')}: providers must be tables, [providers.NAME]"
        return [Found(str(path), "", "person", None, problem)]
    return [_from_table(file, str(name)) for name in tables]


def _from_table(file: tomlfile.TomlFile, name: str) -> Found:
    place = f"{file.path} [providers.{name}]"
    try:
        return Found(place, name, "person", manifest.parse(file, name, "person", ("providers", name)), None)
    except ConfigError as exc:
        return Found(place, name, "person", None, exc.message)


def _is_file(path: Path) -> bool:
    """Regular, following links: a pipe or a device in a person's folder would hold the reader for ever."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
