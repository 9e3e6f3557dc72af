"""The shape of the code: which way imports point, how large modules are, and what must not be in the repository."""

from __future__ import annotations

import ast
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "calliope_agent"

# From the ground up; a module may import its own level and those below it. What is not named stands on the ground.
LEVELS = (
    ("upstream",),
    ("completion",),
    ("inline",),
    ("configuration",),
    ("agent",),
    ("api", "launcher", "tokens"),
    ("server",),
    ("cli", "__main__"),
)
# Neighbours on one level that must not know each other.
APART = {("api", "launcher"), ("launcher", "api")}
LONG = {"errors.py": "one tree of errors, drawn in one place"}
LINES = 300
VAGUE = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "core"}

TOP = {"calliope_agent", "providers", "tests", "container", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
TOP |= {"requirements.lock", "Makefile", ".ci", ".gitignore"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def level(name: str) -> int:
    """0 is the ground."""
    return next((number for number, names in enumerate(LEVELS, 1) if name in names), 0)


def part_of(path: Path) -> str:
    """``api/app.py`` → ``api``, ``agent.py`` → ``agent``."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, lazily or for its types too, and those that it names as a text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("calliope_agent.")
        ):
            yield node.value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    mine = part_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "calliope_agent" or len(parts) < 2:
            continue
        theirs = parts[1]
        assert level(theirs) <= level(mine), f"{path}: {mine} imports {name}, which stands above it"
        assert (mine, theirs) not in APART, f"{path}: {mine} imports {name}, its neighbour"


def test_no_module_is_long_without_a_reason() -> None:
    long = {str(path.relative_to(PACKAGE)) for path in MODULES if len(path.read_bytes().splitlines()) > LINES}
    assert long == set(LONG)


def test_every_module_is_named_after_what_it_is() -> None:
    assert [path for path in MODULES if path.stem in VAGUE or path.parent.name in VAGUE] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_one_file_imports_litellm() -> None:
    found = {path.name for path in MODULES for name in imports(path) if name.split(".")[0] == "litellm"}
    assert found == {"litellm_door.py"}


def test_nothing_runs_by_itself_when_python_starts() -> None:
    """A compromised litellm came with a .pth file whose one line ran at every start of Python."""
    known = {"distutils-precedence.pth", "_virtualenv.pth", "_editable_impl_calliope_agent.pth"}
    running = {
        path.name
        for path in Path(sysconfig.get_path("purelib")).glob("*.pth")
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith(("import ", "import\t"))
    }
    assert running - known == set()


def tracked() -> list[str]:
    """Every file of the repository, from its root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout
    names = [name for name in listed.decode().split("\0") if name]
    if not names:
        pytest.skip("not a git checkout, so nobody says what belongs to the repository")
    return names


def test_nothing_strange_lies_at_the_top() -> None:
    assert {name.partition("/")[0] for name in tracked()} == TOP


def test_no_registry_is_named() -> None:
    """Which index serves a site is the site's own matter: mirrors differ."""
    # Put together here, so that this file does not hold them itself.
    hosts = [
        ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"))
    ]
    named = [
        (name, host)
        for name in tracked()
        if (ROOT / name).is_file()
        for host in hosts
        if host.encode() in (ROOT / name).read_bytes()
    ]
    assert named == []
