"""Content codings of answers (RFC 9110 §8.4): gzip and deflate, unpacked as they come, a bounded piece at a time.

Decisions
1. A piece is bounded because a few bytes can unpack to a thousand times as many; who reads counts what he gets.
2. "deflate" is zlib's format by the standard and bare deflate by custom of some servers: the first byte tells which.
"""

from __future__ import annotations

import zlib
from typing import Final

from calliope_agent import errors

PIECE_BYTES: Final = 1 << 20
ACCEPTED: Final = "gzip, deflate"
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB_METHOD: Final = 8


class Inflater:
    """Unpacks one answer's body. Raises `Malformed` for what is no such coding, `Truncated` for one that was cut."""

    __slots__ = ("_coding", "_packed", "_unpacker")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._packed = b""
        self._unpacker = zlib.decompressobj(_GZIP) if coding != "deflate" else None

    def feed(self, packed: bytes) -> None:
        """The next bytes of the coded body."""
        if self._unpacker is None:
            is_zlib = packed[0] & 0x0F == _ZLIB_METHOD
            self._unpacker = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        self._packed += packed

    def piece(self) -> bytes:
        """The next unpacked bytes; empty where more have to be fed first."""
        if self._unpacker is None:
            return b""
        try:
            data = self._unpacker.decompress(self._packed, PIECE_BYTES)
        except zlib.error as exc:
            raise errors.Malformed(
                f"The provider's answer is not in the coding it names ({self._coding}). Ask again."
            ) from exc
        self._packed = self._unpacker.unconsumed_tail
        return data

    def end(self) -> None:
        """The coded body is over."""
        if self._unpacker is not None and not self._unpacker.eof:
            raise errors.Truncated("The provider's answer was cut in the middle. Ask again.")


def inflater(coding: str) -> Inflater | None:
    """For a Content-Encoding header; None where nothing is coded. Raises `Malformed` for a coding that nobody asked for."""
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip", "deflate"):
        return Inflater(name)
    raise errors.Malformed(f"The provider's answer is in a coding that was not asked for ({name[:20]!r}). Ask again.")
