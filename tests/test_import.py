"""What an import and ``--help`` cost: no litellm, no network, no library that is not used yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent_process import environment

# An audit hook sees what a patched socket module would miss: C code that opens or resolves by itself.
REFUSING = """
import sys
def refuse(event, arguments):
    if event.startswith("socket.") and event not in ("socket.gethostname",):
        raise SystemExit(f"{event} {arguments!r} at import")
sys.addaudithook(refuse)
"""
HEAVY = ("litellm", "openai", "httpx", "aiohttp", "keyring", "cryptography", "diskcache", "uvicorn", "jupyter_server")


def run(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", REFUSING + code],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_refusal_refuses(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"socket\.getaddrinfo"):
        run(tmp_path, "import socket\nsocket.create_connection(('127.0.0.1', 9))")


def test_the_package_imports_nothing_heavy_and_opens_nothing(tmp_path: Path) -> None:
    loaded = run(tmp_path, "import calliope_agent\nprint(*sys.modules)").split()
    assert not {name for name in HEAVY if name in loaded}


def test_help_needs_none_of_the_server(tmp_path: Path) -> None:
    code = "from calliope_agent.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    told = run(tmp_path, code)
    assert "calliope-agent serve" in told
    assert not {name for name in HEAVY if name in told.split()}


def test_the_server_starts_without_what_only_requests_need(tmp_path: Path) -> None:
    loaded = run(tmp_path, "import calliope_agent.server\nprint(*sys.modules)").split()
    assert not {name for name in HEAVY if name in loaded} - {"uvicorn"}


def test_no_module_opens_a_socket_when_it_is_imported(tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, calliope_agent\n"
        "for found in pkgutil.walk_packages(calliope_agent.__path__, 'calliope_agent.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
        "assert 'litellm' not in sys.modules, 'one door loads it, when it is needed'\n"
    )
    run(tmp_path, code)
