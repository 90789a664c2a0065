"""Secrets at rest: sealed with a key that is not in the database.

The key is a setting (``secret_key``), or a file beside the embedded database that is made when it is first needed.
Whoever has a copy of the database alone reads none of the secrets, and can change none without being noticed.

While a key is changed both hold two: the newest first, which seals; all of them open.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from postbackd.store.base import StoreRefused
from postbackd.store.sealed import ENDPOINT_KEY, TARGET
from postbackd.store.sqlite_file import sync_names

KEY_NAME = "secret.key"
"""File in the data directory; a key a line, the newest first."""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_FIRST_VERSION, _BOUND, _EQUAL = "1.", "2.", "3."
"""Bound to being a target's; bound to any purpose; the same, and equal for equal secrets."""

_FIRST_PURPOSE = b"postbackd: a secret of a target"
_SIV_PURPOSE = b"postbackd: secrets of which no two may be equal"

_UNIQUE = frozenset({ENDPOINT_KEY})
"""Purposes whose column has a unique key: equal secrets have to look equal in it."""


class SealError(StoreRefused):
    """A secret cannot be sealed or opened; says what to do."""


class _Key:
    """One key, as the two ciphers use it."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.gcm = AESGCM(key)
        self.siv = AESSIV(hmac.digest(key, _SIV_PURPOSE, "sha512"))

    def open(self, version: str, data: bytes, purpose: str) -> bytes:
        if version == _EQUAL:
            return self.siv.decrypt(data, [_bind(purpose)])
        bound = _FIRST_PURPOSE if version == _FIRST_VERSION else _bind(purpose)
        return self.gcm.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)


def _bind(purpose: str) -> bytes:
    return f"postbackd: {purpose}".encode()


class Sealer:
    """Seals secrets with the first of some keys (32 bytes each), and opens what any of them sealed."""

    def __init__(self, *keys: bytes) -> None:
        self._keys = [_Key(key) for key in keys]

    @property
    def keys(self) -> Sequence[bytes]:
        """The keys, the newest first."""
        return [key.key for key in self._keys]

    def seal(self, secret: str, purpose: str = TARGET) -> str:
        """The secret as text that only the key opens, and only for this purpose; another one every time.

        Of an endpoint key the same every time.
        """
        newest = self._keys[0]
        if purpose in _UNIQUE:
            return _write(_EQUAL, newest.siv.encrypt(secret.encode(), [_bind(purpose)]))
        nonce = os.urandom(_NONCE_BYTES)
        return _write(_BOUND, nonce + newest.gcm.encrypt(nonce, secret.encode(), _bind(purpose)))

    def open(self, sealed: str, purpose: str = TARGET) -> str:
        """The secret.  Raises ``SealError``."""
        return self._find(sealed, purpose)[1]

    def is_newest(self, sealed: str, purpose: str = TARGET) -> bool:
        """Whether it is sealed as it would be now.  Raises ``SealError``."""
        return self._find(sealed, purpose)[0] == 0 and not sealed.startswith(_FIRST_VERSION)

    def _find(self, sealed: str, purpose: str) -> tuple[int, str]:
        """The number of the key that opens it, and the secret."""
        version, text = sealed[:2], sealed[2:]
        if version not in (_FIRST_VERSION, _BOUND, _EQUAL):
            raise SealError("a secret was sealed by a newer postbackd; run that one")
        if version == _FIRST_VERSION and purpose != TARGET:
            raise SealError(
                f"what is stored as {purpose} was not sealed as such; somebody has changed the database"
            )
        for number, key in enumerate(self._keys):
            with suppress(InvalidTag, binascii.Error, ValueError):
                return number, key.open(version, base64.urlsafe_b64decode(text), purpose).decode()
        raise SealError(_cannot_open(purpose))


def _cannot_open(purpose: str) -> str:
    anew = ", or give the secret anew with 'postbackd target set'" if purpose == TARGET else ""
    return (
        f"a secret ({purpose}) was sealed with another key; put that key back into {KEY_NAME} or POSTBACKD_SECRET_KEY, "
        f"behind the new one and a comma if there is one{anew}"
    )


def _write(version: str, data: bytes) -> str:
    return version + base64.urlsafe_b64encode(data).decode()


# --- where the key is --------------------------------------------------------------------------------------------


def find_sealer(key: str | None, data: Path, *, create: bool) -> Sealer:
    """The sealer for the key in the settings, or for the one in the data directory.

    ``create``: make that one when it is missing.  Raises ``SealError``.
    """
    if key is not None:
        return Sealer(*read_keys(key, "POSTBACKD_SECRET_KEY"))
    return Sealer(*read_key_file(data / KEY_NAME, create=create))


class KeptSealer:
    """What a process that runs seals and opens with.  Implements ``store.database.Seals``.

    The key is looked for when it is first needed, and again when something does not open: it may have been changed.
    """

    def __init__(self, key: str | None, data: Path, *, seals_new: bool, seals_old: bool) -> None:
        self._key = key
        self._data = data
        self._sealer: Sealer | None = None
        self._began: Sealer | None = None
        """The first key that was found."""
        self.seals_new = seals_new
        self.seals_old = seals_old

    def begin(self) -> None:
        """Make the key when it is missing, and nothing has been sealed with it yet."""
        self._sealer = find_sealer(self._key, self._data, create=True)

    def seal(self, text: str, purpose: str = TARGET) -> str:
        """See ``Sealer``; a key that has been changed meanwhile is looked for."""
        return self._look().seal(text, purpose)

    def open(self, sealed: str, purpose: str = TARGET) -> str:
        """See ``Sealer``."""
        if self._sealer is not None:
            with suppress(SealError):
                return self._sealer.open(sealed, purpose)
        return self._look().open(sealed, purpose)

    def reseal(self, sealed: str, purpose: str) -> str:
        """The same secret, sealed with the newest key; one that is already stays as it is.

        What was read before a change of the key opens with the key that was there then.
        """
        began, sealer = self._began, self._look()
        try:
            if sealer.is_newest(sealed, purpose):
                return sealed
            secret = sealer.open(sealed, purpose)
        except SealError:
            if began is None:
                raise
            secret = began.open(sealed, purpose)
        return sealer.seal(secret, purpose)

    def _look(self) -> Sealer:
        self._sealer = find_sealer(self._key, self._data, create=False)
        self._began = self._began or self._sealer
        return self._sealer


# --- the file ----------------------------------------------------------------------------------------------------


def make_key() -> bytes:
    """A new random key."""
    return os.urandom(_KEY_BYTES)


def write_key(key: bytes) -> str:
    """A key as it is given in settings and files."""
    return base64.urlsafe_b64encode(key).decode()


def read_keys(text: str, where: str) -> Sequence[bytes]:
    """Keys that are separated by commas or lines, the newest first.  Raises ``SealError``."""
    return [_read_key(one, where) for one in re.split(r"[,\n]", text.strip())]


def _read_key(text: str, where: str) -> bytes:
    try:
        key = base64.urlsafe_b64decode(text.strip().replace("+", "-").replace("/", "_"))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise SealError(
            f"{where} holds no key: it has to be 32 bytes in base64, such as 'openssl rand -base64 32' prints"
        )
    return key


def read_key_file(path: Path, *, create: bool) -> Sequence[bytes]:
    """The keys in a file; ``create``: make one when it is missing.  Raises ``SealError``."""
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _lay(path, [make_key()], replace=False)
        return read_keys(path.read_text("ascii"), str(path))
    except FileNotFoundError as error:
        raise SealError(
            f"the key of the secrets is not here: there is no {path}; copy it from where the secrets were given, "
            "or set POSTBACKD_SECRET_KEY"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"cannot use {path}: {error}; check its owner") from error


def replace_key_file(path: Path, keys: Sequence[bytes]) -> None:
    """Put other keys into a file.  Raises ``SealError``; then the file is what it was."""
    try:
        for draft in path.parent.glob(f"{path.name}.*"):  # of a process that was killed
            draft.unlink(missing_ok=True)
        _lay(path, keys, replace=True)
    except OSError as error:
        raise SealError(f"cannot write {path}: {error}; check its owner and the disk") from error


def _lay(path: Path, keys: Sequence[bytes], *, replace: bool) -> None:
    """Complete under its name and on the disk, or not there.  Without ``replace`` one that is there stays."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, "".join(f"{write_key(key)}\n" for key in keys).encode())
        os.fsync(file)
    finally:
        os.close(file)
    if replace:
        draft.replace(path)
    else:
        try:
            with suppress(FileExistsError):  # another process was faster: that key is the one
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    sync_names(path.parent)
