"""The installation's failures and repetitions. A real one is made by the end-to-end tests."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import ide_files, ide_install

# Stands in for npm: "installs" the few files that the steps after it look for.
FAKE_NPM = """#!/bin/sh
[ "$1" = --version ] && { echo 11.0.0; exit 0; }
echo "$PWD" >> "$CALLS"
case "$PWD" in
  */lib/vscode/extensions) ;;
  */lib/vscode)
    mkdir -p node_modules/@vscode/ripgrep-universal/bin/linux-x64 node_modules/@vscode/ripgrep-universal/bin/win32-x64 \
      node_modules/@vscode/ripgrep-universal/bin/linux-arm64 node_modules/node-pty/prebuilds/linux-x64 \
      node_modules/@vscode/spdlog node_modules/@vscode/native-watchdog node_modules/@github ;;
  *)
    for machine in x64 arm64; do
      mkdir -p node_modules/node-linux-$machine/bin; : > node_modules/node-linux-$machine/bin/node
    done
    mkdir -p node_modules/code-server/out/node node_modules/code-server/lib/vscode/extensions/git \
      node_modules/code-server/lib/vscode/bin/remote-cli node_modules/code-server/lib/vscode/bin/helpers
    : > node_modules/code-server/out/node/entry.js ;;
esac
"""


def with_npm(folder: Path, script: str) -> dict[str, str]:
    (folder / "bin").mkdir()
    npm = folder / "bin" / "npm"
    npm.write_text(script)
    npm.chmod(0o755)
    return {"PATH": f"{npm.parent}:{os.defpath}", "CALLS": str(folder / "calls")}


def test_nothing_installed_is_none(tmp_path: Path) -> None:
    assert ide_install.find(tmp_path) is None


def test_a_failing_npm_leaves_nothing_behind_and_says_why(tmp_path: Path) -> None:
    script = '#!/bin/sh\n[ "$1" = --version ] && echo 11.0.0 && exit\necho "npm error code ENOTFOUND" >&2; exit 1\n'
    data = tmp_path / "data"
    with pytest.raises(ConfigError, match=r"ENOTFOUND.*Check the network"):
        ide_install.install(data, with_npm(tmp_path, script), lambda _: None)
    assert [path.name for path in (data / "ide").iterdir()] == [".lock"]


def test_without_npm_and_without_a_network_one_line_says_so(tmp_path: Path) -> None:
    script = "#!/bin/sh\nexit 127\n"  # an npm whose Node is gone
    environ = with_npm(tmp_path, script) | {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    with pytest.raises(ConfigError, match="pip install failed") as caught:
        ide_install.install(tmp_path / "data", environ | {"PIP_CONFIG_FILE": os.devnull}, lambda _: None)
    assert "\n" not in caught.value.message


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ConfigError, match="data"):
        ide_install.install(tmp_path / "data", {}, lambda _: None)


def test_installs_once_even_when_asked_twice_at_once(tmp_path: Path) -> None:
    environ, said = with_npm(tmp_path, FAKE_NPM), list[str]()
    askers = [
        threading.Thread(target=ide_install.install, args=(tmp_path / "data", environ, said.append)) for _ in range(2)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(30)
    assert len(said) == 1
    assert len((tmp_path / "calls").read_text().split()) == 3
    found = ide_install.find(tmp_path / "data")
    assert found is not None
    assert not (found.vscode / "node_modules" / "@github").exists()
    assert not (found.vscode / "node_modules/@vscode/ripgrep-universal/bin/win32-x64").exists()


def test_shipped_extensions_are_built_in_and_follow_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = with_npm(tmp_path, FAKE_NPM)
    source = tmp_path / "container_ide"
    source.mkdir()
    for name in (*ide_install.PARTS, "node-wheel.txt"):
        (source / name).write_bytes((ide_files.folder() / name).read_bytes())
    monkeypatch.setattr(ide_files, "folder", lambda: source)
    manifest = {"name": "greeter", "publisher": "acme", "version": "1.0.0", "engines": {"vscode": "*"}}
    (source / "greeter").mkdir()
    (source / "greeter" / "package.json").write_text(json.dumps(manifest))
    install = ide_install.install(tmp_path / "data", environ, lambda _: None)
    built_in = install.vscode / "extensions"
    assert json.loads((built_in / "acme.greeter" / "package.json").read_text()) == manifest

    (source / "greeter").rename(source / "waver")
    (source / "waver" / "package.json").write_text(json.dumps(manifest | {"name": "waver"}))
    assert ide_install.refreshed(tmp_path / "data") == install
    assert not (built_in / "acme.greeter").exists()
    assert (built_in / "acme.waver").exists()
    assert (built_in / "git").exists()


@pytest.mark.timeout(20)
def test_a_start_waits_for_no_installation_that_runs(tmp_path: Path) -> None:
    """The launcher looks in its event loop: waiting there, it would answer nobody, /health included."""
    install = ide_install.install(tmp_path / "data", with_npm(tmp_path, FAKE_NPM), lambda _: None)
    with (tmp_path / "data" / "ide" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ide_install.refreshed(tmp_path / "data") == install


@pytest.mark.parametrize("text", ["", '{"digest": "1', "[]"])
def test_a_half_written_list_of_shipped_extensions_is_made_anew(tmp_path: Path, text: str) -> None:
    environ = with_npm(tmp_path, FAKE_NPM)
    install = ide_install.install(tmp_path / "data", environ, lambda _: None)
    marker = install.vscode / "extensions" / ide_install.SYNCED
    whole = marker.read_text()
    marker.write_text(text)
    assert ide_install.refreshed(tmp_path / "data") == install
    assert marker.read_text() == whole
