"""The guard: a small process above the launcher that leaves nobody behind, whichever of the two is killed.

::

    guard (the pid the hub or the shell knows; subreaper) ── launcher (subreaper) ── agent, IDE, Jupyter ── theirs

Decisions
1. PR_SET_PDEATHSIG reaches children but not grandchildren: after ``kill -9`` of the launcher the extension host of the
   IDE would live on. The guard adopts such orphans and ends them; a killed guard makes the launcher stop in order.
2. It is a plain fork made before anything is imported that costs memory, so its pages are shared with the launcher.
   In a container tini's death takes all with it and the guard is one more, nearly free, process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from calliope_agent.launcher import process

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_S = 7.0  # below the 10 s that Docker and the hub wait before SIGKILL


def guarded(run: Callable[[], int]) -> int:
    """Run ``run`` in a child process and return its exit code (128 + the signal's number when it was killed)."""
    process.become_subreaper()
    process.hide_memory()  # the environment it was started with holds the hub's token and the providers' keys
    guard = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    launcher = os.fork()
    if launcher == 0:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guard:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        return run()

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(launcher, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    code = _wait_for(launcher)
    _end_the_rest()
    return code


def _wait_for(launcher: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == launcher:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _end_the_rest() -> None:
    """Children of a killed launcher got SIGTERM by its death; grandchildren get it here, SIGKILL when it is late."""
    left = process.descendants(os.getpid())
    process.send(left, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while left := process.descendants(os.getpid()):
        if time.monotonic() > deadline:
            process.send(left, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)
