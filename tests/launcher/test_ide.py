"""The IDE's command line, environment, folders and seeded settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import ide
from calliope_agent.launcher.ide_install import IdeInstall

INSTALL = IdeInstall(Path("/opt/calliope/ide/code-server"))


@pytest.fixture
def place(tmp_path: Path) -> ide.IdePlace:
    runtime = tmp_path / "run"
    runtime.mkdir()
    return ide.IdePlace(home=tmp_path / "alice", runtime_dir=runtime, prefix="/user/alice/alice-waiide-abc123/")


def test_without_an_installation_the_error_says_what_to_run(place: ide.IdePlace) -> None:
    with pytest.raises(ConfigError, match="calliope-agent ide install"):
        ide.command(None, place, ide.IdeOptions(), {})


def test_listens_on_a_private_socket_unless_told_otherwise(place: ide.IdePlace) -> None:
    argv = ide.command(INSTALL, place, ide.IdeOptions(), {}).argv
    assert argv[argv.index("--socket") + 1] == str(place.socket)
    assert argv[argv.index("--socket-mode") + 1] == "600"
    assert "--bind-addr" not in argv


@pytest.mark.parametrize(("address", "told"), [("127.0.0.1", "127.0.0.1:8071"), ("::1", "[::1]:8071")])
def test_listens_on_tcp(place: ide.IdePlace, address: str, told: str) -> None:
    tcp = ide.IdePlace(home=place.home, runtime_dir=place.runtime_dir, tcp=(address, 8071))
    argv = ide.command(INSTALL, tcp, ide.IdeOptions(), {}).argv
    assert argv[argv.index("--bind-addr") + 1] == told
    assert "--socket" not in argv


def test_a_socket_path_longer_than_the_system_takes_is_refused_before_the_start(tmp_path: Path) -> None:
    deep = ide.IdePlace(home=tmp_path, runtime_dir=tmp_path / ("d" * 100))
    with pytest.raises(ConfigError, match="CALLIOPE_RUNTIME_DIR"):
        ide.command(INSTALL, deep, ide.IdeOptions(), {})


def test_workspace_trust_stays_on(place: ide.IdePlace) -> None:
    ide.prepare(place)
    settings = json.loads((place.user_data / "User" / "settings.json").read_text())
    assert settings["security.workspace.trust.enabled"] is True
    assert "--disable-workspace-trust" not in ide.command(INSTALL, place, ide.IdeOptions(), {}).argv


@pytest.mark.parametrize(
    "name",
    ["PORT", "PASSWORD", "VSCODE_IPC_HOOK_CLI", "CODE_SERVER_HOST", "CODE_SERVER_PARENT_PID", "CS_DISABLE_PROXY"],
)
def test_variables_that_would_change_the_server_are_dropped(place: ide.IdePlace, name: str) -> None:
    env = ide.command(INSTALL, place, ide.IdeOptions(), {name: "1", "PATH": "/bin", "VSCODE_PORT": "8071"}).env
    assert name not in env
    assert env["PATH"] == "/bin"
    assert env["VSCODE_PORT"] == "8071"


def test_links_to_other_ports_go_through_the_instance(place: ide.IdePlace) -> None:
    env = ide.command(INSTALL, place, ide.IdeOptions(), {}).env
    assert env["VSCODE_PROXY_URI"] == "/user/alice/alice-waiide-abc123/proxy/{{port}}/"


@pytest.mark.parametrize(
    ("gallery", "told"), [("none", "{}"), ("", "{}"), ("default", None), ('{"serviceUrl":"x"}', '{"serviceUrl":"x"}')]
)
def test_gallery(place: ide.IdePlace, gallery: str, told: str | None) -> None:
    env = ide.command(INSTALL, place, ide.IdeOptions(gallery=gallery), {"EXTENSIONS_GALLERY": "old"}).env
    assert env.get("EXTENSIONS_GALLERY") == told


@pytest.mark.parametrize("gallery", ["maybe", "[]", "{"])
def test_a_gallery_that_cannot_be_read_is_refused(place: ide.IdePlace, gallery: str) -> None:
    with pytest.raises(ConfigError, match="WAIIDE_EXTENSIONS_GALLERY"):
        ide.command(INSTALL, place, ide.IdeOptions(gallery=gallery), {})


@pytest.mark.parametrize(("level", "told"), [("DEBUG", "debug"), ("WARNING", "warn"), ("CRITICAL", "error")])
def test_log_level_is_passed_on(place: ide.IdePlace, level: str, told: str) -> None:
    argv = ide.command(INSTALL, place, ide.IdeOptions(log_level=level), {}).argv
    assert argv[argv.index("--log") + 1] == told


def test_behind_a_proxy_the_agent_is_reached_directly(place: ide.IdePlace) -> None:
    env = ide.command(INSTALL, place, ide.IdeOptions(), {"https_proxy": "http://proxy:3128", "NO_PROXY": "hub"}).env
    assert env["NO_PROXY"].split(",") == ["hub", "127.0.0.1", "localhost", "::1"]
    assert "127.0.0.1" in env["no_proxy"].split(",")
    assert env["NODE_USE_ENV_PROXY"] == "1"


def test_node_trusts_the_certificates_that_python_trusts(place: ide.IdePlace) -> None:
    env = ide.command(INSTALL, place, ide.IdeOptions(), {"SSL_CERT_FILE": "/etc/ca.pem"}).env
    assert env["NODE_EXTRA_CA_CERTS"] == "/etc/ca.pem"
    assert "NO_PROXY" not in env


def test_another_server_gets_its_placeholders(place: ide.IdePlace) -> None:
    words = ("/usr/bin/openvscode-server", "--socket-path=$SOCKET", "--server-data-dir", "${USER_DATA}", "$WORKSPACE")
    made = ide.command(None, place, ide.IdeOptions(command=words), {"PORT": "1"})
    assert made.argv == (words[0], f"--socket-path={place.socket}", "--server-data-dir", str(place.user_data),
                         str(place.workspace))  # fmt: skip
    assert "PORT" not in made.env
    assert made.cwd == place.workspace


@pytest.mark.parametrize("word", ["$NOPE", "$", "${HOST"])
def test_an_unknown_placeholder_is_refused_with_the_known_ones(place: ide.IdePlace, word: str) -> None:
    with pytest.raises(ConfigError, match=r"WAIIDE_IDE_COMMAND.*\bSOCKET\b"):
        ide.command(None, place, ide.IdeOptions(command=("ide", word)), {})


def test_the_persons_settings_are_never_written_over(place: ide.IdePlace) -> None:
    ide.prepare(place)
    settings = place.user_data / "User" / "settings.json"
    settings.write_text('{"mine": true}')
    ide.prepare(place)
    assert settings.read_text() == '{"mine": true}'


def test_settings_are_not_seeded_through_a_symlink(place: ide.IdePlace, tmp_path: Path) -> None:
    (place.user_data / "User").mkdir(parents=True)
    (place.user_data / "User" / "settings.json").symlink_to(tmp_path / "elsewhere.json")
    ide.prepare(place)
    assert not (tmp_path / "elsewhere.json").exists()


def test_the_list_of_built_in_extensions_is_made_anew_and_the_persons_is_kept(place: ide.IdePlace) -> None:
    """VS Code showed an updated extension's old commands until its second start."""
    cache = place.user_data / "CachedProfilesData" / "__default__profile__"
    cache.mkdir(parents=True)
    for name in ("extensions.builtin.cache", "extensions.builtin.en.cache", "extensions.user.en.cache"):
        (cache / name).write_text("{}")
    ide.prepare(place)
    assert [path.name for path in cache.iterdir()] == ["extensions.user.en.cache"]


def test_a_home_that_is_no_folder_is_one_clear_error(place: ide.IdePlace) -> None:
    place.home.write_text("a file")
    with pytest.raises(ConfigError, match="home"):
        ide.prepare(place)


def test_a_home_that_cannot_be_written_is_opened_all_the_same(tmp_path: Path) -> None:
    home, runtime = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    runtime.mkdir()
    (home / "workspace").write_text("no folder")
    wanted = ide.IdePlace(home=home, runtime_dir=runtime)
    with pytest.raises(ConfigError, match="cannot be made"):
        ide.prepare(wanted)
    spare = replace(wanted, read_only=True)
    ide.prepare(spare)
    assert spare.workspace == home
    assert (runtime / "ide-data" / "User" / "settings.json").is_file()
    assert sorted(home.iterdir()) == [home / "workspace"]
