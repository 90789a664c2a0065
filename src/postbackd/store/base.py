"""What a store promises.  Two stores (SQLite, PostgreSQL) keep these promises; one contract suite checks both.

Every verb is a coroutine, so that one calling code serves an embedded and a remote database.  Foreign exceptions
stay behind this door: callers see ``StoreUnavailable`` (try again later, nothing is known about the last
write), ``StoreRefused`` (an operator must act; says what to do) and ``CatalogConflict`` (the user asked for something
that contradicts what is stored).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from postbackd.core.deliveries import Delivery, Happened, Owed, Settled, TargetState, Told
from postbackd.core.model import Catalog, CatalogEntry, Click, Postback, SigningKey
from postbackd.core.privacy import Masker
from postbackd.core.retention import Class
from postbackd.core.rulebook import Rulebook
from postbackd.core.verdicts import Verdict
from postbackd.store.base_upkeep import KeepsAlarms, KeepsRollups

if TYPE_CHECKING:  # it raises what is defined here
    from postbackd.store.people import People


class StoreUnavailable(Exception):
    """The write or read failed or timed out.  What was asked may or may not have happened; asking again is safe."""


class StoreAway(StoreUnavailable):
    """The database cannot be used now, and nothing is wrong with this machine: requests may be kept on its disk."""


class StoreRefused(Exception):
    """The store cannot be used until an operator acts: damaged, from a newer version, in use by another server."""


class StoreNotReached(StoreRefused):
    """The database cannot be reached; it may be later."""


class TurnRefused(Exception):
    """A row of a turn cannot be stored, whoever tries; nothing of the turn was.  Says what the database said of it."""


class CatalogConflict(Exception):
    """A catalog change contradicts what is stored (name taken, still referenced); says what to do."""


class CatalogMoved(CatalogConflict):
    """Somebody else has changed the catalog since it was looked at."""


class NodeLost(Exception):
    """A node number that was leased is another process's now."""


class NodeLease(Struct, frozen=True):
    """The right to mint stamps with a node number."""

    node: int
    from_ms: int
    """Stamps of an earlier time may be another process's."""
    until_ms: int
    """Stamps of this time or later may be another process's."""


class FlowMinute(Struct, frozen=True):
    """What the front door counted in one minute, apart from the postback log."""

    minute: int
    refusals: dict[str, int]
    response_times: dict[int, tuple[int, int]]
    """histogram bucket -> (count, total microseconds)"""
    finds: Mapping[tuple[int, str, str], int] = {}
    """(network, 0 for clicks; field; kind of personal data) -> count"""
    names: Sequence[tuple[int, str]] = ()
    """(network, name of a parameter that no field claims)"""


class SealedValue(Struct, frozen=True):
    """A secret in the database."""

    purpose: str
    """See ``store.sealed``."""
    owner: str
    """The name of what it belongs to."""
    name: str
    """Which of its secrets; empty where it has one."""
    sealed: str | None
    """``None``: it is stored in clear."""


class Purgeable(Struct, frozen=True):
    """How many rows are old enough to be purged."""

    clicks: int
    postbacks: int
    exact: bool
    """Otherwise about so many: counting would read all of what is about to go."""


class Batch(Struct, frozen=True):
    """Requests that are committed together."""

    clicks: Sequence[Click] = ()
    postbacks: Sequence[Postback] = ()
    flow: Sequence[FlowMinute] = ()
    arrived: Sequence[str] = ()
    """Clicks that are stored already, by what they are waited for (``store.write.stamp_ref``, ``own_ref``)."""


class Outcome(Struct, frozen=True, gc=False):
    """What became of one postback."""

    verdict: Verdict
    reason: int = 0
    conversion_id: int | None = None


class Written(Struct, frozen=True):
    """The answers to one batch, in its order."""

    clicks: Sequence[int]
    """The stamp under which each click is stored: its own, or the first one's when its own id was known already."""
    outcomes: Sequence[Outcome]


class Look(Struct, frozen=True):
    """What there is to do for a deliverer."""

    events: Sequence[Happened]
    """The oldest events of the outbox."""
    told: Sequence[Told]
    """Everything that was ever owed about those conversions among them that changed, oldest first."""
    due: Collection[int]
    """Targets with deliveries to send."""


class Turn(Struct, frozen=True, kw_only=True):
    """One turn of a deliverer, committed together: in this order, what became of deliveries, new ones, and a claim."""

    holder: str
    """Who takes the turn."""
    now_ms: int
    settled: Sequence[Settled] = ()
    planned: Sequence[Happened] = ()
    """Events that are done with.  What is owed for one that another deliverer was done with first is left out."""
    owed: Sequence[Owed] = ()
    states: Sequence[TargetState] = ()
    rooms: Mapping[int, int] = {}
    """Target -> how many due deliveries to claim."""
    due: Collection[int] | None = None
    """Those targets of which something is due already (``Look.due``); ``None``: it is not known."""
    lease_ms: int = 0
    """How long what is claimed is ours alone."""


class Erasing(Struct, frozen=True):
    """What is to be erased."""

    asked: str
    """``click_id``, ``transaction_id`` or ``identity``."""
    reference: str
    """Keyed hash of the id that was asked for."""
    clicks: Sequence[int]
    requests: Sequence[int]
    """Rows of the postback log that name no click that is known."""
    now_ms: int
    certificate: int | None = None
    """The one that an earlier pass of this erasure has begun; whoever erases the same beside it may have ended it."""


class Erased(Struct, frozen=True):
    """What one pass did."""

    id: int
    """Of the certificate."""
    counts: dict[str, int]
    """Table -> rows, of all passes."""
    changed: int
    """Rows that this pass changed."""
    in_flight: int
    """Deliveries that somebody was sending."""
    resumed: bool
    """Whether an earlier pass was interrupted: what it erased is not known any more."""


class Store(KeepsAlarms, KeepsRollups, Protocol):
    """The database, behind one door."""

    waited_s: float
    """How long the last write had to wait for another program that writes."""

    async def write(self, batch: Batch, rulebook: Rulebook, *, patience_s: float = 0) -> Written:
        """Commit the batch as one transaction, synced to disk before this returns.

        The unique key of the conversions decides what is counted.  Clicks are written before postbacks are
        matched.  ``patience_s``: how long at least a database that is slow may take, when nobody waits for the answer.
        Raises ``StoreUnavailable`` when it is not known whether the batch was stored.
        """
        ...

    async def rehearse(self, batch: Batch, rulebook: Rulebook) -> Written:
        """What ``write`` would answer now; nothing is stored."""
        ...

    async def match_waiting(self, rulebook: Rulebook, since_ms: int) -> int:
        """Match postbacks that wait for clicks which are there; returns for how many clicks any waited.

        Where several processes write, a click and its postback may arrive at the same moment and not see each
        other.  ``since_ms``: only postbacks that were received since.
        """
        ...

    async def find_missing(self, request_ids: Sequence[int]) -> set[int]:
        """Which of these requests are not in the postback log, so that a batch can be written again safely."""
        ...

    async def load_postbacks(self, request_ids: Sequence[int]) -> Sequence[Postback]:
        """Rows of the postback log, in the form in which they can be judged again; unknown ids are left out."""
        ...

    async def load_catalog(self, *, removed: bool = False) -> Catalog:
        """The catalog; with ``removed`` also the entries that were taken out of it, for their names."""
        ...

    async def catalog_generation(self) -> int:
        """Grows with every change of the catalog; cheap enough to ask several times a second."""
        ...

    async def save(self, entry: CatalogEntry) -> CatalogEntry:
        """``change_catalog`` for one entry."""
        ...

    async def change_catalog(
        self,
        saves: Sequence[CatalogEntry],
        removals: Sequence[CatalogEntry],
        now_ms: int,
        *,
        if_generation: int | None = None,
    ) -> Sequence[CatalogEntry]:
        """Save and remove entries, all or none; returns the saved ones with their ids.

        ``if_generation``: only if the catalog is still this one, otherwise raises ``CatalogMoved``.

        A new entry has the id 0, or a negative one by which others of the same call refer to it.  A removed entry's row
        stays, so that reports keep its name.  Raises ``CatalogConflict``.
        """
        ...

    async def rotate_signing_key(
        self, secret: bytes, *, now_ms: int, active_from_ms: int, keep: int
    ) -> Sequence[SigningKey]:
        """Let a new secret sign from ``active_from_ms`` on; the newest ``keep`` keys go on verifying."""
        ...

    @property
    def people(self) -> People:
        """The verbs that concern people, their sessions, tokens and the audit log."""
        ...

    async def list_sealed(self) -> Sequence[SealedValue]:
        """Every secret that is stored sealed, or that would be."""
        ...

    async def seal_all(self) -> int:
        """Seal every secret with the newest key, also what was in clear, in one transaction; returns how many.

        What is stored later is sealed too.  Raises ``StoreRefused`` when something cannot be opened.
        """
        ...

    async def recover(self) -> None:
        """Prove that a write reaches the disk, after closing and reopening everything if the disk had failed.

        Raises ``StoreUnavailable`` while it does not.
        """
        ...

    async def last_stamp(self) -> int:
        """The largest stamp stored, 0 when there is none."""
        ...

    async def claim_node(self, wanted: int, now_ms: int) -> NodeLease:
        """A node number that no other process has; ``wanted`` where numbers are not leased.

        Raises ``StoreRefused`` when none is free.
        """
        ...

    async def renew_node(self, lease: NodeLease, now_ms: int) -> NodeLease:
        """The lease with a later end.  Raises ``NodeLost``."""
        ...

    async def release_node(self, lease: NodeLease, minted_ms: int) -> None:
        """Give the number back; no stamp of ``minted_ms`` or later has been minted."""
        ...

    async def query(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """Run one of the named read-only statements of ``store.queries``."""
        ...

    async def query_apart(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """The same for a question that may take long: neither writers nor the event loop wait for it."""
        ...

    async def count_purgeable(self, before_ms: int) -> Purgeable:
        """How many clicks and log rows were made before ``before_ms``."""
        ...

    async def purge(self, before_ms: int, limit: int) -> int:
        """Delete clicks and log rows made before ``before_ms``; returns about how many.  Conversions stay.

        ``limit`` of each at a time, or, where that is quick, whole days at once.  0: nothing is left.
        """
        ...

    async def count_old(self, class_: Class, before_ms: int) -> tuple[int, bool]:
        """How many rows of a class are older, and whether that is exact."""
        ...

    async def purge_class(self, class_: Class, before_ms: int, limit: int) -> int:
        """One step of deleting what is older of one class; returns about how many rows went, 0: nothing is left.

        A conversion goes only when its click is gone and nothing about it waits to be sent.
        """
        ...

    async def note_purge(self, now_ms: int, deleted: Mapping[Class, int]) -> None:
        """Keep that a purge looked at this time, and what it deleted."""
        ...

    async def erase(self, erasing: Erasing, masker: Masker) -> Erased:
        """Erase what is kept of clicks and of log rows, as one transaction; see ``store.erasure``.

        May run again at any time, and has to until a pass changes nothing: others may have been writing.
        """
        ...

    async def scrub(self, erasing: Erasing, *, everywhere: bool, rewrite: bool) -> int:
        """Make what was erased vanish from the files of the database; returns how many places may hold some still.

        ``everywhere``: it is not known any more which tables held any.  ``rewrite``: write the tables anew that held
        any, where the database does not overwrite what it has let go; others wait meanwhile.  Raises ``StoreRefused``
        when another program is in the way.
        """
        ...

    async def end_erasure(self, id_: int, now_ms: int) -> None:
        """Its certificate is complete."""
        ...

    async def look(self, targets: Sequence[int], now_ms: int, events: int) -> Look:
        """What there is to do: up to so many ``events``, and which of the targets have due deliveries."""
        ...

    async def take_turn(self, turn: Turn) -> Sequence[Delivery]:
        """Commit a turn, synced to disk; returns the deliveries that were claimed, in the order in which they were due.

        Nobody else is given them before the lease ends, or this holder settles them: a delivery is never deleted to be
        taken.  Of the messages about one conversion to one target only the oldest that waits is ever given out.  What
        is settled by somebody who does not hold it any more changes nothing, but its attempt is kept.  What is due and
        cannot be read is given up.  Raises ``TurnRefused``.
        """
        ...

    async def release(self, holder: str | None) -> int:
        """Let everybody have what this holder claimed (``None``: what anybody did); returns how many that were."""
        ...

    async def resend(self, numbers: Sequence[int], now_ms: int) -> int:
        """Send deliveries now: one that waits at once, any other again, under an id of its own; returns how many."""
        ...

    async def cancel(self, numbers: Sequence[int], now_ms: int, reason: str) -> int:
        """Cancel those that wait and that nobody is sending at this moment; returns how many."""
        ...

    async def examine(self) -> dict[str, str]:
        """The settings that durability depends on, and whether the files are whole; may take long."""
        ...

    async def close(self) -> None: ...
