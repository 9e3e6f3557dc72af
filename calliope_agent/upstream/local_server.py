"""The embedded model's process: llama.cpp's OpenAI server on a unix socket, for as long as standard input is open.

Run as ``python -I local_server.py`` by `local_child`; it imports nothing of this package, so that isolated mode
finds it wherever the package lies. The first line of standard input is a JSON object (see `Order`): the API key
stands there and so in no argv and no environment. The first line of standard output is ``{"ready": true}`` or
``{"failed": "engine" | "weights", "why": "..."}``.

Decisions
1. A process, not a thread: loading holds the interpreter's lock for a second, a request dropped in process decodes
   on until its next callback, and an engine built for AVX2 ends an older CPU's process by SIGILL. HTTP has none of
   that, and the ordinary OpenAI-wire door speaks it.
2. OMP_WAIT_POLICY=PASSIVE before the engine is loaded: OpenMP threads that spin on two busy cores made it 15 times
   slower.
3. Batches of 128 tokens: a client that leaves is noticed between two batches. A stream's is noticed at the next token,
   that of a plain or still unanswered request when the engine has had nothing to say to anybody for a second: while
   another stream runs it may decode on, up to the length bound. Polling ``/slots`` has the same effect.
4. The engine frees the model by itself after an idle time (336 → 56 MB measured) and loads it again for the next
   request (0.3 s measured).
5. Two slots share one context. A length bound where the request has none: small models can repeat themselves for
   ever.
6. When memory runs out the kernel should take this process before the agent (oom_score_adj), and it yields the CPU
   (nice).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TypedDict

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Order(TypedDict):
    """What to serve. ``context`` and ``most`` are tokens, ``idle`` seconds (-1: never free the model)."""

    parent: int
    model: str
    name: str
    socket: str
    key: str
    context: int
    most: int
    threads: int
    idle: int


def main() -> None:
    order: Order = json.loads(sys.stdin.buffer.readline())
    _die_with(order["parent"])
    _yield_to_others()
    out = os.dup(1)
    os.dup2(2, 1)  # whatever the engine prints is no answer of ours
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        import xllamacpp  # noqa: PLC0415  # after the environment is set
    except ImportError as exc:
        _say(out, {"failed": "engine", "why": str(exc)})
        return
    try:
        _server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), order))
    except RuntimeError as exc:
        _say(out, {"failed": "weights", "why": str(exc)})
        return
    _say(out, {"ready": True})
    sys.stdin.buffer.read()  # ends when the agent closes the pipe, or when there is no agent any more
    os._exit(0)


def _die_with(parent: int) -> None:
    """Has the kernel end us with the agent, even while the engine holds the interpreter's lock."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(0)


def _yield_to_others() -> None:
    os.nice(5)
    try:
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    except OSError:
        return  # some sandboxes refuse even raising it


def _parameters(params: Any, order: Order) -> Any:
    params.model.path = order["model"]
    params.model_alias = {order["name"]}
    params.hostnames, params.port, params.api_keys = [order["socket"]], 0, [order["key"]]
    params.n_ctx, params.n_parallel, params.kv_unified = order["context"], 2, True
    params.n_predict, params.cache_ram_mib = order["most"], 64
    params.n_batch = params.n_ubatch = 128
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = order["threads"]
    params.sleep_idle_seconds = order["idle"]
    params.offline, params.ui, params.fit_params, params.verbosity = True, False, False, 1
    return params


def _say(out: int, line: dict[str, Any]) -> None:
    os.write(out, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
