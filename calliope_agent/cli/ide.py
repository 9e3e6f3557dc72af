"""``calliope-agent ide``: install the IDE, say where it is, pack an extension."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from calliope_agent import paths, settings
from calliope_agent.errors import ConfigError
from calliope_agent.launcher import ide_files, ide_install


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, told in (("install", "install it, or bring it up to date"), ("path", "print where it is installed")):
        action = actions.add_parser(name, help=told)
        action.add_argument(
            "--data-dir", type=Path, help="where it lives (CALLIOPE_DATA_DIR; ~/.local/share/calliope-agent)"
        )
    packing = actions.add_parser("pack", help="pack the shipped extensions as .vsix files, for another VS Code")
    packing.add_argument("folder", type=Path, help="where the files go")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Exit status; the command's answer alone goes to standard output. Raises `ConfigError`."""
    if args.action == "pack":
        _pack(args.folder)
    else:
        print(_installed(args, environ).root)
    return 0


def _installed(args: argparse.Namespace, environ: Mapping[str, str]) -> ide_install.IdeInstall:
    data_dir = args.data_dir or paths.find(environ, settings.load(environ).settings).data
    if args.action == "install":
        return ide_install.install(data_dir, environ, lambda line: print(line, file=sys.stderr))
    found = ide_install.find(data_dir)
    if found is None:
        raise ConfigError(f"No IDE is installed in {data_dir}. Run `calliope-agent ide install`.")
    return found


def _pack(folder: Path) -> None:
    for extension in ide_files.extensions(ide_files.folder()):
        target = folder / f"{extension.name}-{extension.version}.vsix"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target.write_bytes(ide_files.pack(extension))
        except OSError as exc:
            raise ConfigError(f"{target} cannot be written: {exc.strerror}. Choose another folder.") from exc
        print(target)
