"""Rows of a file: bad ones are named by their line and spoil no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from postbackd.exchanges.rows import Row, RowsError, read_rows


def rows(tmp_path: Path, content: str | bytes, **options: object) -> list[Row]:
    path = tmp_path / "rows"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(path, **options))  # type: ignore[arg-type]


def faults(found: list[Row]) -> dict[int, str]:
    return {row.line: row.error for row in found if row.error}


def test_a_csv_file_is_read_by_its_header_whatever_its_separator(tmp_path: Path) -> None:
    for separator in (",", ";", "\t"):
        text = (
            separator.join(("CID", "payout", "txid")) + "\r\n" + separator.join(("a", '"1,5"', "T")) + "\r\n"
        )
        (row,) = rows(tmp_path, "\ufeff" + text)
        assert row.postback.fields() == {"click_id": "a", "value": "1,5", "transaction_id": "T"}


def test_each_bad_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    lines = [
        b"click_id,value",
        b"a,1",
        b'"b,2',
        b"c",
        b"",
        b",4",
        b"d\xff,5",
        b"e,6",
        b"f" * 300 + b",7",
        b"g\x01,8",
    ]
    found = rows(tmp_path, b"\n".join(lines))
    assert [row.line for row in found if not row.error] == [2, 8]
    assert faults(found) == {
        3: "a quote is not closed in its line",
        4: "1 cells below 2 names",
        6: "it has no click id",
        7: "the line is not UTF-8",
        9: "the click_id is longer than 255 characters",
        10: "the click_id holds a control character",
    }


def test_ndjson_keeps_numbers_as_they_are_written(tmp_path: Path) -> None:
    found = rows(
        tmp_path, '{"click_id":"a","value":12.50}\nnonsense\n[1]\n{"click_id":"b","value":{"x":1}}\n'
    )
    assert found[0].postback.value == "12.50"
    assert sorted(faults(found)) == [2, 3, 4]


def test_an_unknown_column_is_refused_with_the_nearest_name_unless_it_is_said_what_to_do(
    tmp_path: Path,
) -> None:
    text = "click_id,vallue\na,1\n"
    with pytest.raises(RowsError, match="did you mean 'value'"):
        rows(tmp_path, text)
    assert rows(tmp_path, text, others="ignore")[0].postback.extra == {}
    assert rows(tmp_path, text, others="send")[0].postback.extra == {"vallue": "1"}


@pytest.mark.parametrize("text", ["", "\n", "a,b\n1,2\n", "click_id,click_id\n1,2\n"])
def test_a_file_whose_form_is_not_clear_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RowsError):
        rows(tmp_path, text)


def test_a_row_keeps_its_key_when_the_file_grows_and_equal_rows_have_keys_of_their_own(
    tmp_path: Path,
) -> None:
    before = rows(tmp_path, "click_id,value\na,1\na,1\n")
    after = rows(tmp_path, "click_id,value\nnew,1\na,1\na,1\n")
    assert [row.key for row in before] == [row.key for row in after][1:]
    assert len({row.key for row in after}) == 3
