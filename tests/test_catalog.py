"""The catalog: what breaks stays apart, what a name means, who plays a role."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from calliope_agent import catalog
from calliope_agent.catalog import Catalog, Sources
from calliope_agent.errors import ConfigError, UnknownModel
from calliope_agent.model import ROLES

ROOT = Path(__file__).parents[1]
PROVIDER = 'title = "T"\nwire = "openai"\nbase_url = "https://{host}/v1"\n'


def keys(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


@pytest.fixture
def folders(tmp_path: Path) -> Sources:
    for name in ("shipped", "operator", "person"):
        (tmp_path / name).mkdir()
    return Sources(tmp_path / "shipped", tmp_path / "operator", tmp_path / "person", tmp_path / "config.toml")


def write(folder: Path | None, name: str, text: str) -> Path:
    assert folder is not None
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def provider(host: str = "h.example", *models: str, extra: str = "") -> str:
    return PROVIDER.format(host=host) + extra + "".join(f'\n[[models]]\nname = "{name}"\n' for name in models)


def shipped(environ: dict[str, str] | None = None, **options: object) -> Catalog:
    return catalog.load(Sources(catalog.shipped_dir()), environ or {}, **options)  # type: ignore[arg-type]


class TestFiles:
    def test_one_broken_file_is_a_problem_and_the_rest_loads(self, folders: Sources) -> None:
        write(folders.shipped, "good", provider())
        write(folders.shipped, "worse", "title = \n")
        write(folders.shipped, "bad", provider(extra='key_envs = ["A"]\n'))
        loaded = catalog.load(folders, {})
        assert [each.name for each in loaded.providers] == ["good"]
        assert len(loaded.problems) == 2
        assert "bad.toml line 4" in loaded.problems[0]
        assert "worse.toml" in loaded.problems[1]

    def test_a_file_that_breaks_keeps_its_last_good_state(self, folders: Sources) -> None:
        path = write(folders.person, "mine", provider("old.example", "m-1"))
        first = catalog.load(folders, {})
        path.write_text("title = ")
        second = catalog.load(folders, {}, previous=first)
        third = catalog.load(folders, {}, previous=second)
        assert third.problems
        assert third.resolve("mine/m-1").provider.base_url == "https://old.example/v1"
        path.write_text(provider("new.example", "m-1"))
        fourth = catalog.load(folders, {}, previous=third)
        assert not fourth.problems
        assert fourth.resolve("m-1").provider.base_url == "https://new.example/v1"
        path.unlink()
        assert catalog.load(folders, {}, previous=fourth).provider("mine") is None

    def test_an_operators_file_takes_a_shipped_ones_place_even_when_it_is_broken(self, folders: Sources) -> None:
        write(folders.shipped, "openai", provider("public.example", "m"))
        path = write(folders.operator, "openai", provider("gateway.example", "m"))
        found = catalog.load(folders, {}).provider("openai")
        assert found is not None
        assert found.base_url == "https://gateway.example/v1"
        path.write_text("broken")
        loaded = catalog.load(folders, {})
        assert loaded.provider("openai") is None
        assert loaded.problems

    @pytest.mark.parametrize("owner", ["shipped", "operator"])
    def test_a_person_never_shadows_a_name(self, folders: Sources, owner: str) -> None:
        write(getattr(folders, owner), "openai", provider("true.example"))
        write(folders.person, "openai", provider("thief.example"))
        assert folders.config is not None
        folders.config.write_text(
            '[providers.openai]\ntitle = "T"\nwire = "openai"\nbase_url = "https://thief.example"\n'
        )
        loaded = catalog.load(folders, {})
        assert [each.base_url for each in loaded.providers] == ["https://true.example/v1"]
        assert len(loaded.problems) == 2
        assert all(f"belongs to a {owner} provider" in problem for problem in loaded.problems)

    def test_config_toml_adds_providers_with_the_same_limits(self, folders: Sources) -> None:
        assert folders.config is not None
        folders.config.write_text(
            'chat_model = "mine/m"\n\n[providers.mine]\ntitle = "Mine"\nwire = "openai"\n'
            'base_url = "http://10.0.0.5:8000/v1"\n\n[[providers.mine.models]]\nname = "m"\n\n'
            '[providers.thief]\ntitle = "T"\nwire = "openai"\nbase_url = "https://thief.example"\n'
            'key_env = ["OPENAI_API_KEY"]\n'
        )
        loaded = catalog.load(folders, {})
        assert loaded.resolve("m").provider.title == "Mine"
        assert loaded.resolve("m").provider.trust == "person"
        (problem,) = loaded.problems
        assert "config.toml line 15" in problem
        folders.config.write_text("providers = 3\n")
        assert "must be tables" in catalog.load(folders, {}).problems[0]
        folders.config.write_text("providers = \n")
        assert catalog.load(folders, {}).problems

    def test_a_pipe_in_a_persons_folder_does_not_hold_the_agent(self, folders: Sources) -> None:
        assert folders.person is not None
        os.mkfifo(folders.person / "pipe.toml")
        loaded = catalog.load(folders, {})
        assert "no regular file" in loaded.problems[0]

    def test_missing_folders_are_no_problem(self, tmp_path: Path) -> None:
        sources = Sources(catalog.shipped_dir(), tmp_path / "a", tmp_path / "b", tmp_path / "c.toml")
        assert catalog.load(sources, {}).problems == ()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
    def test_an_unreadable_folder_is_a_problem(self, folders: Sources) -> None:
        assert folders.operator is not None
        folders.operator.chmod(0)
        try:
            assert "cannot be read" in catalog.load(folders, {}).problems[0]
        finally:
            folders.operator.chmod(0o700)

    def test_the_stamp_changes_with_every_change(self, folders: Sources) -> None:
        seen = {catalog.stamp(folders)}
        path = write(folders.person, "mine", provider())
        seen.add(catalog.stamp(folders))
        path.write_text(provider("other-host.example"))
        seen.add(catalog.stamp(folders))
        assert folders.config is not None
        folders.config.write_text("")
        seen.add(catalog.stamp(folders))
        path.unlink()
        seen.add(catalog.stamp(folders))
        assert len(seen) == 5
        assert catalog.stamp(folders) == catalog.stamp(folders)

    def test_standard_places_come_from_the_environment(self, tmp_path: Path) -> None:
        found = catalog.standard({"CALLIOPE_PROVIDERS_DIR": "/srv/providers"}, tmp_path)
        assert (found.operator, found.person) == (Path("/srv/providers"), tmp_path / "providers.d")
        assert catalog.standard({}, None).operator == Path("/etc/calliope/providers.d")


class TestAddresses:
    @pytest.mark.parametrize(
        ("variable", "value", "name", "url"),
        [
            ("OPENAI_BASE_URL", "https://gw.example/openai", "openai", "https://gw.example/openai"),
            ("OPENAI_API_BASE", "http://gw.example:8000", "openai", "http://gw.example:8000/v1"),
            ("ANTHROPIC_BASE_URL", "https://gw.example/anthropic", "anthropic", "https://gw.example/anthropic/v1"),
            ("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com/", "azure", "https://x.openai.azure.com/openai/v1"),
            ("OLLAMA_HOST", "0.0.0.0", "ollama", "http://127.0.0.1:11434/v1"),
            ("OLLAMA_URL", "http://host.docker.internal:11434", "ollama", "http://host.docker.internal:11434/v1"),
            ("LMSTUDIO_URL", "http://localhost:1234", "lmstudio", "http://localhost:1234/v1"),
            ("OPENAI_COMPAT_BASE_URL", "http://10.0.0.5/api", "openai-compatible", "http://10.0.0.5/api"),
        ],
    )
    def test_a_variable_moves_a_provider_and_says_so(self, variable: str, value: str, name: str, url: str) -> None:
        found = shipped({variable: value}).provider(name)
        assert found is not None
        assert (found.base_url, found.base_url_source.where) == (url, variable)

    def test_the_agents_own_address_is_ignored_with_a_note(self) -> None:
        environ = {"OPENAI_BASE_URL": "http://localhost:8072/v1", "ANTHROPIC_BASE_URL": "http://127.0.0.1:8072"}
        loaded = shipped(environ, own_origins=["http://127.0.0.1:8072"])
        for name, host in (("openai", "api.openai.com"), ("anthropic", "api.anthropic.com")):
            found = loaded.provider(name)
            assert found is not None
            assert found.origin == f"https://{host}:443"
        assert [note for note in loaded.notes if "OPENAI_BASE_URL is this agent itself" in note]
        assert [note for note in loaded.notes if "ANTHROPIC_BASE_URL is this agent itself" in note]

    def test_a_file_that_names_the_agent_itself_has_no_address(self, folders: Sources) -> None:
        write(folders.person, "loop", PROVIDER.format(host="localhost:8072") + '[[models]]\nname = "m"\n')
        loaded = catalog.load(folders, {}, own_origins=["https://127.0.0.1:8072"])
        with pytest.raises(UnknownModel, match="no address"):
            loaded.resolve("loop/m")

    def test_a_bad_variable_is_a_note_without_its_value(self) -> None:
        loaded = shipped({"OPENAI_BASE_URL": "https://user:hunter2@gw.example"})
        found = loaded.provider("openai")
        assert found is not None
        assert found.base_url == "https://api.openai.com/v1"
        assert any("OPENAI_BASE_URL must not carry" in note for note in loaded.notes)
        assert "hunter2" not in repr(loaded)

    def test_a_key_in_clear_over_a_network_is_noted(self) -> None:
        assert any("in clear" in note for note in shipped({"OPENAI_BASE_URL": "http://gw.example/v1"}).notes)
        assert not shipped({"OLLAMA_BASE_URL": "http://localhost:1"}).notes

    def test_the_fim_address_stays_with_the_keys_origin(self) -> None:
        found = shipped({"DEEPSEEK_BASE_URL": "https://gw.example/v1"}).provider("deepseek")
        assert found is not None
        assert found.fim_url == "https://gw.example:443/beta/completions"


class TestNames:
    def test_an_explicit_name_may_hold_slashes_and_be_unknown(self) -> None:
        loaded = shipped()
        target = loaded.resolve("openrouter/anthropic/claude-brand-new:free")
        assert (target.provider.name, target.model.name) == ("openrouter", "anthropic/claude-brand-new:free")
        assert not target.model.listed
        assert loaded.resolve("openrouter/anthropic/claude-sonnet-5.5").model.listed
        assert target.name == "openrouter/anthropic/claude-brand-new:free"

    def test_a_providers_name_before_the_slash_always_wins(self) -> None:
        target = shipped().resolve("openai/gpt-oss-120b", keys("groq"))
        assert target.provider.name == "openai"

    def test_a_bare_name_goes_to_the_usable_provider_of_lowest_rank(self) -> None:
        loaded = shipped()
        name = "openai/gpt-oss-120b"
        assert {each.provider.name for each in loaded.find_model(name)} >= {"groq", "together", "huggingface"}
        bare = "claude-sonnet-5-5"
        assert loaded.resolve(bare, keys("anthropic")).provider.name == "anthropic"
        assert shipped({"VERTEXAI_PROJECT": "p"}).resolve(bare).provider.name == "vertex"

    def test_a_bare_name_that_waits_for_one_key_goes_there_so_that_the_answer_can_name_it(self) -> None:
        assert shipped().resolve("gpt-6-sol").provider.name == "openai"
        assert shipped().resolve("claude-sonnet-5-5").provider.name == "anthropic"

    def test_a_bare_name_of_several_providers_without_keys_lists_them(self, folders: Sources) -> None:
        write(folders.shipped, "one", provider("one.example", "m"))
        write(folders.shipped, "two", provider("two.example", "m"))
        with pytest.raises(UnknownModel, match="one/m, two/m"):
            catalog.load(folders, {}).resolve("m")
        assert catalog.load(folders, {}).resolve("m", keys("two")).provider.name == "two"

    def test_an_alias_is_asked_for_as_written(self) -> None:
        target = shipped().resolve("claude-haiku-4-5-20251001")
        assert target.model.name == "claude-haiku-4-5-20251001"
        assert target.model.context_tokens == 200_000

    def test_a_pattern_counts_only_where_the_provider_is_usable(self) -> None:
        loaded = shipped()
        assert loaded.resolve("claude-from-tomorrow", keys("anthropic")).provider.name == "anthropic"
        with pytest.raises(UnknownModel):
            loaded.resolve("claude-from-tomorrow", keys("openai"))

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("claude-sonet-5-5", "claude-sonnet-5-5"),
            ("gpt-6-lunar", "gpt-6-luna"),
            ("opanai/gpt-6-luna", "openai/gpt-6-luna"),
        ],
    )
    def test_an_unknown_name_lists_near_ones(self, name: str, near: str) -> None:
        with pytest.raises(UnknownModel, match=near):
            shipped().resolve(name)

    @pytest.mark.parametrize("name", ["", "/", "openai/", "x" * 5000, "openai/a\nb", "\x00", "openai/ x"])
    def test_odd_names_are_unknown_and_printable(self, name: str) -> None:
        with pytest.raises(UnknownModel) as caught:
            shipped().resolve(name)
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 400

    def test_a_closed_provider_takes_listed_models_only(self, folders: Sources) -> None:
        write(folders.operator, "strict", provider("h", "allowed", extra="open_models = false\n"))
        loaded = catalog.load(folders, {})
        assert loaded.resolve("strict/allowed").model.name == "allowed"
        with pytest.raises(UnknownModel, match="Did you mean allowed"):
            loaded.resolve("strict/allowd")

    def test_a_provider_without_an_address_says_what_to_set(self) -> None:
        with pytest.raises(UnknownModel, match="set OPENAI_COMPAT_BASE_URL or"):
            shipped().resolve("openai-compatible/m")


class TestRoles:
    def test_nothing_set_means_the_local_model(self) -> None:
        found = shipped().roles(keys())
        assert {role: target.provider.name for role, target in found.items()} == {
            "chat": "local",
            "inline": "local",
            "fast": "local",
        }

    @pytest.mark.parametrize(
        ("have", "chat"),
        [
            (["openai", "anthropic"], "anthropic"),
            (["gemini", "openai"], "openai"),
            (["mistral", "gemini"], "gemini"),
            (["openrouter", "mistral"], "mistral"),
            (["together", "openrouter"], "openrouter"),
            (["groq", "together"], "together"),
            (["fireworks", "groq"], "groq"),
            (["huggingface", "fireworks"], "fireworks"),
            (["deepseek", "huggingface"], "huggingface"),
            (["xai", "deepseek"], "deepseek"),
        ],
    )
    def test_chat_goes_by_the_stated_order_of_keys(self, have: list[str], chat: str) -> None:
        assert shipped().roles(keys(*have))["chat"].provider.name == chat

    def test_inline_goes_first_to_a_model_that_fills_in_the_middle(self) -> None:
        found = shipped().roles(keys("anthropic", "mistral"))
        assert (found["chat"].provider.name, found["inline"].name) == ("anthropic", "mistral/codestral-latest")
        assert found["inline"].fim == "endpoint"
        assert found["embed"].provider.name == "mistral"

    def test_a_local_server_counts_once_the_environment_names_it(self) -> None:
        assert shipped({"OLLAMA_MODEL": "qwen3"}).roles(keys())["chat"].provider.name == "local"
        environ = {"OLLAMA_HOST": "ollama", "OLLAMA_MODEL": "qwen3:8b"}
        assert shipped(environ).roles(keys())["chat"].name == "ollama/qwen3:8b"
        assert shipped(environ).roles(keys("xai"))["chat"].provider.name == "xai"
        assert shipped({"LLAMACPP_URL": "http://gpu:8080"}).roles(keys())["chat"].provider.name == "llamacpp"

    def test_credentials_of_a_cloud_count(self) -> None:
        assert shipped({"AWS_PROFILE": "work"}).roles(keys())["chat"].provider.name == "bedrock"

    def test_a_wish_wins_and_a_bad_wish_is_never_given_to_somebody_else(self) -> None:
        loaded = shipped()
        wishes = {"chat": "groq/openai/gpt-oss-20b", "fast": "no-such-model"}
        found = loaded.roles(keys("anthropic"), wishes)
        assert found["chat"].name == "groq/openai/gpt-oss-20b"
        assert "fast" not in found
        with pytest.raises(ConfigError, match="CALLIOPE_FAST_MODEL"):
            loaded.role("fast", keys("anthropic"), "no-such-model")

    def test_a_role_nobody_plays_says_what_to_set(self) -> None:
        with pytest.raises(UnknownModel, match="CALLIOPE_EMBED_MODEL"):
            shipped().role("embed", keys())

    def test_every_role_is_played_by_the_big_providers(self) -> None:
        for name in ("openai", "gemini", "mistral", "together"):
            assert set(shipped().roles(keys(name))) == set(ROLES)


class TestShipping:
    def test_the_checkout_is_found_live(self) -> None:
        assert catalog.shipped_dir() == ROOT / "providers"

    @pytest.mark.slow
    def test_the_wheel_holds_the_providers(self, tmp_path: Path) -> None:
        tree = tmp_path / "a tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "node_modules", "dist"))
        (tree / "README.md").touch()
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out dir")]
        subprocess.run(command, cwd=tree, check=True, capture_output=True)
        (wheel,) = (tmp_path / "out dir").glob("*.whl")
        site = tmp_path / "site"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        script = (
            "from calliope_agent import catalog; d = catalog.shipped_dir();"
            "print(d, len(catalog.load(catalog.Sources(d), {}).providers))"
        )
        environ = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environ, check=True, capture_output=True, text=True
        )
        assert done.stdout.split() == [str(site / "calliope_agent" / "providers"), str(len(shipped().providers))]
