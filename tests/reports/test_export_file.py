"""Whatever bytes are called an export: they are read, or one error says what to do, and no row is lost between."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postbackd.core.click_id import KeyRing
from postbackd.core.export_rows import Problem, Row, RowReader
from postbackd.core.exports import ExportError, Given
from postbackd.core.model import Network, SigningKey
from postbackd.core.privacy import Masker
from postbackd.core.terms import NetworkRules
from postbackd.reports.export_file import read_records, survey

KEYS = KeyRing([SigningKey(id=1, secret=b"s" * 32, active_from_ms=0)])
NOW_MS = 1_790_000_000_000


def read(path: Path, content: bytes) -> list[Row]:
    path.write_bytes(content)
    found = survey(path, Given(), {}, KEYS)
    layout = found.layout
    reader = RowReader(
        layout, Given(), NetworkRules(Network(id=1, name="n", key="k")), KEYS, Masker(b"k"), NOW_MS
    )
    records = list(read_records(path, layout.encoding, layout.delimiter))[layout.header.record + 1 :]
    assert len(records) == found.records
    return [
        Row(line, Problem.MALFORMED) if cells is None else reader.read(line, cells) for line, cells in records
    ]


TABLE = "Bestellnummer;Käufer;Provision €;Status;Datum\r\nA1;Jürgen;1.234,50;bestätigt;01.11.2026 10:00\r\n\r\nA2;;7,5;paid;13.11.2026\r\n"  # noqa: E501


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_same_rows_are_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    first, second = read(tmp_path / "e.csv", TABLE.encode(encoding))
    assert (first.line, first.transaction_id, first.value_micros, first.currency) == (
        2,
        "A1",
        1_234_500_000,
        "EUR",
    )
    assert (first.status, first.status_text) == (None, "bestätigt")
    assert (second.line, second.transaction_id, second.value_micros, second.status) == (4, "A2", 7_500_000, 2)


def test_lines_that_are_wrong_are_told_by_number_and_leave_their_neighbours_alone(tmp_path: Path) -> None:
    content = (
        b'order id,payout,status,note\nA,1.00,ok,"two\nlines"\nB,1,50,ok,x\nC,"1.00"x,ok,\nD,-5,ok,\nE,-5,refunded,\n'
        b"F,5 XXQ,ok,\n,5,ok,\nG,1.00\n" + b"H" * 200 + b",1.00,ok,\n"
    )
    rows = {
        row.line: Problem(row.problem).word if row.problem else ""
        for row in read(tmp_path / "e.csv", content)
    }
    assert rows == {
        2: "", 4: "too_many_cells", 5: "malformed", 6: "value_negative", 7: "", 8: "value_unreadable", 9: "no_id",
        10: "", 11: "field_too_long",
    }  # fmt: skip


def test_a_file_that_is_made_to_fill_the_memory_is_refused_before_it_does(tmp_path: Path) -> None:
    """Each of these came to gigabytes: many records of a megabyte, and one record of any number of lines."""
    wide = ",".join(str(number % 90 + 10) for number in range(200_000)).encode() + b"\n"
    many_lines = b'id,payout\n"' + b'a\n","' * 1_000_000
    tracemalloc.start()
    try:
        for content, words in ((wide * 5, "more than 1000 columns"), (many_lines, "never closed")):
            tracemalloc.reset_peak()
            (tmp_path / "e.csv").write_bytes(content)
            with pytest.raises(ExportError, match=words):
                survey(tmp_path / "e.csv", Given(), {}, KEYS)
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


_CELLS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["Order ID", "payout", "date", "A1", "1,50", "1.234,5", "2026-11-01", "03/04/2026", '"', "\n", "€"]
    ),
)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(st.lists(_CELLS, min_size=1, max_size=5), max_size=8).map(
            lambda rows: "\n".join(";".join(row) for row in [["Order ID", "payout", "date"], *rows]).encode(
                "utf-8", "replace"
            )
        ),
    )
)
def test_no_file_ends_in_anything_but_rows_or_the_one_error(tmp_path: Path, content: bytes) -> None:
    try:
        rows = read(tmp_path / "fuzz.csv", content)
    except ExportError:
        return
    assert len({row.line for row in rows}) == len(rows)
