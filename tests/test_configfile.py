"""config.toml changed by the program: what a person wrote stays, what was meant is what is read."""

from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.configfile import ConfigFile
from calliope_agent.errors import ConfigError, Conflict
from calliope_agent.tomledit import edited

WRITTEN = """\
# mine
cache_ttl_s = 60 # a minute

[model_aliases]
# Anthropic's names
"claude-*" = "chat"

[providers.b]
title = "B" # second letter

[[providers.b.models]]
name = "m"

[providers.a]
title = "A"
"""
NAMES = st.sampled_from(["cache_ttl_s", "chat_model", "fallbacks", "model_aliases", "model_fallbacks"])
TEXTS = st.text(max_size=12)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.lists(TEXTS, max_size=3),
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.dictionaries(TEXTS, st.lists(TEXTS, max_size=2), max_size=2),
)
TABLES = st.dictionaries(
    st.sampled_from(["title", "wire", "base_url", "models"]), st.one_of(TEXTS, st.just([{"name": "x"}])), min_size=1
)
EDITS = st.dictionaries(
    st.one_of(st.tuples(NAMES), st.tuples(st.just("providers"), st.sampled_from("abc"))), VALUES | TABLES, max_size=4
)


@given(st.lists(EDITS, max_size=3))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_what_was_meant_or_nothing_is(edits: list[dict[tuple[str, ...], Any]]) -> None:
    text = WRITTEN
    for one in edits:
        meant = tomllib.loads(text)
        for place, value in one.items():
            holder = meant.setdefault("providers", {}) if len(place) == 2 else meant
            holder.pop(place[-1], None)
            if value is not None:
                holder[place[-1]] = value
        if not meant.get("providers", True):
            del meant["providers"]
        try:
            text = edited(text, one)
        except ConfigError:
            continue
        assert tomllib.loads(text) == meant


def test_comments_and_order_stay() -> None:
    text = edited(WRITTEN, {("cache_ttl_s",): 90, ("chat_model",): "a/b", ("providers", "b", "title"): "BB"})
    assert text == WRITTEN.replace("60", "90").replace('"B"', '"BB"').replace(
        "# a minute\n", '# a minute\nchat_model = "a/b"\n'
    )


def test_removing_everything_leaves_the_comments() -> None:
    gone = {("cache_ttl_s",): None, ("model_aliases",): None, ("providers", "a"): None, ("providers", "b"): None}
    text = edited(WRITTEN, gone)
    assert tomllib.loads(text) == {}
    assert text.startswith("# mine\n")


def test_a_top_value_never_lands_inside_a_table() -> None:
    text = edited('[providers.a]\ntitle = "A"\n\n[model_aliases]\nx = "y"\n', {("model_aliases",): {"a": "chat"}})
    assert tomllib.loads(text) == {"providers": {"a": {"title": "A"}}, "model_aliases": {"a": "chat"}}


def test_what_would_be_too_large_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.toml")
    file.change({("chat_model",): "a/b"})
    with pytest.raises(ConfigError, match="larger"):
        file.change({("local_model",): "x" * (1 << 20)})
    assert file.path.read_text() == 'chat_model = "a/b"\n'


@pytest.mark.parametrize("content", [b"a = [\n", b"\xff\xfe", b"x" * (1 << 21)])
def test_what_must_be_mended_by_hand_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(Conflict, match=r"Nothing was changed.*config\.toml"):
        ConfigFile(path).change({("chat_model",): "a/b"})
    assert path.read_bytes() == content


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"

    def write(number: int) -> None:
        ConfigFile(path).change({("providers", f"p{number}"): {"title": str(number)}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    assert set(tomllib.loads(path.read_text())["providers"]) == {f"p{number}" for number in range(24)}


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ConfigFile(tmp_path / "config.toml")
    file.change({("chat_model",): "a/b"})

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"full.*Nothing was changed"):
        file.change({("chat_model",): "c/d"})
    assert file.path.read_text() == 'chat_model = "a/b"\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.lock", "config.toml"]


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".config.toml.0123456789ab.tmp"
    left.write_text("chat_mod")
    ConfigFile(tmp_path / "config.toml").change({("chat_model",): "openai/gpt-4o"})
    assert not left.exists()
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"chat_model": "openai/gpt-4o"}
