"""Secrets at rest."""

from __future__ import annotations

import base64
import re
from importlib import resources
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from postbackd.sealing import (
    KEY_NAME,
    KeptSealer,
    Sealer,
    SealError,
    find_sealer,
    make_key,
    read_key_file,
    replace_key_file,
)
from postbackd.store.sealed import places_of

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


def test_a_value_is_opened_for_its_purpose_alone(tmp_path: Path) -> None:
    sealer = find_sealer(KEY, tmp_path, create=False)
    for purpose in ("target", "endpoint key", "signing key"):
        sealed = sealer.seal("secret", purpose)
        assert sealer.open(sealed, purpose) == "secret"
        for other in {"target", "endpoint key", "signing key"} - {purpose}:
            with pytest.raises(SealError):
                sealer.open(sealed, other)


def test_equal_endpoint_keys_look_equal_and_nothing_else_does(tmp_path: Path) -> None:
    sealer = find_sealer(KEY, tmp_path, create=False)
    assert (
        sealer.seal("k", "endpoint key")
        == sealer.seal("k", "endpoint key")
        != sealer.seal("l", "endpoint key")
    )
    assert sealer.seal("k", "signing key") != sealer.seal("k", "signing key")


def test_what_an_older_version_sealed_is_opened_and_sealed_anew(tmp_path: Path) -> None:
    key, nonce = bytes(range(32)), bytes(12)
    data = nonce + AESGCM(key).encrypt(nonce, b"old", b"postbackd: a secret of a target")
    old = "1." + base64.urlsafe_b64encode(data).decode()
    sealer = find_sealer(KEY, tmp_path, create=False)
    assert sealer.open(old) == "old"
    assert not sealer.is_newest(old)
    with pytest.raises(SealError, match="was not sealed as such"):
        sealer.open(old, "signing key")
    kept = KeptSealer(KEY, tmp_path, seals_new=True, seals_old=True)
    assert sealer.is_newest(kept.reseal(old, "target"))


def test_the_first_of_many_keys_seals_and_all_of_them_open(tmp_path: Path) -> None:
    other = base64.b64encode(bytes(32)).decode()
    old = find_sealer(KEY, tmp_path, create=False).seal("secret")
    both = find_sealer(f"{other}, {KEY}", tmp_path, create=False)
    assert both.open(old) == "secret"
    assert not both.is_newest(old)
    assert find_sealer(other, tmp_path, create=False).open(both.seal("new")) == "new"
    with pytest.raises(SealError, match="holds no key"):
        find_sealer(f"{KEY},", tmp_path, create=False)


def test_a_process_that_runs_finds_the_key_that_was_changed_meanwhile(tmp_path: Path) -> None:
    kept = KeptSealer(None, tmp_path, seals_new=True, seals_old=True)
    with pytest.raises(SealError, match="there is no"):
        kept.seal("x")
    assert not (tmp_path / KEY_NAME).exists()
    kept.begin()
    old = kept.seal("old")
    new = make_key()
    replace_key_file(tmp_path / KEY_NAME, [new, *read_key_file(tmp_path / KEY_NAME, create=False)])
    assert kept.open(Sealer(new).seal("new")) == "new"
    assert kept.open(old) == "old"
    replace_key_file(tmp_path / KEY_NAME, [new])
    assert kept.open(kept.seal("newer")) == "newer"
    with pytest.raises(SealError, match="another key"):
        kept.open(old)


NO_SECRETS = {("users", "password"), ("tokens", "name"), ("tokens", "hash"), ("audit", "kind")}
"""Columns that speak of a secret and hold a hash of it (``admin.passwords``, ``core.people``), or a word."""


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_every_column_that_holds_something_sealed_or_secret_is_in_the_list_of_places(store: str) -> None:
    folder = resources.files("postbackd.store") / "migrations" / store
    found, table = set(), ""
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name):
        for line in file.read_text("utf-8").splitlines():
            if match := re.match(r"(?:CREATE|ALTER) TABLE (?:IF (?:NOT )?EXISTS )?(\w+)", line):
                table = match[1]
            column = re.match(r"\s+(?:ADD COLUMN )?(\w+) (?:TEXT|BLOB|ANY|text|bytea)\b(.*)", line)
            if column and re.search(r"seal|secret|token|password", f"{column[1]} {column[2]}".lower()):
                found.add((table, column[1]))
    assert found >= {("targets", "secrets"), ("signing_keys", "secret")}
    for table, column_name in found - NO_SECRETS:
        assert column_name in places_of(table)
