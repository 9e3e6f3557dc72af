"""The embedded model when something is missing, broken, or does not come up: no engine runs for long here."""

from __future__ import annotations

import asyncio
import re
import sys
import venv
from typing import TYPE_CHECKING

import pytest

from calliope_agent.errors import ConfigError, LocalModelAbsent, Unreachable, UpstreamTimeout
from calliope_agent.upstream import weights
from calliope_agent.upstream.local import LocalModel, LocalOptions
from tests.doors.processes import gone, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[[str], LocalModel]:
    """A model of the person's own whose child is a shell script."""

    def make(script: str, start_s: float = 20.0) -> LocalModel:
        python, own = tmp_path / "python", tmp_path / "own.gguf"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        own.write_bytes(b"GGUF")
        return LocalModel(str(own), tmp_path, tmp_path, {}, LocalOptions(python=str(python), start_s=start_s))

    return make


async def test_without_the_engine_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    local = LocalModel(weights.DEFAULT, tmp_path, tmp_path, {})
    assert local.state == "absent: no engine"
    with pytest.raises(LocalModelAbsent, match=r"pip install 'calliope-agent\[local\]'"):
        await local.start()


async def test_in_an_image_nothing_is_advised_that_cannot_be_done_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalModel(weights.DEFAULT, tmp_path, tmp_path, {})
    assert local.remedy == "Fetch it once: calliope-agent models pull"
    (tmp_path / "sbom.cdx.json").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    works = r"keys set NAME\), or build the image with LOCAL_MODEL=true"
    assert re.search(works, local.remedy)
    with pytest.raises(LocalModelAbsent, match=works):
        await local.start()
    with pytest.raises(ConfigError, match=works):
        weights.pull(weights.known(weights.DEFAULT), tmp_path, lambda _done, _all: None, {})


async def test_an_engine_that_does_not_load_is_told(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    local = LocalModel(str(own), tmp_path, tmp_path, {}, LocalOptions(python=str(tmp_path / "bare" / "bin" / "python")))
    with pytest.raises(LocalModelAbsent, match="No module named 'xllamacpp'"):
        await local.start()
    assert local.pid is None
    await local.stop()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (weights.DEFAULT, "Run: calliope-agent models pull$"),
        ("qwen2.5-coder-0.5b", "Run: calliope-agent models pull qwen2.5-coder-0.5b$"),
        ("/nowhere/own.gguf", "/nowhere/own.gguf, and no file is there"),
    ],
)
async def test_without_weights_the_command_is_named(tmp_path: Path, name: str, told: str) -> None:
    local = LocalModel(name, tmp_path, tmp_path, {})
    assert local.state == "absent: no weights"
    with pytest.raises(LocalModelAbsent, match=told) as caught:
        await local.start()
    assert caught.value.status == 424
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("content", "why"), [(b"<html>Please log in</html>", "invalid magic"), (b"GGUF" + b"\3\0\0\0" * 9, "string length")]
)
async def test_a_file_that_is_no_model_is_told_with_the_engines_reason(
    tmp_path: Path, content: bytes, why: str
) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(content)
    local = LocalModel(str(own), tmp_path, tmp_path, {})
    with pytest.raises(LocalModelAbsent, match=why) as caught:
        await local.start()
    assert "CALLIOPE_LOCAL_MODEL" in caught.value.message
    assert local.state.startswith("failed: ")
    await local.stop()


async def test_broken_known_weights_are_told_how_to_mend(tmp_path: Path) -> None:
    known = weights.known(weights.DEFAULT)
    with (tmp_path / known.file_name).open("wb") as file:
        file.truncate(known.size)
    local = LocalModel(known.name, tmp_path, tmp_path, {})
    with pytest.raises(LocalModelAbsent, match=f"models pull {known.name} --verify"):
        await local.start()
    await local.stop()


async def test_a_child_that_dies_while_loading(scripted: Callable[..., LocalModel]) -> None:
    for script, told in (("exit 3", "ended with status 3"), ("kill -ILL $$", "AVX2"), ("kill -9 $$", "memory")):
        local = scripted(script)
        with pytest.raises(Unreachable, match=told):
            await local.start()
        await local.stop()


async def test_a_child_that_is_never_ready_is_ended(scripted: Callable[..., LocalModel], tmp_path: Path) -> None:
    local = scripted(f"echo $$ > '{tmp_path}/pid'; exec sleep 600", start_s=1.0)
    with pytest.raises(UpstreamTimeout, match="not ready after 1 s"):
        await local.start()
    assert await gone(int((tmp_path / "pid").read_text()))
    assert local.state == "failed: not ready after 1 s"


async def test_a_stop_while_starting_tells_who_waits(scripted: Callable[..., LocalModel]) -> None:
    local = scripted("exec sleep 600")
    waiting = asyncio.gather(local.start(), local.start(), return_exceptions=True)
    await asyncio.sleep(0)
    assert local.state == "starting"

    async def spawned() -> bool:
        return local.pid is not None

    await until(spawned)
    pid = local.pid
    assert pid
    await local.stop()
    assert [type(outcome) for outcome in await waiting] == [Unreachable, Unreachable]
    assert await gone(pid)
