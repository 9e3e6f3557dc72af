"""Which folder is the home, and that nothing is done through a link."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import home, runtime
from calliope_agent.launcher.home import COMPOSE_HOME
from calliope_agent.launcher.process import Account

ROOT = Path(__file__).parents[2]


def test_the_compose_file_s_mount_is_the_home() -> None:
    environ = {"HOME": "/root"}
    chosen = home.choose(environ, "alice", container=True, is_mount=lambda path: path == COMPOSE_HOME)
    assert chosen == COMPOSE_HOME


def test_a_spawner_s_mount_is_the_home_even_beside_the_other() -> None:
    chosen = home.choose({"HOME": "/home/calliope"}, "alice", container=True, is_mount=lambda _path: True)
    assert chosen == Path("/home/alice")


def test_a_home_that_somebody_set_stays() -> None:
    for container in (True, False):
        assert home.choose({"HOME": "/mnt/a"}, "alice", container=container, is_mount=lambda _path: True) == Path(
            "/mnt/a"
        )


@pytest.mark.parametrize("user", ["../root", "a/b", "..", "."])
def test_a_user_s_name_is_no_path(user: str) -> None:
    with pytest.raises(ConfigError, match="JUPYTERHUB_USER"):
        home.choose({"HOME": "/"}, user, container=True, is_mount=lambda _path: False)


def test_without_a_home_it_is_said() -> None:
    with pytest.raises(ConfigError, match="HOME is not set"):
        home.choose({}, "", container=False, is_mount=lambda _path: False)


def test_a_home_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="cannot be used"):
        home.prepare(tmp_path / "home", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_home_that_may_not_be_entered_is_told_with_its_owner() -> None:
    shut = Path(tempfile.mkdtemp())
    shut.chmod(0o770)
    try:
        with pytest.raises(ConfigError, match=r"belongs to user id 0, mode 770; this is user id 61001.*chown it"):
            home.as_person(Account(61001, 61001, "x", shut), lambda: home.prepare(shut, None))
    finally:
        shut.rmdir()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv to be less")
def test_root_that_is_nobody_in_the_home_lets_the_person_look() -> None:
    """As on NFS with root_squash: root without its override is held to the mode, as such a server holds it."""
    closed = Path(tempfile.mkdtemp())
    os.chown(closed, 61001, 61001)
    script = (
        "import pathlib; from calliope_agent.launcher import home, process as p\n"
        f"closed = pathlib.Path({str(closed)!r}); person = p.Account(61001, 61001, 'x', closed)\n"
        "home.prepare(closed, person)\n"
        "command = p.Command(argv=('/bin/pwd',), env={}, cwd=closed, account=person)\n"
        "print(p.start(command).communicate()[0].decode())"
    )
    less = "-dac_override,-dac_read_search"
    words = ["setpriv", f"--bounding-set={less}", f"--inh-caps={less}", sys.executable, "-c", script]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    finally:
        shutil.rmtree(closed)
    assert done.stdout.strip() == str(closed), done.stderr


def test_a_missing_home_is_made_private(tmp_path: Path) -> None:
    home.prepare(tmp_path / "home", None)
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_a_runtime_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="link"):
        runtime.make(tmp_path / "run")


def test_a_token_is_made_once_private_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "token"
    first = runtime.token(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert first.reveal().startswith("cal-")
    assert runtime.token(file) == first


def test_a_token_file_with_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("no token\n")
    with pytest.raises(ConfigError, match="Remove it"):
        runtime.token(tmp_path / "token")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError):
        runtime.token(tmp_path / "link")


def test_sockets_have_a_short_path_however_deep_the_runtime_directory_is(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90)
    assert len(str(runtime.for_sockets(deep) / "ide.sock")) < 107
    assert runtime.for_sockets(deep) == runtime.for_sockets(deep)
    assert runtime.for_sockets(Path("/run/x")) == Path("/run/x/person")


def test_a_passable_runtime_directory_lets_other_accounts_reach_their_own(tmp_path: Path) -> None:
    made = runtime.make(tmp_path / "run" / "server", passable=True)
    assert [folder.stat().st_mode & 0o777 for folder in (made, made.parent)] == [0o711, 0o711]
    assert runtime.make(made / "person").stat().st_mode & 0o777 == 0o700
