"""Extensions found, packed and compared."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import ide_files

MANIFEST = {"name": "Greeter", "publisher": "Acme", "version": "1.2.3", "engines": {"vscode": "^1.90.0"}}


def made(folder: Path, name: str = "greeter", manifest: object = MANIFEST) -> Path:
    source = folder / name
    (source / "media").mkdir(parents=True)
    (source / "package.json").write_text(json.dumps(manifest))
    (source / "media" / "a.js").write_text("'a'")
    (source / "LICENSE").write_text("free")
    return source


def test_finds_folders_and_packed_files(tmp_path: Path) -> None:
    made(tmp_path)
    (source,) = ide_files.extensions(tmp_path)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "x.vsix").write_bytes(ide_files.pack(source))
    (packed,) = ide_files.extensions(tmp_path / "packed")
    assert (source.name, source.version) == (packed.name, packed.version) == ("acme.greeter", "1.2.3")
    assert list(source.files()) == list(packed.files())


def test_a_node_package_that_is_no_extension_is_passed_over(tmp_path: Path) -> None:
    made(tmp_path, manifest={"name": "library", "version": "1.0.0"})
    assert ide_files.extensions(tmp_path) == ()


@pytest.mark.parametrize("manifest", [{"engines": {"vscode": "*"}}, [], "x"])
def test_a_broken_manifest_is_named(tmp_path: Path, manifest: object) -> None:
    made(tmp_path, manifest=manifest)
    with pytest.raises(ConfigError, match="greeter"):
        ide_files.extensions(tmp_path)


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.vsix").write_text("not a zip")
    with pytest.raises(ConfigError, match=r"bad\.vsix"):
        ide_files.extensions(tmp_path)


def test_packing_is_reproducible_and_describes_the_extension(tmp_path: Path) -> None:
    (extension,) = ide_files.extensions(made(tmp_path).parent)
    packed = ide_files.pack(extension)
    assert packed == ide_files.pack(extension)
    archive = zipfile.ZipFile(io.BytesIO(packed))
    assert {"[Content_Types].xml", "extension.vsixmanifest", "extension/package.json"} <= set(archive.namelist())
    assert b'Id="greeter"' in archive.read("extension.vsixmanifest")


def test_a_packed_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.vsix", "w") as archive:
        archive.writestr("extension/package.json", json.dumps(MANIFEST))
        archive.writestr("extension/../../outside", "x")
    (extension,) = ide_files.extensions(tmp_path)
    with pytest.raises(ConfigError, match="leads out"):
        list(extension.files())


def test_the_digest_follows_the_contents(tmp_path: Path) -> None:
    source = made(tmp_path)
    before = ide_files.digest(ide_files.extensions(tmp_path))
    assert before == ide_files.digest(ide_files.extensions(tmp_path))
    (source / "media" / "a.js").write_text("'b'")
    assert before != ide_files.digest(ide_files.extensions(tmp_path))


def test_shipped_extensions_are_readable() -> None:
    assert ide_files.extensions(ide_files.folder()) is not None


def test_no_lock_file_names_where_packages_come_from() -> None:
    for lock in ide_files.folder().glob("*lock.json"):
        assert '"resolved"' not in lock.read_text(), lock
