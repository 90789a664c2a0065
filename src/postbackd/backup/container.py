"""The file format of a backup: a head, and frames that cannot be altered, cut, re-ordered or mixed unnoticed.

    "POSTBACKD BACKUP" | format (1 byte) | length of the head (4) | head (JSON) | hash of all this (16)
    then frames: length (4) | sealed bytes

A frame is compressed (zlib) and then sealed under its number, under whether it is the last one (the STREAM construction
of Hoang, Reyhanitabar, Rogaway and Vizár, 2015) and under the hash of the head: with AES-256-GCM when there is a key,
else with a BLAKE2b tag, which notices accidents and no attackers.  The first frame is a small document, the manifest;
the others are the blocks of one file.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from hashlib import blake2b
from typing import BinaryIO, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

MAGIC = b"POSTBACKD BACKUP"
FORMAT = 1

BLOCK_BYTES = 1 << 20
"""Of the file, in one frame."""

NONCE_BYTES = 7
"""That a file has of its own; the number of the frame and the mark of the last one follow."""

_TAG_BYTES = 16
_MOST_HEAD_BYTES = 4096
_MOST_FRAME_BYTES = 2 * BLOCK_BYTES
_LEVEL = 1
"""Of compression: 176 MB/s for 55 at the usual 6, and our tables become no smaller by that (measured)."""


class BackupFailed(Exception):
    """A backup cannot be made or used; one line that says what to do."""


class Head(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What stands at the beginning of the file, readable by everybody."""

    cipher: str
    """``aes-256-gcm`` or ``none``."""
    nonce: str = ""
    method: str = ""
    salt: str = ""
    check: str = ""


class _Seal(Protocol):
    def seal(self, nonce: bytes, plain: bytes, beside: bytes) -> bytes: ...
    def open(self, nonce: bytes, sealed: bytes, beside: bytes) -> bytes: ...


class _Cipher:
    def __init__(self, key: bytes) -> None:
        self._gcm = AESGCM(key)

    def seal(self, nonce: bytes, plain: bytes, beside: bytes) -> bytes:
        return self._gcm.encrypt(nonce, plain, beside)

    def open(self, nonce: bytes, sealed: bytes, beside: bytes) -> bytes:
        return self._gcm.decrypt(nonce, sealed, beside)


class _Tag:
    """The same without a key."""

    def seal(self, nonce: bytes, plain: bytes, beside: bytes) -> bytes:
        return plain + blake2b(nonce + beside + plain, digest_size=_TAG_BYTES).digest()

    def open(self, nonce: bytes, sealed: bytes, beside: bytes) -> bytes:
        plain = sealed[:-_TAG_BYTES]
        if self.seal(nonce, plain, beside) != sealed:
            raise InvalidTag
        return plain


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])


class Writer:
    """Writes a container; every ``write`` is one frame."""

    def __init__(self, file: BinaryIO, head: Head, key: bytes | None) -> None:
        document = msgspec.json.encode(head)
        opening = MAGIC + bytes([FORMAT]) + len(document).to_bytes(4, "big") + document
        self._beside = _hash(opening)
        self._prefix = bytes.fromhex(head.nonce)
        self._seal: _Seal = _Tag() if key is None else _Cipher(key)
        self._file = file
        self._number = 0
        file.write(opening + self._beside)

    def write(self, content: bytes, *, last: bool) -> None:
        """Add a frame."""
        nonce = _nonce(self._prefix, self._number, last=last)
        sealed = self._seal.seal(nonce, zlib.compress(content, _LEVEL), self._beside)
        self._file.write(len(sealed).to_bytes(4, "big") + sealed)
        self._number += 1


class Reader:
    """Reads a container.  Everything raises ``BackupFailed``."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        opening = self._take(len(MAGIC) + 5)
        if not opening.startswith(MAGIC):
            raise BackupFailed(f"{name} is no backup of postbackd, or its beginning is damaged")
        if opening[len(MAGIC)] != FORMAT:
            raise BackupFailed(f"{name} is in format {opening[len(MAGIC)]}, and this version reads {FORMAT}")
        length = int.from_bytes(opening[-4:], "big")
        if length > _MOST_HEAD_BYTES:
            raise self._damaged("its head is too long")
        opening += self._take(length)
        self._beside = _hash(opening)
        if self._take(len(self._beside)) != self._beside:
            raise self._damaged("its head does not fit its hash")
        try:
            self.head = msgspec.json.decode(opening[-length:], type=Head)
        except msgspec.DecodeError as error:
            raise BackupFailed(
                f"{name} has a head that this version does not know; use a newer one"
            ) from error
        if self.head.cipher not in ("none", "aes-256-gcm"):
            raise BackupFailed(f"{name} uses a cipher that this version does not know; use a newer one")

    @property
    def encrypted(self) -> bool:
        return self.head.cipher != "none"

    def frames(self, key: bytes | None) -> Iterator[bytes]:
        """The contents of the frames, the last one included, or an error: never less without saying so."""
        seal: _Seal = _Tag() if key is None else _Cipher(key)
        prefix, number, last = bytes.fromhex(self.head.nonce), 0, False
        while not last:
            sealed = self._take_frame()
            last = not self._file.peek(1)  # type: ignore[attr-defined]  # a buffered file
            try:
                packed = seal.open(_nonce(prefix, number, last=last), sealed, self._beside)
            except InvalidTag as error:
                where = "it was cut, or something follows its end" if last else "it is not what was written"
                raise self._damaged(f"frame {number}: {where}") from error
            yield self._unpack(packed, number)
            number += 1

    def _take_frame(self) -> bytes:
        length = int.from_bytes(self._take(4), "big")
        if not _TAG_BYTES <= length <= _MOST_FRAME_BYTES:
            raise self._damaged(f"a frame cannot have {length} bytes")
        return self._take(length)

    def _unpack(self, packed: bytes, number: int) -> bytes:
        unpacking = zlib.decompressobj()
        try:
            content = unpacking.decompress(packed, BLOCK_BYTES + 1)
        except zlib.error as error:
            raise self._damaged(f"frame {number} cannot be unpacked") from error
        if not unpacking.eof or len(content) > BLOCK_BYTES:
            raise self._damaged(f"frame {number} is too large")
        return content

    def _take(self, count: int) -> bytes:
        taken = self._file.read(count)
        if len(taken) < count:
            raise self._damaged("it ends too early")
        return taken

    def _damaged(self, how: str) -> BackupFailed:
        return BackupFailed(f"{self._name} is damaged: {how}; use another backup")


def _hash(opening: bytes) -> bytes:
    return blake2b(opening, digest_size=_TAG_BYTES).digest()
