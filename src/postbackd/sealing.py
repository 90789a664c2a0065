"""Secrets of targets and networks at rest: sealed with a key that is not in the database.

The key is a setting (``secret_key``), or a file beside the embedded database that is made when it is first needed.
Whoever has a copy of the database alone reads none of the secrets, and can change none without being noticed.
"""

from __future__ import annotations

import base64
import binascii
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_NAME = "secret.key"
"""File in the data directory."""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = "1."
_PURPOSE = b"postbackd: a secret of a target"


class SealError(Exception):
    """A secret cannot be sealed or opened; says what to do."""


class Sealer:
    """Seals and opens secrets with one key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: str) -> str:
        """The secret as text that only the key opens; another one every time."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret.encode(), _PURPOSE)
        return _VERSION + base64.urlsafe_b64encode(sealed).decode()

    def open(self, sealed: str) -> str:
        """The secret.  Raises ``SealError``."""
        version, text = sealed[: len(_VERSION)], sealed[len(_VERSION) :]
        try:
            if version != _VERSION:
                raise SealError("a secret was sealed by a newer postbackd; run that one")
            data = base64.urlsafe_b64decode(text)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _PURPOSE).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise SealError(
                "a secret was sealed with another key; set POSTBACKD_SECRET_KEY to that one, "
                "or give the secret anew with 'postbackd target set' or 'postbackd network set'"
            ) from error


def find_sealer(key: str | None, data: Path, *, create: bool) -> Sealer:
    """The sealer for the key in the settings, or for the one in the data directory.

    ``create``: make that one when it is missing.  Raises ``SealError``.
    """
    return Sealer(_read_key(key, "POSTBACKD_SECRET_KEY") if key is not None else _key_of(data, create))


def _key_of(data: Path, create: bool) -> bytes:
    path = data / KEY_NAME
    try:
        if create:
            _make_key(path)
        return _read_key(path.read_text("ascii"), str(path))
    except FileNotFoundError as error:
        raise SealError(
            f"the key of the secrets is not here: there is no {path}; copy it from where the secrets were given, "
            "or set POSTBACKD_SECRET_KEY"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"cannot use {path}: {error}; check its owner") from error


def _make_key(path: Path) -> None:
    """Make the file unless it is there; complete under its name, or not there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{KEY_NAME}.{os.getpid()}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)) + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    try:
        with suppress(FileExistsError):  # another process was faster: that key is the one
            os.link(draft, path)
    finally:
        draft.unlink()


def _read_key(text: str, where: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text.strip())
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise SealError(
            f"{where} holds no key: it has to be 32 bytes in base64, such as 'openssl rand -base64 32' prints"
        )
    return key
