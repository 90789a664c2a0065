"""What the endpoints work with: a store and what belongs to it.

There is one desk for the real data, and one for simulated data where there are some (``postbackd demo``): they never
share a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct

from postbackd.admin.jobs import Jobs
from postbackd.admin.reception import Reception
from postbackd.core.rulebook import Rulebook
from postbackd.reports.live import Feed
from postbackd.store.base import Store

QUESTIONS_AT_ONCE = 2
"""Questions to the reports; others wait, because each may take some hundred megabytes."""


class DataSet(StrEnum):
    """Which data a request looks at: the header ``Postbackd-Data``, or the parameter ``data``."""

    REAL = "real"
    DEMO = "demo"


class SettingValue(Struct, frozen=True):
    """One setting as this process was started with it; secrets are not shown."""

    name: str
    value: Any
    default: Any
    help: str
    secret: bool
    given: bool
    """Whether it has a value, also where that is not shown."""


class Desk:
    """An open database, and what its endpoints need beside it."""

    def __init__(
        self,
        store: Store,
        now_ms: Callable[[], int],
        *,
        base_url: str,
        data: Path,
        settings: tuple[SettingValue, ...] = (),
        tools: Mapping[str, Callable[..., Any]] | None = None,
        data_set: DataSet = DataSet.REAL,
        reception: Reception | None = None,
    ) -> None:
        """``base_url``: under which visitors and networks reach the front door.  ``data``: the data directory.

        ``tools``: what only a layer above can do (the runtime, the command line), by name: ``seal`` (see
        ``catalog.accounts.Seal``), ``run`` (see ``admin.jobs.Run``).  ``reception``: lets
        people in; there is one where the real data are.
        """
        self.store = store
        self.now_ms = now_ms
        self.base_url = base_url
        self.data = data
        self.settings = settings
        self.tools = tools or {}
        self.data_set = data_set
        self.jobs = Jobs(self.tools["run"], now_ms) if "run" in self.tools else None
        self.reception = reception
        self.feed = Feed(store, now_ms)
        """What is stored, as it is stored."""
        self.exploring = asyncio.Semaphore(QUESTIONS_AT_ONCE)
        """Held while a question to the reports is worked at."""
        self.reconciling = asyncio.Lock()
        """Held while an upload is: each needs a processor and some 150 MB."""
        self._rulebook: Rulebook | None = None

    def setting(self, name: str, otherwise: Any) -> Any:
        """The value of a setting; ``otherwise`` where this desk was not told of it."""
        return next((one.value for one in self.settings if one.name == name), otherwise)

    async def close(self) -> None:
        """Stop the long work.  The database is closed by whoever has opened it."""
        if self.jobs is not None:
            await self.jobs.close()

    async def rulebook(self) -> Rulebook:
        """The catalog as it is now; read again only when it has changed."""
        generation = await self.store.catalog_generation()
        if self._rulebook is None or self._rulebook.catalog.generation != generation:
            self._rulebook = Rulebook(await self.store.load_catalog())
        return self._rulebook
