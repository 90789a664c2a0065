"""A backup file that was altered, cut, re-ordered or mixed is refused, at whatever byte."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from postbackd.backup.container import BLOCK_BYTES, BackupFailed, Head, Reader, Writer
from postbackd.backup.keys import BackupKey, find_file_key, make_file_key, read_key_file

FRAMES = (b"the manifest", b"block one" * 20, b"block two" * 20, b"the end" * 20)
KEY = bytes(range(32))


def pack(frames: tuple[bytes, ...] = FRAMES, key: bytes | None = None, nonce: bytes = b"7 bytes") -> bytes:
    file = io.BytesIO()
    writer = Writer(file, Head("aes-256-gcm" if key else "none", nonce.hex()), key)
    for number, frame in enumerate(frames):
        writer.write(frame, last=number == len(frames) - 1)
    return file.getvalue()


def unpack(packed: bytes, key: bytes | None = None) -> list[bytes]:
    file = io.BufferedReader(io.BytesIO(packed))
    reader = Reader(file, "x.backup")
    if reader.encrypted and key is None:
        raise BackupFailed("encrypted")
    return list(reader.frames(key if reader.encrypted else None))


def frames_of(packed: bytes) -> tuple[bytes, list[bytes]]:
    """The opening, and each frame with its length."""
    head = 16 + 1 + 4 + int.from_bytes(packed[17:21], "big") + 16
    frames, at = [], head
    while at < len(packed):
        length = 4 + int.from_bytes(packed[at : at + 4], "big")
        frames.append(packed[at : at + length])
        at += length
    return packed[:head], frames


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    given: bytes | None = request.param
    return given


def test_what_was_written_is_read(key: bytes | None) -> None:
    assert unpack(pack(key=key), key) == list(FRAMES)
    large = (b"m", os.urandom(BLOCK_BYTES), bytes(BLOCK_BYTES), b"")
    assert unpack(pack(large, key), key) == list(large)


def test_a_flip_of_any_byte_is_noticed(key: bytes | None) -> None:
    packed = pack(key=key)
    draw = random.Random(1)
    for at in range(len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= draw.randrange(1, 256)
        with pytest.raises(BackupFailed):
            unpack(bytes(damaged), key)


def test_a_file_that_was_cut_anywhere_is_noticed(key: bytes | None) -> None:
    packed = pack(key=key)
    for length in range(len(packed)):
        with pytest.raises(BackupFailed):
            unpack(packed[:length], key)


def _swapped(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[2], frames[1], frames[3]]


@pytest.mark.parametrize(
    "change",
    [
        _swapped,
        lambda frames: [*frames, frames[1]],
        lambda frames: [frames[0], *frames[2:]],
        lambda frames: [*frames[:2], *frames[1:]],
        lambda frames: frames[:-1],
        lambda frames: [*frames, b"\0"],
    ],
    ids=["swapped", "appended", "left out", "repeated", "without the last", "with a byte more"],
)
def test_frames_have_their_place(key: bytes | None, change: Callable[[list[bytes]], list[bytes]]) -> None:
    opening, frames = frames_of(pack(key=key))
    with pytest.raises(BackupFailed, match="damaged"):
        unpack(opening + b"".join(change(frames)), key)


def test_frames_of_another_backup_do_not_fit() -> None:
    opening, frames = frames_of(pack(key=KEY))
    _, others = frames_of(pack(key=KEY, nonce=b"another"))
    with pytest.raises(BackupFailed, match="damaged"):
        unpack(opening + b"".join([*frames[:2], *others[2:]]), KEY)


def test_an_encrypted_file_shows_nothing_of_its_contents() -> None:
    secret = b"a secret of the database" * 50
    assert b"a secret" not in pack((b"m", secret), KEY)
    with pytest.raises(BackupFailed):
        unpack(pack((b"m", secret), KEY), bytes(32))


def test_a_frame_cannot_unpack_to_more_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackupFailed, match="too large"):
        unpack(pack((b"m", bytes(BLOCK_BYTES + 1))))


def test_a_newer_format_says_so() -> None:
    packed = bytearray(pack())
    packed[16] = 9
    with pytest.raises(BackupFailed, match="format 9"):
        unpack(bytes(packed))


# --- keys --------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_key_file_holds_a_key_or_a_passphrase(tmp_path: Path) -> None:
    key = read_key_file(write(tmp_path / "k", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"))
    assert key == BackupKey(KEY, "hkdf-sha256")
    assert read_key_file(write(tmp_path / "p", "correct horse battery\n")).method == "scrypt"
    with pytest.raises(BackupFailed, match="holds no key"):
        read_key_file(write(tmp_path / "s", "short"))
    with pytest.raises(BackupFailed, match="cannot read the key file"):
        read_key_file(tmp_path / "nowhere")


@pytest.mark.parametrize("key", [BackupKey(KEY, "hkdf-sha256"), BackupKey(b"a passphrase of some", "scrypt")])
def test_every_backup_has_a_key_of_its_own_and_a_wrong_one_is_told_from_damage(key: BackupKey) -> None:
    first, second = make_file_key(key), make_file_key(key)
    assert first.key != second.key
    assert find_file_key(key, first.method, first.salt, first.check) == first.key
    other = BackupKey(key.secret[::-1], key.method)
    with pytest.raises(BackupFailed, match="another key"):
        find_file_key(other, first.method, first.salt, first.check)
    with pytest.raises(BackupFailed, match="is encrypted"):
        find_file_key(None, first.method, first.salt, first.check)
    with pytest.raises(BackupFailed, match=r"something else|another key"):
        find_file_key(BackupKey(KEY, "hkdf-sha256"), "scrypt", first.salt, first.check)
