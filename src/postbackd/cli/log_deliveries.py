"""``postbackd log --deliveries``: each delivery with its last attempt, or every attempt as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from postbackd.cli.options import now_ms
from postbackd.cli.session import Session
from postbackd.core.deliveries import DeliveryState
from postbackd.operations.deliveries import Wanted, ask_for, open_describer
from postbackd.reports.deliveries import Row, describe_attempt, log_entry

POLL_S = 0.5
"""How often ``follow`` looks, at least."""

_BREATHING = 4
"""And it rests so many times as long as a look took: it may cost the database a fifth of a core, not all of one."""

OVERLAP_MS = 15_000
"""How far back each look goes: an attempt is stored after it has ended, some seconds after it began."""

_PAGE = 5_000
"""More than can have the same time: what one command cancels at once."""

Entry = dict[str, Any]


class DeliveryReader:
    """Asks for deliveries and their attempts, filtered as the user wants."""

    def __init__(self, session: Session, asked: dict[str, Any], click_id: int | None) -> None:
        """``asked``: parameters of the statement ``deliveries``; ``click_id``: the stamp of the only click."""
        self._store = session.store
        self._asked = asked
        self._click_id = click_id
        self._seen: dict[tuple[int, int, int], int] = {}
        """(number, attempt, state) of what was printed -> when it happened."""

    @classmethod
    async def open(cls, session: Session, wanted: Wanted, click_id: int | None) -> DeliveryReader:
        """Raises ``ClickException`` for a name that is not known."""
        return cls(session, await ask_for(session.store, wanted), click_id)

    async def newest(self, limit: int) -> list[Entry]:
        """The newest deliveries, each with its last attempt."""
        if self._click_id is None:
            rows = await self._store.query("deliveries", **self._asked, limit=limit)
        else:
            of_click = await self._store.query("deliveries_of_click", click_id=self._click_id)
            rows = [row for row in reversed(of_click) if self._fits(row)][:limit]
        describer = await open_describer(self._store, now_ms())
        entries = []
        for row in rows:
            attempts = (
                await self._store.query("last_attempt", number=row["number"]) if row["attempts"] else []
            )
            last = describe_attempt(attempts[0]) if attempts else None
            self._seen[row["number"], row["attempts"], row["state"]] = now_ms()
            entries.append(log_entry(describer.describe(row), last))
        return entries

    def _fits(self, row: Row) -> bool:
        since, until = self._asked["since"], self._asked["until"]
        named = (self._asked.get(name) in (None, row[name]) for name in ("state", "target", "rule"))
        return since <= row["request_id"] < until and all(named) and self._click_id in (None, row["click_id"])

    async def follow(self, before: int, show: Callable[[Entry], None]) -> None:
        """The newest deliveries, oldest first; then every attempt, and every end without one, until Ctrl-C."""
        await self.look(now_ms() - OVERLAP_MS)  # so that only later ones are new
        for entry in reversed(await self.newest(before)):
            show(entry)
        while True:
            began = monotonic()
            for entry in await self.look(now_ms() - OVERLAP_MS):
                show(entry)
            await asyncio.sleep(max(POLL_S, _BREATHING * (monotonic() - began)))

    async def look(self, from_ms: int) -> list[Entry]:
        """What has happened since and was not returned before, in order."""
        describer = await open_describer(self._store, now_ms())
        found: list[tuple[int, Entry]] = []
        for attempt in await self._all_since("attempts_from", from_ms, "at_ms"):
            row = await self._row_of_new(attempt)
            if row is not None and self._fits(row):
                entry = log_entry(describer.describe(row), describe_attempt(attempt))
                found.append((attempt["at_ms"], entry))
        for row in await self._all_since("deliveries_given_up", from_ms, "settled_ms"):
            key = row["number"], row["attempts"], row["state"]
            is_new = key not in self._seen
            self._seen[key] = row["settled_ms"]
            if is_new and self._fits(row):
                found.append((row["settled_ms"], log_entry(describer.describe(row), None)))
        self._forget(from_ms)
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    async def _row_of_new(self, attempt: Row) -> Row | None:
        """The delivery of an attempt; ``None`` when the attempt was seen before."""
        number, made = attempt["delivery"], attempt["attempt"]
        if any((number, made, state) in self._seen for state in DeliveryState):
            return None
        rows = await self._store.query("delivery", number=number)
        # Its end is the attempt's, unless another attempt came between.
        state = rows[0]["state"] if rows and rows[0]["attempts"] == made else DeliveryState.WAITING
        self._seen[number, made, state] = attempt["at_ms"]
        return rows[0] if rows else None

    async def _all_since(self, statement: str, from_ms: int, column: str) -> Sequence[Row]:
        """All rows of a statement, page by page."""
        rows: dict[tuple[Any, ...], Row] = {}
        while page := await self._store.query(statement, from_ms=from_ms, limit=_PAGE):
            known = len(rows)
            rows |= {(row.get("number"), row.get("delivery"), row.get("attempt")): row for row in page}
            if len(page) < _PAGE:
                break
            # The next page begins with the last time of this one: others may have it, too.
            from_ms = page[-1][column] if len(rows) > known else from_ms + 1
        return list(rows.values())

    def _forget(self, from_ms: int) -> None:
        """What lies before the next look's beginning is not asked for again."""
        self._seen = {key: at_ms for key, at_ms in self._seen.items() if at_ms >= from_ms}
