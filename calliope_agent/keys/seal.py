"""The encrypted file's format: one JSON object, its body AES-256-GCM over the keys, its header authenticated with it.

**Decisions**

1. The header carries a check value (HMAC of the derived key), so that a wrong passphrase and a damaged file are two
   messages. It tells an attacker nothing that the authentication tag does not.
2. scrypt with N = 2^15, r = 8, p = 1 (32 MiB, about 0.1 s): the strongest that a 128 MiB container stands; the numbers
   are in the header, bounded on read, so that they can grow.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from calliope_agent.errors import ConfigError
from calliope_agent.secret import Secret

SCHEMA = 1
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}
_MAX_MEMORY = 256 << 20


class NewerSchema(ConfigError):
    """A newer version of this program wrote the file; it is left alone."""


@dataclass(frozen=True, slots=True)
class Unlock:
    """What opens the file: a passphrase, or 32 bytes of a key file."""

    passphrase: Secret | None
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Sealed:
    """A parsed file whose body is still closed."""

    header: dict[str, Any]
    nonce: bytes
    body: bytes

    @property
    def by_passphrase(self) -> bool:
        return bool(self.header["kdf"]["name"] == "scrypt")


def parse(raw: bytes, where: str) -> Sealed:
    """Raises NewerSchema, and ConfigError when it is not such a file."""
    try:
        outer = json.loads(raw)
        header, schema = outer["header"], outer["header"]["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerSchema(
                f"{where} was written by a newer calliope-agent (schema {schema}, this one knows "
                f"{SCHEMA}), so it is left as it is. "
                "Use the newer version, or set the keys again with this one."
            )
        if schema != SCHEMA or header["kdf"]["name"] not in {"scrypt", "file"}:
            raise ValueError("unknown schema")
        return Sealed(header, _bytes(outer["nonce"]), _bytes(outer["body"]))
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ConfigError(_damaged(where)) from exc


def open_sealed(sealed: Sealed, unlock: Unlock, where: str) -> dict[str, Any]:
    """The keys. Raises ConfigError: no passphrase, a wrong one, or damage."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  0.06 s that a start without stored keys does not pay
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        key = _derived(sealed.header["kdf"], unlock, where)
        if not hmac.compare_digest(_check_value(key), str(sealed.header["check"])):
            raise ConfigError(_wrong(sealed, where))
        data = json.loads(AESGCM(key).decrypt(sealed.nonce, sealed.body, _canonical(sealed.header)))
        if not isinstance(data, dict):
            raise TypeError("not an object")
    except (InvalidTag, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ConfigError(_damaged(where)) from exc
    return data


def seal(data: dict[str, Any], unlock: Unlock) -> bytes:
    """The file's bytes; a fresh salt and nonce each time."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    kdf: dict[str, Any] = {"name": "file"}
    if unlock.passphrase:
        kdf = {"name": "scrypt", "salt": _text(os.urandom(16)), **_SCRYPT}
    key = _derived(kdf, unlock, "the encrypted file")
    header = {"schema": SCHEMA, "kdf": kdf, "check": _check_value(key)}
    nonce = os.urandom(12)
    body = AESGCM(key).encrypt(nonce, json.dumps(data).encode(), _canonical(header))
    return json.dumps({"header": header, "nonce": _text(nonce), "body": _text(body)}, indent=1).encode()


def _derived(kdf: dict[str, Any], unlock: Unlock, where: str) -> bytes:
    if kdf["name"] == "file":
        if unlock.key is None:
            raise ConfigError(
                f"{where} needs the key file beside it, which is gone. Put it back, or move "
                f"{where} away and set the keys again."
            )
        return unlock.key
    if not unlock.passphrase:
        raise ConfigError(
            f"{where} is closed by a passphrase: set CALLIOPE_KEYS_PASSPHRASE. Nothing in it was changed."
        )
    n, r, p = int(kdf["n"]), int(kdf["r"]), int(kdf["p"])
    if 128 * n * r > _MAX_MEMORY or p > 4:
        raise ValueError("scrypt's numbers are out of bounds")
    return _scrypt(unlock.passphrase, _bytes(kdf["salt"]), n, r, p)


@lru_cache(maxsize=4)
def _scrypt(passphrase: Secret, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(passphrase.reveal().encode(), salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY * 2, dklen=32)


def _check_value(key: bytes) -> str:
    return hmac.new(key, b"calliope-agent key check", hashlib.sha256).hexdigest()[:32]


def _canonical(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _wrong(sealed: Sealed, where: str) -> str:
    if sealed.by_passphrase:
        return (
            f"CALLIOPE_KEYS_PASSPHRASE is not the one {where} was closed with. Give the right one; nothing was changed."
        )
    return (
        f"The key file beside {where} is not the one it was closed with. Put the right one back; nothing was changed."
    )


def _damaged(where: str) -> str:
    return (
        f"{where} is damaged or not a key file of calliope-agent, so it is left as it is. "
        "Move it away and set the keys again."
    )


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
