"""An erasure does with every column what the table of what is kept says of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

import msgspec
import pytest

from postbackd.core.kept import KEPT, After
from postbackd.core.model import Click
from postbackd.store import erasure
from postbackd.upkeep.rollups import RollupKeeper
from tests.store.contract import PIXEL, World
from tests.store.test_contract_erasure import deliver, erase, with_rule

EMPTY = (None, "", "erased", "{}", 0)
"""What a column holds that says nothing any more."""

ON_SERVERS = frozenset({("outbox", "bucket")})
"""Columns that the embedded store has not."""

ALWAYS_EMPTY = frozenset({("outbox", column) for column in ("status_from", "value_micros_from")})
"""Columns that need not hold anything: an event of a new conversion comes from nothing."""


def columns(world: World, table: str) -> dict[str, list[Any]]:
    """Column -> its values, in all rows of a table."""

    async def read() -> list[Mapping[str, Any]]:
        store: Any = world.store
        if world.kind.name != "sqlite":
            return [dict(row) for row in await (await store.connection()).fetch(f"SELECT * FROM {table}")]
        names = [
            row[0] for row in store.connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        ]
        found = store.connection.execute(f"SELECT * FROM {table}")
        return [dict(zip(names, row, strict=True)) for row in found]

    found: dict[str, list[Any]] = {}
    for row in world.run(read()):
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return found


def filled(world: World) -> Click:
    """A click of which every table holds a row, and every column that an erasure has to empty a value."""
    with_rule(world)
    click = world.click(
        "own-id-of-mine", source_click_id="from-the-source", country="DE", ip_prefix="203.0.113.0/24",
        subs=tuple(f"sub-{number}" for number in range(1, 11)),
    )  # fmt: skip
    world.send(click, "txid=T-1&value=5&currency=EUR&status=Zahlung%20offen&time=1749999990")
    world.send(click, "txid=T-1&value=5&currency=EUR&status=genehmigt&time=1749999991", network="update")
    world.send(click, "txid=T-1&value=5&status=approved&time=1749999992")
    found = world.make(click, "txid=T-1&value=abc&status=nonsense&time=1749999993&currency=EUR")
    odd = msgspec.structs.replace(
        found, click=msgspec.structs.replace(found.click, found_in="sub5"), sender="198.51.100.0/24", observed=1,
        click_text="as it was written",
    )  # fmt: skip
    world.settle(odd)
    world.send(click, "value=1", channel=PIXEL)
    deliver(world)  # one turn takes down what is owed of a conversion that changed meanwhile,
    deliver(world)  # the next one sends it
    traced = world.make(click, "txid=T-2&value=7&status=pending")
    world.settle(msgspec.structs.replace(traced, trace="0af7651916cd43dd8448eb211c80319c-01"))
    world.send(click, "txid=T-2&value=7&status=approved")
    world.run(RollupKeeper(world.store, UTC, lambda: world.now_ms).catch_up())
    return click


def test_every_column_is_emptied_hashed_or_left_as_the_table_of_what_is_kept_says(world: World) -> None:
    click = filled(world)
    tables = sorted({kept.table for kept in KEPT})
    before = {table: columns(world, table) for table in tables}
    erase(world, click)
    after = {table: columns(world, table) for table in tables}
    wrong, unseen = [], []
    for kept in KEPT:
        was = {value for value in before[kept.table].get(kept.column, []) if value not in EMPTY}
        now = {value for value in after[kept.table].get(kept.column, []) if value not in EMPTY}
        where = (kept.table, kept.column)
        if kept.erased is After.STAYS:
            rows_left = bool(after[kept.table].get(kept.column))
            wrong += [where] if was and rows_left and not now else []
            continue
        unseen += [where] if not was else []
        wrong += [where] if was & now or (kept.erased is After.GONE and now) else []
        if kept.erased is After.HASHED:
            hashed = [str(value).startswith(("erased:", "hashed:")) for value in now]
            wrong += [where] if was and not (hashed and all(hashed)) else []
    assert wrong == []
    assert set(unseen) - ALWAYS_EMPTY - ON_SERVERS <= EMPTIED_ELSEWHERE


EMPTIED_ELSEWHERE = {
    ("waiting", "click_ref"), ("waiting", "request_id"), ("waiting", "bucket"),  # of clicks that never came
    ("deliveries", "holder"), ("deliveries", "reason"), ("attempts", "error"),  # of deliveries that failed
}  # fmt: skip
"""Columns that this click does not fill: they have tests of their own in ``test_contract_erasure``."""


def test_a_statement_that_forgets_a_column_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "ERASE_CLICK", erasure.ERASE_CLICK.replace("country = NULL, ", ""))
    with pytest.raises(AssertionError, match="country"):
        test_every_column_is_emptied_hashed_or_left_as_the_table_of_what_is_kept_says(world)
