"""T25: bits flip in copies of a database; ``verify`` finds every flip that changes what a money row says.

A flip counts when the money rows are read differently than before: another value, a row that is gone, an error.  The
copies are not in use; what flips is one bit, a few bits, or a byte, half of the time anywhere in the file and half of
the time in the pages of the money tables.  The control is what SQLite finds by itself.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from postbackd.store.sqlite_verify import SqliteReader, open_to_read
from postbackd.store.verifying import Damage, verify
from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.oracle import DATABASE
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import Server, make_catalog, run_cli

_MONEY = ("conversions", "conversion_history")
_COLUMNS = {
    "conversions": "click_id, type, transaction_id, conversion_id, network, campaign, offer, status, value_micros, "
    "currency, channels, status_time_ms",
    "conversion_history": "request_id, conversion_id, status_from, status_to, status_word, value_micros_from, "
    "value_micros_to",
}
_BY_COMMAND = 20
"""So many flips are also shown to the command itself; the others to what it calls."""


@trust_test("T25", "bit rot in copies of the database")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    flips = size.pick(1_500, 30_000, 200_000)
    whole = _fill(work_dir, seed, size.pick(2_000, 6_000, 6_000))
    draw, figures, missed, notes = random.Random(seed), Counter[str](), 0, list[str]()
    before, pages = _read(whole), _money_pages(whole)
    content = whole.read_bytes()
    copy = work_dir / "copy" / DATABASE
    copy.parent.mkdir()
    if _verify(whole):
        notes.append("the undamaged database has findings")
    for number in range(flips):
        damaged, what = _flip(content, pages, draw)
        copy.write_bytes(damaged)
        counts = _read(copy) != before
        findings = bool(_verify(copy))
        figures["flips"] += 1
        figures["in_money_rows"] += counts
        figures["found_elsewhere"] += findings and not counts
        if not counts:
            continue
        missed += not findings
        figures["missed_by_sqlite"] += _sqlite_is_content(copy)
        if not findings:
            notes.append(f"flip {number} ({what}) was not found")
        if figures["shown_to_the_command"] < _BY_COMMAND:
            figures["shown_to_the_command"] += 1
            if run_cli(copy.parent, "verify").returncode != 1:
                notes.append(f"flip {number} ({what}): the command found nothing")
    shutil.rmtree(copy.parent)
    judged = figures["in_money_rows"]
    share = figures["missed_by_sqlite"] / max(1, judged)
    control = Control(
        "SQLite's integrity_check alone",
        share > 0.1,
        {"missed": figures["missed_by_sqlite"], "share": round(share, 2)},
    )
    shown: dict[str, Any] = {"n": judged, "missed": missed, **figures}
    return Result(missed == 0 and judged > 0 and not notes, shown, (control,), "; ".join(notes[:5]))


def _fill(work_dir: Path, seed: int, requests: int) -> Path:
    """A database that a real server wrote under load, closed and whole."""
    data = work_dir / "data"
    catalog = make_catalog(data)
    with Ledger(work_dir / "ledger") as ledger, Server(data) as server:
        with Load(server, catalog, ledger, seed=seed, limit=requests) as load:
            load.wait_end(120)
        server.stop()
    return data / DATABASE


def _money_pages(database: Path) -> list[int]:
    db = apsw.Connection(str(database))
    try:
        names = [*_MONEY, "history_of_conversion"]
        marks = ", ".join("?" * len(names))
        return [page for (page,) in db.execute(f"SELECT pageno FROM dbstat WHERE name IN ({marks})", names)]
    finally:
        db.close()


def _flip(content: bytes, pages: Sequence[int], draw: random.Random) -> tuple[bytes, str]:
    page_bytes = int.from_bytes(content[16:18], "big")
    if draw.random() < 0.5:
        at = (draw.choice(pages) - 1) * page_bytes + draw.randrange(page_bytes)
    else:
        at = draw.randrange(len(content))
    damaged = bytearray(content)
    kind = draw.choice(("bit", "bit", "bits", "byte"))
    if kind == "bit":
        damaged[at] ^= 1 << draw.randrange(8)
    elif kind == "bits":
        for _ in range(draw.randint(2, 8)):
            damaged[min(at + draw.randrange(64), len(damaged) - 1)] ^= 1 << draw.randrange(8)
    else:
        damaged[at] ^= draw.randrange(1, 256)
    return bytes(damaged), f"{kind} at {at}"


def _read(database: Path) -> object:
    """What the money rows say, as any program would read them; an error is something else than they said."""
    try:
        db = apsw.Connection(
            f"file:{database}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
    except apsw.Error as error:
        return repr(error)
    try:
        return [sorted(db.execute(f"SELECT {_COLUMNS[table]} FROM {table}"), key=repr) for table in _MONEY]
    except (apsw.Error, UnicodeDecodeError, MemoryError) as error:
        return repr(error)
    finally:
        db.close(force=True)


def _verify(database: Path) -> list[Damage]:
    async def work() -> list[Damage]:
        reader = SqliteReader(open_to_read(database, alone=True))
        try:
            return [found async for found in verify(reader) if isinstance(found, Damage)]
        finally:
            await reader.close()

    try:
        return asyncio.run(work())
    except apsw.Error as error:  # the command ends with this line, and with exit code 1
        return [Damage(where="structure", detail=str(error))]


def _sqlite_is_content(database: Path) -> bool:
    try:
        db = apsw.Connection(
            f"file:{database}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            return [row[0] for row in db.execute("PRAGMA integrity_check")] == ["ok"]
        finally:
            db.close(force=True)
    except (apsw.Error, UnicodeDecodeError):
        return False
