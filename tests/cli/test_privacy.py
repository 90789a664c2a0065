"""What is kept is printed and checked, exported and erased, by the commands a person would use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from postbackd.cli.options import now_ms
from postbackd.core.click_id import first_stamp_at
from postbackd.core.kept import FOR_EVER, KEPT
from tests.cli.conftest import Run

MARK = "Marker-of-a-person"


def test_the_table_names_each_column_its_form_and_how_long(run: Run) -> None:
    said = run("privacy").out
    assert "ip_prefix" in said
    assert "truncated to a network" in said
    assert "90 days" in said
    assert "browser settings" in said
    document = run("privacy", "--json", "--keep-conversions-days", "0").json
    kept = {(row["table"], row["column"]): row for row in document["kept"]}
    assert len(kept) == len(KEPT)
    assert kept["conversions", "type"]["days"] is None
    assert kept["postbacks", "value"]["days"] == 30
    assert document["without_people"].keys() == FOR_EVER.keys()
    assert "No cookie is set" in run("privacy", "--policy").out


def test_a_retention_that_would_count_twice_is_refused(run: Run) -> None:
    done = run("purge", "--keep-clicks-days", "90", "--keep-conversions-days", "30", code=2)
    assert "counted again" in done.err


STAMP = first_stamp_at(1_780_000_000_000)


def change(data: Path, sql: str, *values: Any) -> None:
    """Past all rules."""
    db = apsw.Connection(str(data / "postbackd.db"))
    db.execute(sql, values)
    db.close()


@pytest.fixture
def held(filled: Run, data: Path) -> Run:
    """Two clicks, each with a conversion and its log row; the first has an own id."""
    for number in range(2):
        click, request = STAMP + number, STAMP + (60_000 << 22) + number
        change(
            data,
            "INSERT INTO clicks (click_id, campaign, offer, kind, ip_prefix, sub1) "
            "VALUES (?, 1, 1, 0, '203.0.113.0/24', ?)",
            click, f"{MARK}-s{number}",
        )  # fmt: skip
        change(
            data,
            "INSERT INTO conversions VALUES (?, 'sale', ?, ?, 1, 1, 1, 2, 5000000, 'USD', 1, 0, NULL)",
            click, f"{MARK}-t{number}", request,
        )  # fmt: skip
        change(
            data,
            "INSERT INTO postbacks (request_id, network, channel, verdict, reason, click_id, campaign, conversion_id, "
            "type, value, transaction_id, bytes, parameters) VALUES (?, 1, 1, 1, 0, ?, 1, ?, 'sale', '5', ?, 50, 3)",
            request, click, request, f"{MARK}-t{number}",
        )  # fmt: skip
    change(data, "UPDATE clicks SET own_id = ? WHERE click_id = ?", f"{MARK}-own", STAMP)
    change(data, "INSERT INTO own_ids VALUES (?, ?)", f"{MARK}-own", STAMP)
    return filled


def whole(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())


def test_all_that_is_held_about_a_click_is_exported(held: Run) -> None:
    document = held("privacy", "export", "--click-id", f"{MARK}-own").json
    assert document["held"]["clicks"][0]["sub1"] == f"{MARK}-s0"
    assert document["held"]["conversions"][0]["transaction_id"] == f"{MARK}-t0"
    assert document["purposes"]["clicks"]["sub1"]
    assert document["erased"] is False


def test_a_click_is_erased_with_a_certificate_and_nothing_is_left_in_any_file(held: Run, data: Path) -> None:
    before = held("report", "--json").json
    assert "would erase 1 clicks" in held("erase", "--click-id", f"{MARK}-own").out
    assert f"{MARK}-t0".encode() in whole(data)
    done = held("erase", "--click-id", f"{MARK}-own", "--yes", "--json").json
    assert done["done"] is True
    assert done["erased"] == {"clicks": 1, "conversions": 1, "own_ids": 1, "postbacks": 1}
    for text in (f"{MARK}-t0", f"{MARK}-s0", f"{MARK}-own"):
        assert text.encode() not in whole(data)
    assert f"{MARK}-t1".encode() in whole(data)
    (certificate,) = held("erase", "list", "--json").json
    assert certificate["completed"]
    assert MARK not in str(certificate)
    assert held("report", "--json").json == before
    assert "erased" in held("why", f"{MARK}-t1", "--json").out
    held("erase", "--transaction-id", f"{MARK}-t0", "--yes", code=1)
    assert held("erase", "--transaction-id", f"{MARK}-t1", "--network", "TUNE", "--yes", "--json").json[
        "done"
    ]
    assert MARK.encode() not in whole(data)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--yes",), "name one of"),
        (("--click-id", "a", "--identity", "b"), "name one of"),
        (("--click-id", "a", "--network", "b"), "--network goes with"),
    ],
)
def test_what_cannot_be_understood_is_said(filled: Run, words: tuple[str, ...], said: str) -> None:
    assert said in filled("erase", *words, code=2).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--click-id", "nobody", "--yes"), "nothing is held"),
        (("--transaction-id", "x", "--network", "nobody"), "there is no network"),
    ],
)
def test_what_cannot_be_found_is_said(filled: Run, words: tuple[str, ...], said: str) -> None:
    assert said in filled("erase", *words, code=1).err


def test_personal_data_that_is_stored_is_found_and_never_shown(held: Run, data: Path) -> None:
    assert "looked at" in held("privacy", "check").out
    change(data, "UPDATE clicks SET sub2 = 'jane.doe@mail.example' WHERE click_id = ?", STAMP)
    change(
        data, "UPDATE clicks SET source_click_id = '5500005555555559' WHERE click_id = ?", STAMP
    )  # may be an id
    change(data, "UPDATE clicks SET ip_prefix = '203.0.113.9' WHERE click_id = ?", STAMP + 1)
    change(data, "UPDATE conversions SET transaction_id = '4111111111111111' WHERE click_id = ?", STAMP)
    done = held("privacy", "check", "--json", code=1)
    found = {(one["table"], one["column"], one["kind"]) for one in done.json["found"]}
    assert found == {
        ("clicks", "sub2", "e-mail"), ("clicks", "ip_prefix", "full IP address"),
        ("conversions", "transaction_id", "card"),
    }  # fmt: skip
    for text in ("jane", "203.0.113.9", "4111111111111111"):
        assert text not in done.out + done.err


@pytest.mark.parametrize("in_clear", [False, True])
def test_an_address_and_its_keyed_hash_find_its_clicks(held: Run, data: Path, in_clear: bool) -> None:
    hashed = held("privacy", "hash", "Jane.Doe@mail.example").out.strip()
    assert hashed.startswith("hashed:")
    change(data, "UPDATE clicks SET sub3 = ? WHERE click_id = ?", hashed, STAMP)
    asked = "jane.doe@mail.example" if in_clear else hashed
    assert held("erase", "--identity", asked, "--yes", "--json").json["erased"]["clicks"] == 1
    held("privacy", "hash", "ordinary", code=1)


def test_a_first_purge_is_held_and_goes_on_when_confirmed(held: Run) -> None:
    options = ("purge", "--keep-clicks-days", "1", "--keep-conversions-days", "0")
    planned = held(*options, "--json").json
    assert planned["deleted"] is False
    rows = planned["rows"]
    assert rows > 0
    assert f"--yes-delete {rows}" in held(*options, "--yes", code=1).err
    assert "more than" in held(*options, "--yes-delete", str(rows - 1), code=1).err
    assert held(*options, "--yes-delete", str(rows), "--json").json["deleted"] is True
    assert held(*options, "--json").json["rows"] == 0


def test_the_doctor_says_what_is_held_and_what_did_not_end(held: Run, data: Path) -> None:
    assert "nothing was ever purged" in held("doctor").out
    change(data, "INSERT INTO settings VALUES ('purge_clock_ms', 1780000000000)")
    assert "after the last purge: it jumped" in held("doctor", code=1).out
    change(data, "DELETE FROM clicks")
    change(data, "DELETE FROM postbacks")
    change(data, "INSERT INTO finds VALUES (?, 1, 'transaction_id', 'e-mail', 7)", now_ms() // 60_000)
    assert "7 e-mail in transaction_id of TUNE" in held("doctor").out
    change(data, "INSERT INTO erasures VALUES (1, 5, 'click_id', 'r', '{}', NULL)")
    assert "1 not complete" in held("doctor", code=1).out
