"""What is in an embedded database, in numbers: to hold a copy of it against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw
from msgspec import Struct

from postbackd.store.sqlite_purge import LAST_STAMP

TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
"""Our tables."""

MONEY = """
SELECT currency, status,
       CAST(sum(value_micros / 1000000) AS BIGINT), CAST(sum(value_micros % 1000000) AS BIGINT), count(*)
FROM conversions GROUP BY currency, status ORDER BY currency, status
"""
"""Totals of what was counted, by currency and status: whole units, millionths, conversions."""


class MoneyTotal(Struct, frozen=True):
    """What was counted in one currency and has one status."""

    currency: str
    status: int
    value_micros: int
    conversions: int


class Contents(Struct, frozen=True):
    """What is in a database."""

    schema: int
    tables: Mapping[str, int]
    """Table -> rows."""
    money: Sequence[MoneyTotal]
    last_stamp: int


def read_contents(db: apsw.Connection) -> Contents:
    """Counts every row.  Raises ``apsw.Error``."""
    names = [str(name) for (name,) in db.execute(TABLES)]
    return Contents(
        db.pragma("user_version"),
        {name: db.execute(f"SELECT count(*) FROM {name}").get for name in names},
        [
            MoneyTotal(currency, status, units * 1_000_000 + micros, count)
            for currency, status, units, micros, count in db.execute(MONEY)
        ],
        int(db.execute(LAST_STAMP).get or 0),
    )


def differences(here: Contents, there: Contents) -> Sequence[str]:
    """What two of them do not agree on, in words."""
    found = [
        f"{name}: {here.tables.get(name)} rows, and there should be {there.tables.get(name)}"
        for name in sorted({*here.tables, *there.tables})
        if here.tables.get(name) != there.tables.get(name)
    ]
    if list(here.money) != list(there.money):
        found.append("the totals of money differ")
    if (here.schema, here.last_stamp) != (there.schema, there.last_stamp):
        found.append("the schema or the newest stamp differs")
    return found
