"""Run a module of this installation in Python's isolated mode: ``python -I isolated.py MODULE ARGS``.

Isolated mode keeps the working directory, PYTHONPATH and the user's site-packages out of ``sys.path``: a ``json.py`` in
a person's folder must not become part of the server that holds their token. A checkout that is not installed would be
lost with them, so its own folder is added back, last.
"""

import ctypes
import runpy
import sys
from pathlib import Path


def argv(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-I", str(Path(__file__).resolve()), module, *arguments)


if __name__ == "__main__":
    # From the first moment: the environment of Jupyter and agent holds tokens that processes of the same user could read.
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.append(root)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
