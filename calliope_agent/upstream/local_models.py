"""The embedded models: one child for each that is asked for by name, so that no name is answered by another model.

Only the configured model and the known ones can be asked for: a request must not choose which file is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from calliope_agent.errors import ModelGone
from calliope_agent.upstream import weights
from calliope_agent.upstream.local import LocalAddress, LocalModel, LocalOptions


class LocalModels:
    """``configured`` is CALLIOPE_LOCAL_MODEL, a known name or a GGUF's path; the other parameters as in `LocalModel`."""

    def __init__(
        self,
        configured: str,
        data_dir: Path,
        runtime_dir: Path,
        environ: Mapping[str, str],
        options: LocalOptions | None = None,
    ) -> None:
        names = (configured, *(known.name for known in weights.KNOWN))
        self._configured = configured
        self._models = {name: LocalModel(name, data_dir, runtime_dir, environ, options) for name in names}

    @property
    def state(self) -> str:
        """The configured model's state, and who else is up: ``idle; qwen2.5-coder-0.5b: running``."""
        others = ((name, model.state) for name, model in self._models.items() if name != self._configured)
        up = (f"{name}: {state}" for name, state in others if state in ("starting", "running"))
        return "; ".join((self._models[self._configured].state, *up))

    @property
    def remedy(self) -> str:
        """See `LocalModel.remedy`; the configured model's."""
        return self._models[self._configured].remedy

    async def start(self, name: str) -> LocalAddress:
        """See `LocalModel.start`. Raises `ModelGone` for a name that is neither configured nor known."""
        if name not in self._models:
            raise ModelGone(f"The local provider has no model {name!r}. It has: {', '.join(self._models)}")
        return await self._models[name].start()

    async def stop(self) -> None:
        await asyncio.gather(*(model.stop() for model in self._models.values()))
