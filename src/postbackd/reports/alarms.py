"""Alarms as commands and the API show and quiet them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from postbackd.core.alarm_notices import Notice, describe, describe_quiet
from postbackd.core.alarms import Alarm, Key, Quiet
from postbackd.core.moments import write_moment
from postbackd.store.base import Store

Names = Mapping[tuple[str, int], str]


class UnknownAlarm(Exception):
    """There is no alarm with this id."""

    def __init__(self, id_: int) -> None:
        super().__init__(f"there is no alarm {id_}; 'postbackd alarm list --all' shows them")


class AlarmBook:
    """The alarms of a store, at one moment."""

    def __init__(self, store: Store, now_ms: int) -> None:
        self._store = store
        self._now_ms = now_ms

    async def list(
        self, limit: int, *, with_ended: bool = False, before: int | None = None
    ) -> Sequence[dict[str, Any]]:
        """Documents of alarms, the latest first; ``before``: of smaller ids only."""
        more = {} if before is None else {"before": before}
        rows = await self._store.query("alarms", limit=limit, ended=int(with_ended), **more)
        names, quiets = await load_names(self._store), await self._quiets()
        alarms = [read_alarm(row) for row in rows]
        return [describe(alarm, names, self._quiet_of(alarm, quiets)) for alarm in alarms]

    async def show(self, id_: int) -> dict[str, Any]:
        """One alarm, with ``notices``.  Raises ``UnknownAlarm``."""
        alarm = await self._load(id_)
        rows = await self._store.query("alarm_notices_of", number=id_)
        document = describe(alarm, await load_names(self._store), self._quiet_of(alarm, await self._quiets()))
        return {**document, "notices": [describe_notice(read_notice(row)) for row in rows]}

    async def quiet(self, id_: int, for_s: int | None, who: str, why: str) -> dict[str, Any]:
        """Say nothing of it for so long, or until it is over.  Raises ``UnknownAlarm``."""
        alarm = await self._load(id_)
        until_ms = 0 if for_s is None else self._now_ms + for_s * 1000
        quiet = Quiet(*alarm.key, until_ms, who, why, self._now_ms)
        await self._store.quiet_alarm(quiet)
        return describe_quiet(quiet)

    async def unquiet(self, id_: int) -> bool:
        """Speak of it again; whether it was quiet.  Raises ``UnknownAlarm``."""
        return await self._store.unquiet_alarm((await self._load(id_)).key)

    async def _load(self, id_: int) -> Alarm:
        rows = await self._store.query("alarm", number=id_)
        if not rows:
            raise UnknownAlarm(id_)
        return read_alarm(rows[0])

    async def _quiets(self) -> Mapping[Key, Quiet]:
        return {quiet.key: quiet for quiet in await load_quiets(self._store)}

    def _quiet_of(self, alarm: Alarm, quiets: Mapping[Key, Quiet]) -> Quiet | None:
        quiet = quiets.get(alarm.key)
        return quiet if quiet is not None and alarm.ended_ms is None and quiet.holds(self._now_ms) else None


def describe_notice(notice: Notice) -> dict[str, Any]:
    """What was told, where to, and what became of it."""
    return {
        "said": str(notice.said),
        "place": notice.place,
        "state": notice.state,
        "attempts": notice.attempts,
        "at": write_moment(notice.settled_ms or notice.made_ms),
        "error": notice.error or None,
    }


def read_alarm(row: Mapping[str, Any]) -> Alarm:
    """An alarm of a row."""
    return msgspec.convert({**row, "urgent": bool(row["urgent"])}, Alarm)


def read_notice(row: Mapping[str, Any]) -> Notice:
    """A notice of a row."""
    return msgspec.convert(row, Notice)


async def load_names(store: Store) -> Names:
    """(kind, id) -> what people call it."""
    return {(row["kind"], row["id"]): row["name"] for row in await store.query("names")}


async def load_quiets(store: Store) -> Sequence[Quiet]:
    return [msgspec.convert(row, Quiet) for row in await store.query("alarm_quiets")]
