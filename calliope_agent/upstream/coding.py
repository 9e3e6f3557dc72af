"""Content codings of answers (RFC 9110 §8.4): gzip and deflate, unpacked as they come, a bounded piece at a time.

Decisions
1. A piece is bounded because a few bytes can unpack to a thousand times as many; who reads counts what he gets.
2. "deflate" is zlib's format by the standard and bare deflate by custom of some servers: the first byte tells which.
3. gzip may come as several members, one after the other (RFC 1952 §2.2); what follows the last one and is none is thrown away, as
   browsers do. zlib copies what it leaves over each time, hence the slices: many small members would cost their square.
4. A coding that nobody asked for is an error when it is read, not before: an answer with a status of its own keeps that.
"""

from __future__ import annotations

import zlib
from typing import Final

from calliope_agent import errors

PIECE_BYTES: Final = 1 << 20
SLICE_BYTES: Final = 16 << 10
ACCEPTED: Final = "gzip, deflate"
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
_GZIP_MAGIC: Final = b"\x1f"
_ZLIB_METHOD: Final = 8


class Inflater:
    """Unpacks one answer's body. Raises `Malformed` for what is no such coding, `Truncated` for one that was cut."""

    __slots__ = ("_at", "_coding", "_ended", "_packed", "_unpacker")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._packed = b""
        self._at = 0
        self._ended = False
        self._unpacker: zlib._Decompress | None = None

    def feed(self, packed: bytes) -> None:
        """The next bytes of the coded body; those before have been taken, `piece` by piece."""
        self._packed = packed
        self._at = 0

    def piece(self) -> bytes:
        """The next unpacked bytes; empty where more have to be fed first."""
        while (unpacker := self._unpacker or self._begun()) is not None:
            packed = self._packed[self._at : self._at + SLICE_BYTES]
            try:
                data = unpacker.decompress(packed, PIECE_BYTES)
            except zlib.error as exc:
                raise errors.Malformed(
                    f"The provider's answer is not in the coding it names ({self._coding}). Ask again."
                ) from exc
            self._at += len(packed) - len(unpacker.unconsumed_tail) - len(unpacker.unused_data)
            self._ended = unpacker.eof
            self._unpacker = None if unpacker.eof else unpacker
            if data or (not self._ended and self._at == len(self._packed)):
                return data
        return b""

    def end(self) -> None:
        """The coded body is over."""
        if not self._ended:
            raise errors.Truncated("The provider's answer was cut in the middle. Ask again.")

    def _begun(self) -> zlib._Decompress | None:
        """For the body, or for another member of it; None where there is none, or none yet."""
        if self._ended and (self._coding == "deflate" or not self._packed.startswith(_GZIP_MAGIC, self._at)):
            self.feed(b"")
        if self._at == len(self._packed):
            return None
        return zlib.decompressobj(_GZIP_BITS if self._coding != "deflate" else _deflate_bits(self._packed[self._at]))


class _Unasked(Inflater):
    """A coding that nobody asked for."""

    __slots__ = ()

    def piece(self) -> bytes:
        raise errors.Malformed(
            f"The provider's answer is in a coding that was not asked for ({self._coding!r}). Ask again."
        )


def inflater(coding: str) -> Inflater | None:
    """For a Content-Encoding header; None where nothing is coded."""
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    return Inflater(name) if name in ("gzip", "x-gzip", "deflate") else _Unasked(name[:20])


def _deflate_bits(first: int) -> int:
    return zlib.MAX_WBITS if first & 0x0F == _ZLIB_METHOD else -zlib.MAX_WBITS
