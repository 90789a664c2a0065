"""Secrets at rest."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from postbackd.sealing import KEY_NAME, SealError, find_sealer

KEY = base64.b64encode(bytes(range(32))).decode()


def test_a_sealed_secret_is_opened_with_its_key_and_looks_different_every_time(tmp_path: Path) -> None:
    sealer = find_sealer(KEY.replace("+", "-").replace("/", "_"), tmp_path, create=False)
    one, two = sealer.seal("pä$$word"), sealer.seal("pä$$word")
    assert one != two
    assert "word" not in one
    assert [sealer.open(one), sealer.open(two)] == ["pä$$word"] * 2


def test_the_key_beside_the_data_is_made_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(SealError, match=KEY_NAME):
        find_sealer(None, data, create=False)
    sealed = find_sealer(None, data, create=True).seal("s")
    assert (data / KEY_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in data.iterdir()] == [KEY_NAME]
    assert find_sealer(None, data, create=True).open(sealed) == "s"
    assert find_sealer(None, data, create=False).open(sealed) == "s"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-6] + "AAAAA=",
        lambda text: "9." + text[2:],
        lambda text: "1." + text[2:],
        lambda _: "2.x",
    ],
)
def test_what_was_changed_or_sealed_otherwise_is_refused(tmp_path: Path, change: object) -> None:
    sealer = find_sealer(None, tmp_path, create=True)
    assert callable(change)
    with pytest.raises(SealError, match="sealed"):
        sealer.open(change(sealer.seal("secret")))


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    sealed = find_sealer(None, tmp_path / "a", create=True).seal("secret")
    with pytest.raises(SealError, match="another key"):
        find_sealer(None, tmp_path / "b", create=True).open(sealed)


@pytest.mark.parametrize("key", ["", "short", "!" * 44])
def test_a_key_of_another_length_is_refused_with_how_to_make_one(tmp_path: Path, key: str) -> None:
    with pytest.raises(SealError, match="openssl rand"):
        find_sealer(key, tmp_path, create=False)
