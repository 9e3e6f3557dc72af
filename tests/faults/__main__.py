"""``python -m tests.faults --table`` prints the matrix; ``--check README.md`` says whether that file's copy is still true."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.faults.table import differences, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--table", action="store_true", help="print the matrix")
    choice.add_argument(
        "--check", type=Path, metavar="FILE", help="compare the copy between the markers <!-- faults -->"
    )
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return 0
    missing = list(differences(arguments.check.read_text(encoding="utf-8")))
    for line in missing:
        print(f"{arguments.check} has not: {line}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
