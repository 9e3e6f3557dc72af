"""A provider's file: the mistakes first, each named with file, line and what to write instead."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent import manifest, tomlfile
from calliope_agent.errors import ConfigError
from calliope_agent.manifest import Manifest, Trust
from calliope_agent.sources import shipped_dir

GOOD = """\
title = "Example"
wire = "openai"
base_url = "https://api.example.com/v1"
"""
SHIPPED = sorted(shipped_dir().glob("*.toml"))


def read(text: str, trust: Trust = "operator", name: str = "example") -> Manifest:
    return manifest.parse(tomlfile.parse(text, "example.toml"), name, trust)


def refused(text: str, trust: Trust = "operator") -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, trust)
    return caught.value.message


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('key_envs = ["A_KEY"]', ["line 4", "'key_envs'", "Did you mean 'key_env'?"]),
        ('wires = "openai"', ["line 4", "Did you mean 'wire'?"]),
        ('auth = "basic"', ["line 4", "auth must be one of api-key, bearer, x-api-key"]),
        ('auth = "api_key"', ["Did you mean 'api-key'?"]),
        ("key_required = 1", ["line 4", "key_required must be true or false, not a number"]),
        ('key_env = "A_KEY"', ["line 4", "key_env must be a list, not a text"]),
        ('key_env = ["lower"]', ["capitals"]),
        ('key_env = ["A_KEY", "A_KEY"]', ["twice"]),
        ("key_env = [1]", ["key_env must be a text, not a number"]),
        ('key_file = "relative"', ["absolute path"]),
        ('fim = "middle"', ["endpoint, suffix, chat, template"]),
        ('fim = "template:"', ["endpoint, suffix, chat, template"]),
        ('fim_path = "https://elsewhere.example/beta"', ["must be a path"]),
        ('check = "POST /models"', ["GET /models"]),
        ('check = "GET models"', ["GET /models"]),
        ('offers = ["chats"]', ["Did you mean 'chat'?"]),
        ("rank = 0", ["at least 1"]),
        ("rank = true", ["a number, not true or false"]),
        ("rank = 2026-11-23", ["a number, not a date or time"]),
        ("[timeouts]\nidle_s = -1", ["line 5", "idle_s must be a number of at least 0.01"]),
        ("[timeouts]\nidle_s = inf", ["idle_s must be a number"]),
        ("[timeouts]\nidle_s = nan", ["idle_s must be a number"]),
        ("[timeouts]\nidle = 3", ["line 5", "Did you mean 'idle_s'?"]),
        ("timeouts = 3", ["timeouts must be a table"]),
        ("renames = { max_tokens = 1 }", ["max_tokens must be a text"]),
        ("models = 3", ["models must be a list"]),
        ("models = [3]", ["models must be a table"]),
        ("[[models]]\nnames = 'm'", ["line 4", "name is missing"]),
        ("[[models]]\nname = ''", ["line 5", "must be a model's name"]),
        ("[[models]]\nname = 'm'\ncontext_tokens = -5", ["line 6", "context_tokens must be at least 1"]),
        ("[[models]]\nname = 'm'\ncontext_tokens = 5.5", ["line 6", "must be a number"]),
        ("[[models]]\nname = 'm'\nroles = ['chatty']", ["line 6", "Did you mean 'chat'?"]),
        ("[[models]]\nname = 'm'\ncapabilities = ['tool']", ["line 6", "Did you mean 'tools'?"]),
        ("[[models]]\nname = 'm'\nprice = {}", ["line 6", "Did you mean 'prices'?"]),
        ("[[models]]\nname = 'm'\nprices = { input = -1 }", ["line 6", "input must be a number of at least 0"]),
        ("[[models]]\nname = 'm'\nprices = { inputs = 1 }", ["line 6", "Did you mean 'input'?"]),
        ("[[models]]\nname = 'm'\n[[models]]\nname = 'm'", ["line 6", "'m' is there twice"]),
        ("[[models]]\nname = 'm'\n[[models]]\nname = 'n'\naliases = ['m']", ["line 6", "'m' is there twice"]),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_way_out(line: str, parts: list[str]) -> None:
    message = refused(GOOD + line)
    assert message.startswith("example.toml line ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('wire = "openai"\nbase_url = "https://h/v1"', "title is missing"),
        ('title = "T"\nbase_url = "https://h/v1"', "wire is missing"),
        ('title = "T"\nwire = "openai"', "base_url is missing"),
        ('title = "T"\nwire = "litellm"', "litellm is missing"),
        ('title = "T"\nwire = "grpc"\nbase_url = "https://h"', "wire must be one of anthropic, litellm, openai"),
        ('title = "T"\nwire = "openai"\nbase_url = "ftp://h"', "line 3"),
        ('title = "T"\nwire = "openai"\nbase_url = "https://u:p@h"', "user or password"),
        ('title = "T"\nwire = "openai"\nbase_url = "https://h/v1?k=1"', "query"),
        ('title = "a\\nb"\nwire = "openai"\nbase_url = "https://h"', "one line"),
    ],
)
def test_what_every_file_needs(text: str, part: str) -> None:
    assert part in refused(text)


@pytest.mark.parametrize(
    "line",
    [
        'key_env = ["OPENAI_API_KEY"]',
        'base_url_env = ["OPENAI_BASE_URL"]',
        'credentials_env = ["AWS_PROFILE"]',
        'model_env = ["SECRET_NAME"]',
        'key_file = "/run/secrets/openai"',
        'key_command = ["cat", "/run/secrets/openai"]',
        'litellm = "openai"',
        "allow_link_local = true",
        "embedded = true",
    ],
)
def test_a_persons_file_cannot_reach_for_the_operators_secrets(line: str) -> None:
    message = refused(GOOD + line, "person")
    assert "line 4" in message
    assert "operator's files only" in message
    read(GOOD + line, "operator")


def test_a_persons_provider_speaks_a_native_wire() -> None:
    text = 'title = "T"\nwire = "litellm"\nbase_url = "https://h/v1"'
    assert "must be openai or anthropic" in refused(text, "person")


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a/b", "-a", "a" * 41, "ä"])
def test_a_providers_name_is_plain(name: str) -> None:
    with pytest.raises(ConfigError, match="no provider's name"):
        read(GOOD, name=name)


def test_what_a_file_says_is_what_the_manifest_holds() -> None:
    found = read(
        GOOD
        + """\
auth = "api-key"
fim = "template:qwen"
check = "GET /v2/models"
drops = ["stream_options"]
renames = { max_tokens = "max_completion_tokens" }

[timeouts]
idle_s = 5

[[models]]
name = "vendor/m-1:free"
context_tokens = 8192
roles = ["chat", "fast"]
prices = { input = 1, output = 2.5 }
"""
    )
    (model,) = found.models
    assert (found.auth, found.fim, found.check) == ("api-key", "template:qwen", "GET /v2/models")
    assert found.drops == {"stream_options"}
    assert dict(found.renames) == {"max_tokens": "max_completion_tokens"}
    assert (found.timeouts.idle_s, found.timeouts.connect_s) == (5.0, None)
    assert (model.name, model.context_tokens, model.roles) == ("vendor/m-1:free", 8192, ("chat", "fast"))
    assert (model.prices.input, model.prices.output, model.prices.cache_read) == (1.0, 2.5, None)
    assert found.offers >= {"chat", "models"}


VALUES = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "idle_s"]), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from([item for item in Manifest.__struct_fields__ if item not in {"name", "trust", "place"}])


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(["shipped", "operator", "person"]))
def test_any_values_make_a_manifest_or_a_config_error(extra: dict[str, object], trust: Trust) -> None:
    data = {"title": "T", "wire": "openai", "base_url": "https://h/v1", **extra}
    with contextlib.suppress(ConfigError):
        assert isinstance(manifest.parse(tomlfile.TomlFile("any.toml", "", data), "any", trust), Manifest)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_is_valid_and_complete(path: Path) -> None:
    found = manifest.parse(tomlfile.read(path), path.stem, "shipped")
    assert found.litellm, "translation needs litellm's prefix"
    assert found.rank != manifest.DEFAULT_RANK, "the order of roles is stated for every shipped provider"
    if found.key_required:
        assert found.key_env
    if found.base_url and not found.base_url.startswith("http://127.0.0.1"):
        assert found.base_url.startswith("https://")
    if "embeddings" not in found.offers:
        assert not any("embed" in model.roles for model in found.models)
    for model in found.models:
        assert model.capabilities, f"{model.name}: what can it do?"
        assert ("embed" in model.roles) <= ("embeddings" in model.capabilities)
        if (model.fim or found.fim) in {"endpoint", "suffix"}:
            assert "fim" in model.capabilities


def test_the_whole_list_of_providers_is_shipped() -> None:
    assert {path.stem for path in SHIPPED} >= {
        "openai", "anthropic", "gemini", "azure", "bedrock", "vertex", "mistral", "codestral", "deepseek", "groq",
        "xai", "openrouter", "together", "fireworks", "cohere", "huggingface", "ollama", "lmstudio", "vllm",
        "llamacpp", "openai-compatible", "anthropic-compatible", "local",
    }  # fmt: skip


def test_no_variable_names_a_key_of_two_providers() -> None:
    seen: dict[str, str] = {}
    for path in SHIPPED:
        found = manifest.parse(tomlfile.read(path), path.stem, "shipped")
        for variable in (*found.key_env, *found.base_url_env, *found.model_env):
            assert seen.setdefault(variable, path.stem) == path.stem


def test_no_code_compares_a_providers_name() -> None:
    """Facts are data: a provider's name in quotes beside ``==``, ``!=`` or ``in`` is knowledge in the wrong place.

    ``openai``, ``anthropic`` and ``litellm`` are wires too and ``local`` a setting's word, so those are looked for only
    where something called a provider is compared.
    """
    words = "|".join(re.escape(path.stem) for path in SHIPPED)
    ours = "|".join({re.escape(path.stem) for path in SHIPPED} - {"openai", "anthropic", "local"})
    patterns = (
        re.compile(rf"""provider(\.name|_name)?\s*(==|!=)\s*["']({words})["']"""),
        re.compile(rf"""(==|!=|\bin)\s*[(\[{{]?\s*["']({ours})["']"""),
    )
    for path in Path(manifest.__file__).parent.rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for pattern in patterns:
                assert not pattern.search(line), f"{path}:{number}: {line.strip()}"
