"""The body of an answer: as much as is kept, decompressed, however much is sent."""

from __future__ import annotations

import zlib
from typing import Any

KEPT = 4096
"""Bytes of an answer that are kept for patterns and the log, where nobody asks for more."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_WINDOWS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ZLIB}


class BodyReader:
    """Takes a body piece by piece; never holds more than what is kept and a decompressor's window (32 kB)."""

    __slots__ = ("_decompressor", "_kept", "_maybe_raw", "content", "error")

    def __init__(self, encoding: bytes = b"", kept: int = KEPT) -> None:
        """``encoding``: the value of ``Content-Encoding``, in lower case.  ``kept``: bytes that are kept."""
        self._kept = kept
        self.content = b""
        self.error = ""
        self._decompressor: Any = None
        self._maybe_raw = False
        if encoding and encoding != b"identity":
            window = _WINDOWS.get(encoding)
            if window is None:
                self.error = (
                    f"the body is encoded as {encoding[:20].decode('latin-1')!r}, which nobody asked for"
                )
            else:
                self._decompressor = zlib.decompressobj(window)
                self._maybe_raw = encoding == b"deflate"

    def take(self, piece: bytes) -> bool:
        """Take a piece; False when no more is wanted, because enough is there or the rest cannot be read."""
        if self.error:
            return False
        if self._decompressor is None:
            content = self.content + piece
            self.content = content[: self._kept]
            return len(content) <= self._kept
        return bool(self._decompressor.eof) or self._decompress(piece)

    def _decompress(self, piece: bytes) -> bool:
        wanted = self._kept - len(self.content) + 1
        try:
            got = self._decompressor.decompress(piece, wanted)
        except zlib.error:
            if not self._maybe_raw:
                self.error = "the body is not compressed as its Content-Encoding says"
                return False
            self._maybe_raw = (
                False  # many servers send deflate without the header of zlib (RFC 9110 section 8.4.1.2)
            )
            self._decompressor = zlib.decompressobj(_RAW)
            return self._decompress(piece)
        self._maybe_raw = self._maybe_raw and not got
        content = self.content + got
        self.content = content[: self._kept]
        return len(content) <= self._kept
