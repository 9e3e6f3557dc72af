"""What the IDE is made from: the lock files, the settings, and the extensions and themes under ``container/ide``."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from calliope_agent.errors import ConfigError

# A zip entry's time: fixed, so that packing the same source twice gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


def folder() -> Path:
    """The folder ``container/ide``: packed beside the package in a wheel, the live one in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "container_ide"
    return packaged if packaged.is_dir() else package.parent / "container" / "ide"


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension or theme: an unpacked folder with a manifest, or a ``.vsix`` file."""

    name: str
    """``publisher.name``, VS Code's identifier."""
    version: str
    source: Path

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path inside the extension and content, in a stable order."""
        if self.source.is_dir():
            for path in sorted(self.source.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self.source).as_posix(), path.read_bytes()
            return
        with zipfile.ZipFile(self.source) as archive:
            for entry in sorted(archive.namelist()):
                inner = entry.removeprefix("extension/")
                if inner != entry and inner and not entry.endswith("/"):
                    yield _safe(inner, self.source), archive.read(entry)


def extensions(under: Path) -> tuple[Extension, ...]:
    """Every extension and theme directly below ``under``; raises ConfigError for a manifest that cannot be read."""
    folders = (path.parent for path in under.glob("*/package.json") if not path.is_symlink())
    found = [_described(path) for path in sorted([*folders, *under.glob("*.vsix")])]
    return tuple(one for one in found if one is not None)


def digest(found: tuple[Extension, ...]) -> str:
    """SHA-256 over names and contents: tells whether an installation holds just these."""
    hashed = hashlib.sha256()
    for extension in found:
        for path, content in extension.files():
            hashed.update(f"{extension.name}\0{path}\0{len(content)}\0".encode())
            hashed.update(content)
    return hashed.hexdigest()


def pack(extension: Extension) -> bytes:
    """The extension as a ``.vsix`` (a zip with two describing files), byte for byte the same at each call."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        _add(archive, "[Content_Types].xml", _content_types(extension))
        _add(archive, "extension.vsixmanifest", _vsix_manifest(extension))
        for path, content in extension.files():
            _add(archive, f"extension/{path}", content)
    return packed.getvalue()


def _described(source: Path) -> Extension | None:
    try:
        manifest = _manifest(source)
        if "vscode" not in manifest.get("engines", {}):
            return None
        return Extension(f"{manifest['publisher']}.{manifest['name']}".lower(), manifest["version"], source)
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as exc:
        raise ConfigError(f"{source} is no VS Code extension that can be read: {exc!r}. Mend or remove it.") from exc


def _manifest(source: Path) -> dict[str, Any]:
    if source.is_dir():
        text = (source / "package.json").read_bytes()
    else:
        with zipfile.ZipFile(source) as archive:
            text = archive.read("extension/package.json")
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def _safe(inner: str, source: Path) -> str:
    if inner.startswith("/") or ".." in inner.split("/"):
        raise ConfigError(f"{source} holds the path {inner!r}, which leads out of the extension. Remove the file.")
    return inner


def _add(archive: zipfile.ZipFile, name: str, content: str | bytes) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _content_types(extension: Extension) -> str:
    suffixes = {Path(path).suffix or Path(path).name for path, _ in extension.files()} | {".json", ".vsixmanifest"}
    defaults = "".join(
        f'<Default Extension={quoteattr(one)} ContentType="application/octet-stream"/>' for one in sorted(suffixes)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">{defaults}</Types>'
    )


def _vsix_manifest(extension: Extension) -> str:
    publisher, _, name = extension.name.partition(".")
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011"><Metadata>'
        f'<Identity Language="en-US" Id={quoteattr(name)} Version={quoteattr(extension.version)} '
        f"Publisher={quoteattr(publisher)}/></Metadata>"
        '<Installation><InstallationTarget Id="Microsoft.VisualStudio.Code"/></Installation><Dependencies/>'
        '<Assets><Asset Type="Microsoft.VisualStudio.Code.Manifest" Path="extension/package.json" '
        'Addressable="true"/></Assets></PackageManifest>'
    )
