"""Leave in the environment only what the product uses: ``prune.py --project pyproject.toml --extras A,B --also FILE``.

Two passes. The first removes every distribution that nothing asks for (pip itself, build tools, extras not chosen), by
the requirements that the distributions declare. The second removes parts inside distributions, each with its reason.
What stays is compiled, because the folder is read-only at run time and nobody could compile it then.

**Decisions**

1. Nothing is removed that an import of a used module needs: each entry of `PARTS` was seen absent while the product's
   litellm tests passed in the image.
2. boto3 and botocore stay, but for the descriptions of other services: they are Amazon Bedrock. So do tokenizers and
   huggingface-hub, which litellm asks for token counts of some models.
"""

from __future__ import annotations

import argparse
import compileall
import py_compile
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = Path(sysconfig.get_path("purelib"))

# Pattern below site-packages → why nothing misses it.
PARTS = {
    "litellm/proxy/_experimental/out": "the web pages of litellm's own proxy, which is never started",
    "litellm/rust_bridge/_native*.so": "a compiled helper of litellm's proxy routes",
    "**/tests": "tests of the libraries",
    "**/*.pyx": "sources of what is compiled",
    "**/*.c": "sources of what is compiled",
}
# The only services of Amazon's that are asked: Bedrock, and what gives the credentials for it.
AMAZON = {"bedrock", "bedrock-agent", "bedrock-agent-runtime", "bedrock-runtime", "signin", "sso", "sso-oidc", "sts"}
KEPT_TESTS = ("jupyter_server",)  # imported by its own pytest plugin's entry point
# Distributions that something asks for and nothing of ours uses.
UNUSED = {
    "hf-xet": "fetches models from a hub in another format; the agent fetches none",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--extras", required=True)
    parser.add_argument("--also", type=Path, required=True, help="a list of requirements that count where installed")
    args = parser.parse_args()
    used = reachable(roots(args.project, args.extras.split(","), args.also))
    for distribution in list(metadata.distributions()):
        name = canonicalize_name(distribution.metadata["Name"])
        if name not in used or name in UNUSED:
            print(f"removed {name}: {UNUSED.get(name, 'nothing asks for it')}")
            remove(distribution)
    for pattern, reason in PARTS.items():
        freed = sum(
            discard(path) for path in list(PACKAGES.glob(pattern)) if path.parts[len(PACKAGES.parts)] not in KEPT_TESTS
        )
        print(f"removed {pattern}, {freed / 1e6:.1f} MB: {reason}")
    services = [
        path for path in (PACKAGES / "botocore" / "data").iterdir() if path.is_dir() and path.name not in AMAZON
    ]
    freed = sum(discard(path) for path in services)
    print(
        f"removed {len(services)} service descriptions of botocore, {freed / 1e6:.1f} MB: nothing asks those services"
    )
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(str(PACKAGES), quiet=1, workers=0, invalidation_mode=mode):
        print("some files do not compile; they are not Python 3", file=sys.stderr)


def roots(project: Path, extras: Iterable[str], also: Path) -> list[Requirement]:
    """What the project asks for with these extras, and the lines of ``also`` that are installed."""
    told = tomllib.loads(project.read_text())["project"]
    wanted = [*told["dependencies"], *(line for extra in extras for line in told["optional-dependencies"][extra])]
    lines = [line for line in also.read_text().splitlines() if line and not line.startswith("#")]
    return [Requirement(line) for line in [*wanted, *lines]]


def reachable(wanted: list[Requirement]) -> set[str]:
    """Names of the installed distributions that the requirements lead to, extras and markers obeyed."""
    found: set[tuple[str, str]] = set()
    waiting = [(one, "") for one in wanted]
    while waiting:
        one, extra = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        try:
            requires = metadata.requires(one.name) or []
        except metadata.PackageNotFoundError:
            continue
        for asked in ("", *one.extras):
            if (canonicalize_name(one.name), asked) not in found:
                found.add((canonicalize_name(one.name), asked))
                waiting += [(Requirement(line), asked) for line in requires]
    return {name for name, _ in found}


def remove(distribution: metadata.Distribution) -> None:
    """By its record, as pip would; pip itself is among what goes."""
    for file in distribution.files or ():
        Path(str(file.locate())).unlink(missing_ok=True)
    for folder in sorted(PACKAGES.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def discard(path: Path) -> int:
    """Remove a file or a folder; the bytes it held."""
    if path.is_dir():
        size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
        return size
    size = path.lstat().st_size
    path.unlink()
    return size


if __name__ == "__main__":
    main()
