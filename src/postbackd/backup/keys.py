"""The key of an encrypted backup: what stands in the key file, and what is made of it for one file.

A key file holds 32 bytes in base64 (a key), or any other text (a passphrase).  Every backup has a salt of its own and
so a key of its own: from a key by HKDF (RFC 5869), from a passphrase by scrypt (RFC 7914).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Struct

from postbackd.backup.container import BackupFailed

_KEY_BYTES = 32
_SALT_BYTES = 16
_CHECK_BYTES = 8

_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 16, 8, 1
"""64 MB and about 0.3 s; fixed, so that a forged file cannot ask for more."""

_SHORTEST_PASSPHRASE = 12


class BackupKey(Struct, frozen=True):
    """What a key file holds."""

    secret: bytes
    method: str
    """``hkdf-sha256`` for a key, ``scrypt`` for a passphrase."""


class FileKey(Struct, frozen=True):
    """The key of one backup, and what its head says of it."""

    key: bytes
    method: str
    salt: str
    check: str
    """Tells a wrong key from a damaged file, and nothing about the key."""


def read_key_file(path: Path) -> BackupKey:
    """Raises ``BackupFailed``."""
    try:
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise BackupFailed(
            f"cannot read the key file {path}: {error.strerror}; check its path and owner"
        ) from error
    except UnicodeDecodeError:
        text = ""  # no text, and so no key
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) == _KEY_BYTES:
        return BackupKey(key, "hkdf-sha256")
    if len(text) < _SHORTEST_PASSPHRASE:
        raise BackupFailed(
            f"{path} holds no key: write 32 bytes in base64 into it, as 'openssl rand -base64 32' prints, "
            f"or a passphrase of {_SHORTEST_PASSPHRASE} characters or more"
        )
    return BackupKey(text.encode(), "scrypt")


def make_file_key(key: BackupKey) -> FileKey:
    """The key of a new backup."""
    salt = os.urandom(_SALT_BYTES)
    derived = _derive(key, salt)
    return FileKey(derived[:_KEY_BYTES], key.method, salt.hex(), derived[_KEY_BYTES:].hex())


def find_file_key(key: BackupKey | None, method: str, salt: str, check: str) -> bytes:
    """The key of a backup whose head says this.  Raises ``BackupFailed``."""
    if key is None:
        raise BackupFailed("the backup is encrypted; name the file of its key with --backup-key-file")
    if key.method != method:
        wanted = {"scrypt": "a passphrase", "hkdf-sha256": "a key"}.get(method)
        if wanted is None:
            raise BackupFailed(
                "the backup was encrypted in a way that this version does not know; use a newer one"
            )
        raise BackupFailed(f"the backup was made with {wanted}, and --backup-key-file holds something else")
    derived = _derive(key, bytes.fromhex(salt))
    if not hmac.compare_digest(derived[_KEY_BYTES:], bytes.fromhex(check)):
        raise BackupFailed("the backup was made with another key than that in --backup-key-file")
    return derived[:_KEY_BYTES]


def _derive(key: BackupKey, salt: bytes) -> bytes:
    length = _KEY_BYTES + _CHECK_BYTES
    if key.method == "scrypt":
        return Scrypt(salt, length, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P).derive(key.secret)
    return HKDF(SHA256(), length, salt, b"postbackd backup").derive(key.secret)
