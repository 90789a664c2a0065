"""What is left of erased rows in the file of the embedded store, byte by byte."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

import apsw
import pytest

from postbackd.store import sqlite_scrub
from postbackd.store.base import StoreRefused
from postbackd.store.sqlite_file import connect
from postbackd.store.sqlite_pages import find_tails

PEOPLE = [f"Person{number:02d}." for number in range(8)]
MARK = PEOPLE[0][:-1].encode()


def make_file(path: Path) -> apsw.Connection:
    """Rows of some people, from short ones to such that fill pages of their own; many deleted or changed again."""
    db = connect(path, 5000, create=True)
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "OFF")
    db.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID")
    db.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, who INTEGER, text TEXT) STRICT; CREATE INDEX i ON t (text)"
    )
    db.execute(
        "CREATE TABLE k (text TEXT, id INTEGER, who INTEGER, PRIMARY KEY (text, id)) STRICT, WITHOUT ROWID"
    )
    draw = random.Random(2)
    live: list[int] = []
    with db:
        for _ in range(1500):
            who, act = draw.randrange(8), draw.random()
            text = PEOPLE[who] * draw.choice((draw.randrange(1, 20), draw.randrange(1, 1200)))
            if act < 0.5 or not live:
                live.append(draw.randrange(1 << 40))
                for table in ("t", "k"):
                    db.execute(f"INSERT INTO {table} (id, who, text) VALUES (?, ?, ?)", (live[-1], who, text))
                continue
            id_ = live.pop(draw.randrange(len(live)))
            for table in ("t", "k"):
                if act < 0.8:
                    db.execute(f"DELETE FROM {table} WHERE id = ?", (id_,))
                else:
                    db.execute(f"UPDATE {table} SET who = ?, text = ? WHERE id = ?", (who, text, id_))
    return db


def erase_rows(db: apsw.Connection) -> None:
    db.pragma("secure_delete", 1)
    with db:
        db.execute("UPDATE t SET text = NULL WHERE who = 0")
        db.execute("DELETE FROM k WHERE who = 0")
    db.pragma("secure_delete", 0)


def rows(db: apsw.Connection) -> list[list[tuple[Any, ...]]]:
    return [db.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in ("t", "k")]


def pages_with_mark(path: Path) -> dict[int, int]:
    """First byte of a page -> how many such pages hold the mark; 0 is an overflow page."""
    data = path.read_bytes()
    found: dict[int, int] = {}
    for number in {hit.start() // 4096 for hit in re.finditer(MARK, data)}:
        found[data[number * 4096]] = found.get(data[number * 4096], 0) + 1
    return found


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    made = make_file(tmp_path / "x.db")
    yield made
    made.close()


def test_no_part_of_what_was_erased_is_left_behind_long_rows_or_anywhere(
    db: apsw.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "x.db"
    erase_rows(db)
    before = rows(db)
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    left = pages_with_mark(path)
    assert left[0]  # the control: overwriting rows alone leaves some at the end of overflow pages
    assert sum(left.values()) > left[0]  # and elsewhere
    assert sqlite_scrub.scrub(path, db) == 0
    assert pages_with_mark(path) == {}
    assert (tmp_path / "x.db-wal").stat().st_size == 0
    assert rows(db) == before
    assert db.pragma("integrity_check") == "ok"


def test_what_others_write_meanwhile_is_whole_and_nothing_erased_is_left(
    db: apsw.Connection, tmp_path: Path
) -> None:
    path, ended = tmp_path / "x.db", Event()

    def write() -> None:
        other = connect(path, 5000, create=False)
        number = 0
        while not ended.is_set():
            number += 1
            with other:
                other.execute(
                    "INSERT INTO t (who, text) VALUES (9, ?)", (f"Other{number}." * (number % 900),)
                )
                other.execute("DELETE FROM t WHERE who = 9 AND id % 3 = 0")
        other.close()

    erase_rows(db)
    before = [row for row in rows(db)[0] if row[1] != 9]
    writer = Thread(target=write)
    writer.start()
    try:
        assert sqlite_scrub.scrub(path, db) == 0
    finally:
        ended.set()
        writer.join()
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert pages_with_mark(path) == {}
    assert [row for row in rows(db)[0] if row[1] != 9] == before
    assert db.pragma("integrity_check") == "ok"


def test_a_reader_that_does_not_end_is_said_and_leaves_the_lock_to_those_who_write(
    db: apsw.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_scrub, "_PATIENCE_S", 0.6)
    path = tmp_path / "x.db"
    reader, writer = connect(path, 0, create=False), connect(path, 5000, create=False)
    reader.execute("BEGIN").execute("SELECT count(*) FROM t").fetchall()
    erase_rows(db)
    written = 0
    ended = Event()

    def write() -> None:
        nonlocal written
        while not ended.wait(0.01):
            writer.execute("INSERT INTO t (who, text) VALUES (9, 'x')")
            written += 1

    thread = Thread(target=write)
    thread.start()
    try:
        with pytest.raises(StoreRefused, match="run the same command again when it has ended"):
            sqlite_scrub.scrub(path, db)
    finally:
        ended.set()
        thread.join()
        reader.close()
        writer.close()
    assert written > 5  # of one that keeps the lock while it waits, one
    assert sqlite_scrub.scrub(path, db) == 0
    assert pages_with_mark(path) == {}


def test_a_page_that_is_freed_after_it_was_looked_at_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old rows still name pages, and others may have taken those by now."""
    path = tmp_path / "y.db"
    db = connect(path, 5000, create=True)
    db.pragma("journal_mode", "wal")
    db.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID")
    db.execute(
        "CREATE TABLE old (id INTEGER PRIMARY KEY, text); CREATE TABLE new (id INTEGER PRIMARY KEY, text)"
    )
    with db:
        db.executemany("INSERT INTO new VALUES (?, ?)", ((number, "c" * 8672) for number in range(500)))
    db.execute("DELETE FROM new")
    with db:
        rows_ = ((number, "a" * (8200 + number * 7 % 400)) for number in range(400))
        db.executemany("INSERT INTO old VALUES (?, ?)", rows_)
    looked = find_tails

    def look_then_change(eraser: apsw.Connection) -> Mapping[int, int]:
        tails = looked(eraser)
        with db:
            db.execute("DELETE FROM old WHERE id < 350")
        with db:
            db.executemany("INSERT INTO new VALUES (?, ?)", ((number, "b" * 12_600) for number in range(20)))
        monkeypatch.setattr(sqlite_scrub, "find_tails", looked)
        return tails

    monkeypatch.setattr(sqlite_scrub, "find_tails", look_then_change)
    eraser = connect(path, 5000, create=False)
    assert sqlite_scrub.scrub(path, eraser) == 0
    assert db.execute("SELECT count(*) FROM new WHERE text = ?", ("b" * 12_600,)).get == 20
    assert db.pragma("integrity_check") == "ok"
    eraser.close()
    db.close()
