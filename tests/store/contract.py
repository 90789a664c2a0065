"""The world in which every store is tested: a small catalog, a clock that is an argument, and the verbs of a store.

``test_contract*.py`` say what every store promises and run once for each store in ``KINDS``.  A new store is one more
entry there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from postbackd.core.click_id import StampMint
from postbackd.core.diagnosis import Reason
from postbackd.core.model import (
    Campaign,
    CatalogEntry,
    Channel,
    Click,
    Network,
    Offer,
    Postback,
    Request,
    Rule,
    Source,
    Target,
    WeightedOffer,
)
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import judge
from postbackd.core.statuses import Status
from postbackd.store.base import Batch, Outcome, Store, Written
from postbackd.store.postgres import PostgresStore
from postbackd.store.sqlite import SqliteStore
from tests.citus_server import emptied_distributed_database, new_distributed_database
from tests.postgres_server import VERSIONS, emptied_database, new_database

T = TypeVar("T")
E = TypeVar("E", Network, Source, Offer, Campaign, Target, Rule)

ANY_PARAMETERS: Mapping[str, Any] = {
    "click_id": 1, "request_id": 1, "conversion_id": 1, "transaction_id": "T3", "own_id": "own id", "number": 1,
    "from_ms": 0, "before_ms": 1 << 62, "identity": "hashed:0123456789abcdef", "pattern": "%x%", "ref": "#1",
}  # fmt: skip
"""What every named statement can be asked with."""

NOW_MS = 1_750_000_000_000
MODES = ("ignore", "update", "add", "hold")
S2S, PIXEL = Channel.S2S, Channel.PIXEL


class Kind(NamedTuple):
    """One kind of store: how a new one is made and how another connection to the same one is opened."""

    name: str
    open: Callable[[Path], Awaitable[Store]]
    execute: Callable[[Any, str], Awaitable[Any]]
    """Runs a statement of SQL on a store of this kind, past all rules."""
    use_up_campaign_ids: str
    """The statement after which the next campaign would get an id that fits no click id."""
    open_lasting: Callable[[Path], Awaitable[Store]]
    """As ``open``, and the next test that opens another one does not empty it."""


async def _open_sqlite(directory: Path) -> Store:
    return await SqliteStore.open(directory, create=True, busy_timeout_ms=5000)


async def _execute_sqlite(store: SqliteStore, sql: str) -> None:
    store.connection.execute(sql)


def postgres_kind(
    version: int,
    address: str | None = None,
    emptied: Callable[[int], str] = emptied_database,
    lasting: Callable[[int], str] = new_database,
) -> Kind:
    """PostgreSQL of one version; ``address``: the database to use, instead of an emptied one a directory."""

    def opening(make: Callable[[int], str]) -> Callable[[Path], Awaitable[Store]]:
        addresses: dict[Path, str] = {}

        async def open_(directory: Path) -> Store:
            if address is not None:
                addresses[directory] = address
            elif directory not in addresses:
                addresses[directory] = await asyncio.to_thread(make, version)
            return await PostgresStore.open(addresses[directory], create=True, write_timeout_s=10)

        return open_

    async def execute(store: PostgresStore, sql: str) -> None:
        await (await store.connection()).execute(sql)

    return Kind(
        f"postgres{version}",
        opening(emptied),
        execute,
        "SELECT setval(pg_get_serial_sequence('campaigns', 'id'), 16777215)",
        opening(lasting),
    )


def citus_kind(version: int) -> Kind:
    """PostgreSQL whose tables are distributed."""
    kind = postgres_kind(version, emptied=emptied_distributed_database, lasting=new_distributed_database)
    return kind._replace(name="citus")


KINDS = (
    Kind("sqlite", _open_sqlite, _execute_sqlite, "UPDATE campaigns SET id = 16777215", _open_sqlite),
    *(postgres_kind(version) for version in VERSIONS),
    *(citus_kind(version) for version in VERSIONS[:1]),
)


class Said(NamedTuple):
    """What became of a postback, in words."""

    verdict: str
    reason: str
    conversion: int | None


def words(outcome: Outcome) -> Said:
    reason = Reason(outcome.reason).word if outcome.reason else ""
    return Said(outcome.verdict.word, reason, outcome.conversion_id)


CATALOG: Sequence[Any] = (
    *(Network(id=-1 - n, name=mode, key=f"key-{mode}", dedup=mode) for n, mode in enumerate(MODES)),
    Source(id=-5, name="ads"),
    Offer(id=-6, name="shoes", network=-1, url="https://shop.example/"),
    Campaign(id=-7, name="c", slug="c", source=-5, offers=(WeightedOffer(-6),)),
)
"""What every world begins with; entries that are new refer to each other by ids below zero."""


class World:
    """A store with four networks (one a dedup mode), one offer and one campaign."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.now_ms = NOW_MS
        self._loop = asyncio.new_event_loop()
        self.store = self.run(kind.open(directory))
        saved: Any = self.run(self.store.change_catalog(CATALOG, (), 0))
        self.networks: dict[str, Network] = dict(zip(MODES, saved[: len(MODES)], strict=True))
        self.source: Source = saved[-3]
        self.offer: Offer = saved[-2]
        self.campaign: Campaign = saved[-1]
        self.reload()
        self.mint = StampMint(0, self.run(self.store.last_stamp()))

    def run(self, verb: Awaitable[T]) -> T:
        """The answer of one verb."""
        return self._loop.run_until_complete(verb)

    def save(self, entry: E) -> E:
        saved: Any = self.run(self.store.save(entry))
        return saved  # type: ignore[no-any-return]

    def remove(self, entry: CatalogEntry) -> None:
        self.run(self.store.change_catalog([], [entry], self.now_ms))

    def reload(self) -> None:
        """Judge by today's catalog."""
        self.rulebook = Rulebook(self.run(self.store.load_catalog()))

    def close(self) -> None:
        self.run(self.store.close())
        self._loop.close()

    def reopen(self) -> None:
        """Another process goes on with the same data."""
        self.run(self.store.close())
        self.store = self.run(self.kind.open(self.directory))

    # --- making clicks and postbacks -----------------------------------------------------------------------------

    def make_click(self, own_id: str | None = None, age_s: float = 60, **more: Any) -> Click:
        """A click that is not written yet, so many seconds old."""
        stamp = self.mint.mint(self.now_ms) - (int(age_s * 1000) << 22)
        return Click(stamp, self.campaign.id, self.offer.id, 0, own_id=own_id, **more)

    def click(self, own_id: str | None = None, age_s: float = 60, **more: Any) -> Click:
        """A click that is written."""
        click = self.make_click(own_id, age_s, **more)
        self.write([click])
        return click

    def id_of(self, click: Click) -> str:
        return self.rulebook.keys.write(click.stamp, click.campaign)

    def make(
        self, click: Click | str, query: str = "", network: str = "ignore", channel: Channel = S2S
    ) -> Postback:
        """A judged postback that is not written yet; ``click`` may be the text of a click id."""
        text = click if isinstance(click, str) else self.id_of(click)
        id_ = self.networks[network].id
        rules = self.rulebook.networks[id_]
        whole = f"cid={text}&{query}"
        request = Request(self.mint.mint(self.now_ms), id_, channel, len(whole), self.now_ms)
        received = rules.field_map.read_query(whole)
        return judge(received, rules, self.rulebook.keys, self.rulebook.masker, request)

    # --- writing and looking ---------------------------------------------------------------------------------------

    def write(self, clicks: Sequence[Click] = (), postbacks: Sequence[Postback] = ()) -> Written:
        return self.run(self.store.write(Batch(clicks, postbacks), self.rulebook))

    def settle(self, *postbacks: Postback) -> list[Said]:
        """Write the postbacks as one batch."""
        return [words(outcome) for outcome in self.write((), postbacks).outcomes]

    def send(
        self, click: Click | str, query: str = "", network: str = "ignore", channel: Channel = S2S
    ) -> Said:
        """Write one postback, a batch of its own."""
        (said,) = self.settle(self.make(click, query, network, channel))
        return said

    def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        return self.run(self.store.query(name, **parameters))

    def conversions(self, click: Click) -> list[dict[str, Any]]:
        """What is counted for a click, oldest first."""
        return self.query("conversions_of_click", click_id=click.stamp)

    def conversion(self, click: Click) -> tuple[str, int, int]:
        """``(status, value in whole units, channels)`` of the only conversion of a click."""
        (row,) = self.conversions(click)
        return Status(row["status"]).word, row["value_micros"] // 1_000_000, row["channels"]

    def row(self, postback: Postback) -> dict[str, Any]:
        """The row of a postback in the log."""
        (row,) = self.query("postback", request_id=postback.request.request_id)
        return row
