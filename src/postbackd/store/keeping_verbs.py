"""The verbs of a store that the keepers of alarms and roll-ups write with: the same for every store.

A store says how it commits what they do; what is done is in ``alarm_rows`` and ``rollups``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

from postbackd.core.alarm_notices import Notice
from postbackd.core.alarms import Key, Quiet
from postbackd.core.rollups import Put
from postbackd.store import alarm_rows, rollups
from postbackd.store.base_upkeep import AlarmStep
from postbackd.store.catalog_verbs import Work

_T = TypeVar("_T")


class KeepingVerbs:
    """See ``store.base_upkeep`` for what each verb promises."""

    @abstractmethod
    async def _keep_alarms(self, work: Work[_T]) -> _T:
        """Commit one change of the alarms.  Raises ``StoreUnavailable``."""

    @abstractmethod
    async def _keep_rollups(self, work: Work[_T]) -> _T:
        """Commit one step of the roll-ups' keeper, while nobody else takes one."""

    async def hold_alarms(self, holder: str, now_ms: int, until_ms: int) -> bool:
        return await self._keep_alarms(lambda db: alarm_rows.hold(db, holder, now_ms, until_ms))

    async def write_alarms(self, step: AlarmStep) -> Sequence[int] | None:
        return await self._keep_alarms(lambda db: alarm_rows.write(db, step))

    async def settle_notices(self, notices: Sequence[Notice]) -> None:
        await self._keep_alarms(lambda db: alarm_rows.settle(db, notices))

    async def quiet_alarm(self, quiet: Quiet) -> None:
        await self._keep_alarms(lambda db: alarm_rows.quiet(db, quiet))

    async def unquiet_alarm(self, key: Key) -> bool:
        return await self._keep_alarms(lambda db: alarm_rows.unquiet(db, key))

    async def forget_alarms(self, hours_before: int, campaigns_before: int, ended_before_ms: int) -> None:
        await self._keep_alarms(
            lambda db: alarm_rows.forget(db, hours_before, campaigns_before, ended_before_ms)
        )

    async def claim_rollups(self, holder: int, now_ms: int) -> Mapping[str, int] | None:
        return await self._keep_rollups(lambda db: rollups.claim(db, holder, now_ms))

    async def give_up_rollups(self, holder: int) -> None:
        await self._keep_rollups(lambda db: rollups.give_up(db, holder))

    async def put_rollups(self, step: Put) -> bool:
        return await self._keep_rollups(lambda db: rollups.put(db, step))
