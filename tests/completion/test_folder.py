"""The cache's folder: private, or refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calliope_agent.completion import folder
from calliope_agent.errors import ConfigError


def test_a_new_folder_is_closed_to_others(tmp_path: Path) -> None:
    made = folder.private(tmp_path / "state" / "cache")
    assert made.stat().st_mode & 0o777 == 0o700
    assert folder.private(made) == made


def test_one_that_others_may_only_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o755)
    assert folder.private(tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_one_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(ConfigError, match="written by others"):
        folder.private(tmp_path / "cache")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="is a link"):
        folder.private(tmp_path / "cache")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(ConfigError, match="cannot be used"):
        folder.private(tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_accounts_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chown(tmp_path / "cache", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to the account 12345"):
        folder.private(tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_rights_above_it_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="cannot be used"):
            folder.private(tmp_path / "cache")
    finally:
        tmp_path.chmod(0o700)
