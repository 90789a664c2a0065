"""``postbackd reconcile`` as a person uses it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def export(filled: Run, tmp_path: Path) -> Path:
    path = tmp_path / "export.csv"
    path.write_bytes(
        "Bestellnummer;Provision;Datum\r\nA1;1.234,50 €;01.11.2026\r\nA1;7,00;02.11.2026\r\n".encode()
    )
    return path


def test_the_summary_shows_how_the_file_was_read_and_where_its_rows_are(
    filled: Run, export: Path, data: Path
) -> None:
    said = filled("reconcile", str(export), "--network", "TUNE").out
    assert "transaction_id = 'Bestellnummer'" in said
    assert "delimiter ;, decimal sign ,, dates dmy" in said
    assert "value_unreadable" in said  # euros, and the network's currency is the dollar
    document = filled("reconcile", str(export), "--network", "TUNE", "--column", "value=", "--json").json
    assert document["rows"] == 2
    assert {b["bucket"]: b["rows"] for b in document["buckets"] if b["rows"]} == {
        "missing_here": 1,
        "duplicate": 1,
    }
    assert list((data / "reconcile").iterdir()) == []


def test_a_bucket_is_written_and_an_import_says_what_it_would_do(
    filled: Run, export: Path, tmp_path: Path
) -> None:
    target = tmp_path / "missing.csv"
    ran = filled("reconcile", str(export), "--network", "TUNE", "--column", "value=", "--bucket", "missing_here",
                 "--output", str(target), "--import")  # fmt: skip
    assert "left out: 1 without a click id" in ran.out
    assert "run it again with --yes" in ran.out
    header, row = csv.reader(target.read_text("utf-8").splitlines())
    assert dict(zip(header, row, strict=True))["transaction_id"] == "A1"


def test_wrong_calls_say_what_to_write(filled: Run, export: Path) -> None:
    for arguments, words in (
        (("--column", "colour=x"), "fields are transaction_id"),
        (("--time-zone", "moon"), "+02:00"),
        (("--yes",), "goes with --import"),
        (("--output", "x"), "goes with --bucket"),
        (("--delimiter", "ab"), "one character"),
        (("--type", "="), "THEIRS=OURS"),
    ):
        assert words in filled("reconcile", str(export), "--network", "TUNE", *arguments, code=2).err
    assert "there is no network 'X'" in filled("reconcile", str(export), "--network", "X", code=1).err
    export.write_bytes(b"PK\x03\x04")
    assert "save or unpack it as CSV" in filled("reconcile", str(export), "--network", "TUNE", code=1).err
