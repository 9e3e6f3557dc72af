"""``calliope-agent ide``: install the IDE, say where it is, pack an extension."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from calliope_agent.errors import AgentError, ConfigError
from calliope_agent.launcher import ide_files, ide_install


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, told in (("install", "install it, or bring it up to date"), ("path", "print where it is installed")):
        action = actions.add_parser(name, help=told)
        action.add_argument("--data-dir", type=Path, help="where it lives (CALLIOPE_DATA_DIR; ~/.local/share/calliope)")
    packing = actions.add_parser("pack", help="pack the shipped extensions as .vsix files, for another VS Code")
    packing.add_argument("folder", type=Path, help="where the files go")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Exit status: 0, or 1 with one line on standard error."""
    try:
        if args.action == "pack":
            _pack(args.folder)
        else:
            print(_installed(args, environ).root)
    except (AgentError, OSError) as exc:
        print(f"calliope-agent ide: {exc}", file=sys.stderr)
        return 1
    return 0


def _installed(args: argparse.Namespace, environ: Mapping[str, str]) -> ide_install.IdeInstall:
    data_dir = args.data_dir or data_folder(environ)
    if args.action == "install":
        return ide_install.install(data_dir, environ, lambda line: print(line, file=sys.stderr))
    found = ide_install.find(data_dir)
    if found is None:
        raise ConfigError(f"No IDE is installed in {data_dir}. Run `calliope-agent ide install`.")
    return found


def data_folder(environ: Mapping[str, str]) -> Path:
    """CALLIOPE_DATA_DIR, else below XDG_DATA_HOME."""
    if environ.get("CALLIOPE_DATA_DIR"):
        return Path(environ["CALLIOPE_DATA_DIR"])
    home = Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - Path.home() ignores `environ` likewise
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "calliope"


def _pack(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for extension in ide_files.extensions(ide_files.folder()):
        target = folder / f"{extension.name}-{extension.version}.vsix"
        target.write_bytes(ide_files.pack(extension))
        print(target)
