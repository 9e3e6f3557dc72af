"""The image's bill of materials, CycloneDX 1.6: ``sbom.py DATA_DIR TARGET``, from what is installed and nothing else.

Ours rather than a scanner's: three package databases of known shape, and no download in an air-gapped build.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

Component = dict[str, Any]


def main(data_dir: Path, target: Path) -> None:
    found = {one["bom-ref"]: one for one in [*debian(), *python(), *node(data_dir / "ide")]}
    kinds = {ref.partition("/")[0] for ref in found}
    if kinds != {"pkg:deb", "pkg:pypi", "pkg:npm"}:
        sys.exit(f"the bill of materials lacks a kind of package: {sorted(kinds)}")
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": "waiide",
                "version": metadata.version("calliope-agent"),
                "bom-ref": "waiide",
            },
            "properties": [{"name": "architecture", "value": platform.machine()}],
        },
        "components": [found[ref] for ref in sorted(found)],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill, indent=1))
    print(f"{len(found)} components")


def debian() -> Iterator[Component]:
    told = subprocess.run(
        ["/usr/bin/dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\n"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for line in told.stdout.splitlines():
        name, version, architecture = line.split()
        yield component(f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}", name, version)


def python() -> Iterator[Component]:
    for one in metadata.distributions():
        name, version = canonicalize_name(one.metadata["Name"]), one.version
        told = one.metadata.json
        licence = str(told.get("license_expression") or told.get("license") or "")
        yield component(f"pkg:pypi/{name}@{quote(version)}", name, version, licence)


def node(folder: Path) -> Iterator[Component]:
    for file in folder.rglob("package.json"):
        # A package's own manifest: node_modules/NAME/ or node_modules/@SCOPE/NAME/, or one of VS Code's extensions.
        above = file.parent.parent
        if above.name not in ("node_modules", "extensions") and above.parent.name != "node_modules":
            continue
        told = json.loads(file.read_text(errors="replace"))
        name, version, licence = told.get("name"), told.get("version"), told.get("license")
        if isinstance(name, str) and isinstance(version, str):
            group, _, plain = name.rpartition("/")
            path = f"{quote(group, safe='')}/{plain}" if group else plain
            ref = f"pkg:npm/{path}@{quote(version)}"
            yield component(ref, name, version, licence if isinstance(licence, str) else "")


def component(ref: str, name: str, version: str, licence: str = "") -> Component:
    made: Component = {"type": "library", "bom-ref": ref, "name": name, "version": version, "purl": ref}
    if licence and len(licence) < 100:
        made["licenses"] = [{"license": {"name": licence}}]
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
