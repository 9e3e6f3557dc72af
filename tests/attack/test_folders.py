"""Another user of this machine was here first: folders in /tmp, agent.json, the port of an agent that died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calliope_agent import paths
from calliope_agent.cli.place import door
from calliope_agent.errors import ConfigError
from calliope_agent.launcher import runtime
from calliope_agent.server import running

STRANGER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder like /tmp."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def announce(folder: Path, **told: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.json").write_text(
        json.dumps({"url": "http://127.0.0.1:9", "pid": os.getpid(), "version": "0", **told})
    )
    (folder / "token").write_text("cal-0123456789abcdef0123456789\n")


@needs_root
@pytest.mark.parametrize("which", ["calliope-agent-0", "calliope-agent-0/default"])
def test_a_folder_that_a_stranger_made_first_is_refused(shared: Path, which: str) -> None:
    folder = shared / "calliope-agent-0" / "default"
    announce(folder)
    os.chown(shared / which, STRANGER, STRANGER)
    (shared / "calliope-agent-0").chmod(0o777)
    environ = {
        "HOME": str(shared),
        "CALLIOPE_RUNTIME_DIR": str(folder),
        "CALLIOPE_AGENT_TOKEN": "cal-secret-secret-secret",
    }
    with pytest.raises(ConfigError, match=str(STRANGER)):
        paths.private(folder)
    with pytest.raises(ConfigError, match=str(STRANGER)):
        door(environ)


@needs_root
def test_a_link_that_a_stranger_made_is_refused(shared: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    announce(own / "default")
    (shared / "calliope-agent-0").symlink_to(own)
    os.chown(shared / "calliope-agent-0", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(ConfigError, match=str(STRANGER)):
        paths.private(shared / "calliope-agent-0" / "default")


@needs_root
def test_the_launcher_puts_no_socket_below_a_strangers_folder(shared: Path) -> None:
    theirs = shared / "calliope-0-0123456789abcdef"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    with pytest.raises(ConfigError, match=str(STRANGER)):
        runtime.make(theirs / "person")
    assert not (theirs / "person").exists()


def test_folders_on_the_way_are_private_whatever_the_umask(shared: Path) -> None:
    code = "import os, sys; os.umask(0); from pathlib import Path; from calliope_agent import paths; paths.private(Path(sys.argv[1]))"
    folder = shared / "calliope-agent-0" / "default"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert [one.stat().st_mode & 0o777 for one in (folder, folder.parent)] == [0o700, 0o700]


def test_a_dead_agents_port_gets_no_token(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    announce(tmp_path, pid=dead.pid)
    with pytest.raises(ConfigError, match="not running"):
        door({"HOME": str(tmp_path), "CALLIOPE_RUNTIME_DIR": str(tmp_path)})


def test_whether_an_agent_runs_is_not_asked_of_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    announce(tmp_path, url="http://127.0.0.1:9")
    place = paths.find({"HOME": str(tmp_path), "CALLIOPE_RUNTIME_DIR": str(tmp_path)})
    assert running(place) is None
