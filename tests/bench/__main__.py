"""``python -m tests.bench [--quick] [--json FILE]``: what the agent costs, as ratios in one run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import budget
from tests.bench.agent_bench import Effort, measure

RESULTS = Path(__file__).parent / "results" / "agent.json"


def main() -> int:
    """0 whatever the figures say: on a shared machine a verdict is a hint."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: about 20 s instead of 2 minutes")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help=f"where figures go ({RESULTS})")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    figures = measure(Effort.quick() if args.quick else Effort(), lambda text: print(f"… {text}", file=sys.stderr))
    found = budget.rows(figures)
    machine = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(load, 2),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "machine": machine,
        "figures": dataclasses.asdict(figures),
        "verdicts": {row.what: row.verdict for row in found},
    }
    args.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(budget.table(found))
    print(
        f"\n{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, "
        f"load {machine['load']} before it; figures in {args.json}"
    )
    return 0


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
