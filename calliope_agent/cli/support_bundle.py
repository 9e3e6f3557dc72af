"""``calliope-agent support-bundle``: one file with what a helper asks for first, and no secret in it.

Decisions
1. Every part goes through the redaction boundary, which knows the values of this environment whose names sound like
   secrets, the agent's tokens and every key that the agent would use; variables are told by name, never by value.
2. A part that cannot be had is a line that says why: the bundle is wanted most where something is broken.
3. The container's log is not in the container: it is piped in (``docker logs NAME 2>&1 | ... --logs -``). What lies in
   the home, VS Code's own logs, is taken from there.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from calliope_agent import __version__, catalog, environment, paths, tokens
from calliope_agent.cli import doctor
from calliope_agent.cli.place import door, loaded
from calliope_agent.errors import AgentError, ConfigError
from calliope_agent.keys import KeyStore, UserKeys
from calliope_agent.provider import need_of
from calliope_agent.redact import Redactor
from calliope_agent.secret import Secret

LOG_BYTES = 2_000_000  # the end of a log says what went wrong
WHYS = 50
CGROUPS = (Path("/sys/fs/cgroup"), *(Path("/sys/fs/cgroup") / name for name in ("memory", "cpu", "cpuacct", "pids")))
FIGURES = (
    "memory.current", "memory.max", "memory.peak", "memory.events", "memory.usage_in_bytes", "memory.limit_in_bytes",
    "memory.max_usage_in_bytes", "memory.oom_control", "cpu.max", "cpu.stat", "cpu.cfs_quota_us", "cpu.cfs_period_us",
    "cpuacct.usage", "pids.current", "pids.max",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a file to send to who helps you: settings and what is wrong with them, versions, state, the last answers'"
        " stories, the container's limits, logs. No prompt, no answer, no key is in it; look into it before you send it."
    )
    parser.add_argument("file", nargs="?", type=Path, help="where to (default: support-bundle-TIME.tar.gz here)")
    parser.add_argument("--logs", help="a log file to add; - reads `docker logs NAME 2>&1` or the like from a pipe")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0, and the file's path on standard output. Raises `ConfigError` when it cannot be written."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target: Path = args.file or Path(f"support-bundle-{stamp}.tar.gz")
    redactor = known_secrets(environ)
    try:
        # Exclusive: nothing is written over, and no link is followed.
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise ConfigError(f"{target} cannot be written: {exc.strerror}. Name another file.") from exc
    with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in parts(environ, args.logs):
            content = redactor.scrub(text).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"support-bundle-{stamp}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
    print(target)
    return 0


def parts(environ: Mapping[str, str], logs: str | None) -> Iterator[tuple[str, str]]:
    """Name and text of every file in the bundle, not yet redacted."""
    makers: dict[str, Callable[[], str]] = {
        "doctor.json": lambda: _doctor(environ),
        "versions.json": lambda: json.dumps(versions(), indent=1),
        "status.json": lambda: _asked(environ, "/api/health"),
        "why.json": lambda: _asked(environ, f"/v1/requests?limit={WHYS}"),
        "limits.txt": lambda: "\n".join(_limits()),
        "folders.txt": lambda: "\n".join(_folders(environ)),
        "environment.txt": lambda: "\n".join(sorted(environ)),
    }
    for name, make in makers.items():
        yield name, _or_why_not(make)
    if logs is not None:
        yield "container.log", _or_why_not(lambda: _log(logs))
    for file in _ide_logs(environ):
        yield f"ide/{file.parent.name}-{file.name}", _or_why_not(lambda file=file: _end_of(file))  # type: ignore[misc]


def known_secrets(environ: Mapping[str, str]) -> Redactor:
    """A redactor that knows every secret this command can come by."""
    redactor = Redactor()
    for name, value in environ.items():
        if value and environment.sounds_secret(name):
            redactor.add(Secret(value))
    try:
        found = loaded(environ)
        place = paths.find(environ, found.settings)
        for file in (place.token_file, place.manage_token_file):
            token = tokens.read(file)
            if token is not None:
                redactor.add(token)
        for key in asyncio.run(_keys(environ)):
            redactor.add(key)
    except (AgentError, OSError) as exc:
        print(f"calliope-agent: not every key could be looked up, patterns hide the rest: {exc}", file=sys.stderr)
    return redactor


async def _keys(environ: Mapping[str, str]) -> list[Secret]:
    found = loaded(environ).settings
    place = paths.find(environ, found)
    store = KeyStore(environ, place.config, cast("UserKeys", found.user_keys), found.keys_passphrase)
    listed = catalog.load(catalog.standard(environ, place.config), environ, own_origins=())
    keys = [await store.find(need_of(provider)) for provider in listed.providers]
    return [key.value for key in keys if key is not None]


def versions() -> dict[str, Any]:
    """What runs here."""
    return {
        "calliope-agent": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "user": os.geteuid(),
        "groups": os.getgroups(),
        "packages": {
            one.name: one.version for one in sorted(metadata.distributions(), key=lambda one: one.name.lower())
        },
    }


def _doctor(environ: Mapping[str, str]) -> str:
    return json.dumps(doctor.as_dict(asyncio.run(doctor.examine(environ))), indent=1)


def _asked(environ: Mapping[str, str], path: str) -> str:
    return json.dumps(json.loads(door(environ).open("GET", path).read()), indent=1)


def _limits() -> Iterator[str]:
    """The container's own figures, of both generations of control groups."""
    for file in (folder / name for folder in CGROUPS for name in FIGURES):
        if file.is_file():
            yield f"{file}: {file.read_text().strip()}"
    yield f"load: {os.getloadavg()}, processors: {os.cpu_count()}"


def _folders(environ: Mapping[str, str]) -> Iterator[str]:
    place = paths.find(environ, loaded(environ).settings)
    mounts = Path("/proc/self/mounts")
    text = mounts.read_text(encoding="utf-8", errors="replace") if mounts.exists() else ""
    for name, folder in (
        ("home", Path(environ.get("HOME") or "/")), ("config", place.config), ("state", place.state),
        ("runtime", place.runtime),
    ):  # fmt: skip
        there = next(one for one in (folder, *folder.parents) if one.exists())
        use, found = shutil.disk_usage(there), there.stat()
        kind = paths.network_file_system(there, text) or "local"
        yield (
            f"{name}: {folder} ({'there' if folder.exists() else 'not made'}), {kind}, owner {found.st_uid}:{found.st_gid},"
            f" mode {found.st_mode & 0o7777:o}, writable {os.access(there, os.W_OK)}, {use.free >> 20} MiB free"
        )


def _ide_logs(environ: Mapping[str, str]) -> list[Path]:
    """Of the newest start of the IDE."""
    starts = sorted((Path(environ.get("HOME") or "/") / ".calliope-ide" / "logs").glob("*"))
    return [file for file in starts[-1].rglob("*.log") if file.is_file()][:20] if starts else []


def _log(source: str) -> str:
    return sys.stdin.read()[-LOG_BYTES:] if source == "-" else _end_of(Path(source))


def _end_of(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - LOG_BYTES))
        return opened.read().decode("utf-8", "replace")


def _or_why_not(make: Callable[[], str]) -> str:
    try:
        return make()
    except (AgentError, OSError, ValueError, KeyError) as exc:
        return f"This could not be had: {exc}\n"
