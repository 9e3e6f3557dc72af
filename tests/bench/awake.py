"""Cores that do not sleep while something is measured.

On a virtual machine an idle core sleeps in the hypervisor, and waking it took between nothing and three times a plain request in runs of
one afternoon, nginx' own figures included: they told of the host. A process of the scheduler's idle class (sched(7)) on each core keeps
it awake, and gives way at once to whoever has work.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

_SPIN = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); print(flush=True)\nwhile True: pass"


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """While the block runs. Where the system has no such class (anything but Linux) cores sleep as they like."""
    if not hasattr(os, "SCHED_IDLE"):
        yield
        return
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            spinning = stack.enter_context(subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE))
            stack.callback(spinning.kill)
            assert spinning.stdout is not None
            spinning.stdout.readline()  # from here on it is of the idle class
        yield
