"""Several embedded models: a name is answered by that model or by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calliope_agent.errors import LocalModelAbsent, ModelGone
from calliope_agent.upstream import weights
from calliope_agent.upstream.local_models import LocalModels

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_name_is_never_answered_by_another_model(smollm2: Path, tmp_path: Path) -> None:
    local = LocalModels(weights.DEFAULT, smollm2, tmp_path, {})
    with pytest.raises(LocalModelAbsent, match=r"models pull qwen2\.5-coder-0\.5b"):
        await local.start("qwen2.5-coder-0.5b")
    await local.stop()


async def test_a_request_does_not_choose_which_file_is_opened(smollm2: Path, tmp_path: Path) -> None:
    local = LocalModels(weights.DEFAULT, smollm2, tmp_path, {})
    with pytest.raises(ModelGone):
        await local.start(str(weights.find(smollm2)))
    await local.stop()


async def test_the_configured_file_and_a_known_model_run_side_by_side(smollm2: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.symlink_to(weights.place(weights.DEFAULT, smollm2))
    local = LocalModels(str(own), smollm2, tmp_path, {})
    assert local.state == "idle"
    first = await local.start(str(own))
    second = await local.start(weights.DEFAULT)
    assert first.unix_socket != second.unix_socket
    assert local.state == f"running; {weights.DEFAULT}: running"
    await local.stop()
    assert local.state == "idle"
