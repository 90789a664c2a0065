"""Which deliveries somebody speaks of, and changing them: named ones, those that a filter finds, or all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from postbackd.catalog.errors import NoEntry, NotNow
from postbackd.core.click_id import KeyRing
from postbackd.core.deliveries import DeliveryState, delivery_id
from postbackd.core.model import Rule, Target
from postbackd.reports.deliveries import DeliveryDescriber, NoDelivery, Row, find_delivery
from postbackd.reports.period import Period
from postbackd.store.base import Store
from postbackd.store.outbox import BLOCKED

N = TypeVar("N", bound=Target | Rule)

Clock = Callable[[], int]
"""Milliseconds since 1970."""

Watch = Callable[[int], None]
"""Is told of how many rows more the work is through with."""

CHUNK = 500
"""Deliveries that are changed in one transaction: short enough for a running server to get its turn."""

STATES = {state.word: state for state in DeliveryState}
"""Word of a state -> the state."""


class Wanted(Struct, frozen=True):
    """Which deliveries the user speaks of."""

    state: str | None = None
    target: str | None = None
    rule: str | None = None
    period: Period = Period()

    @property
    def is_everything(self) -> bool:
        """Whether the user named no filter."""
        return self == Wanted()


async def ask_for(store: Store, wanted: Wanted) -> dict[str, Any]:
    """The parameters of the statements about deliveries.  Raises ``NoEntry`` for a name that is not known."""
    asked: dict[str, Any] = wanted.period.stamps()
    if wanted.state is not None:
        asked["state"] = STATES[wanted.state].value
    if wanted.target is not None or wanted.rule is not None:
        live, ever = await store.load_catalog(), await store.load_catalog(removed=True)
        if wanted.target is not None:
            asked["target"] = _find_ever(live.targets, ever.targets, wanted.target, "target").id
        if wanted.rule is not None:
            asked["rule"] = _find_ever(live.rules, ever.rules, wanted.rule, "rule").id
    return asked


def _find_ever(live: Sequence[N], ever: Sequence[N], name: str, kind: str) -> N:
    """The entry of this name; if there is none, the last one that had it before it was removed."""
    known: list[N] = [*live, *reversed(ever)]
    for entry in known:
        if entry.name == name:
            return entry
    names = ", ".join(repr(entry.name) for entry in live[:10]) or "none"
    raise NoEntry(f"there is no {kind} {name!r} (there are: {names}); see 'postbackd {kind} list'")


async def open_describer(store: Store, now_ms: int) -> DeliveryDescriber:
    """What makes documents of deliveries, as of now."""
    keys = KeyRing((await store.load_catalog()).signing_keys)
    return await DeliveryDescriber.load(store, keys, now_ms)


async def find_all(store: Store, ids: Iterable[str]) -> list[Row]:
    """The deliveries of these ids, each once, the oldest first.  Raises ``NoEntry``."""
    try:
        rows = {row["number"]: row for row in [await find_delivery(store, id_) for id_ in ids]}
    except NoDelivery as error:
        raise NoEntry(str(error)) from error
    return [rows[number] for number in sorted(rows)]


# --- a filter ---------------------------------------------------------------------------------------------------


class Chosen(Struct, frozen=True):
    """What a filter has found: so many, and the statement that names them page by page."""

    count: int
    left_out: int
    statement: str
    asked: dict[str, Any]


async def choose_resendable(store: Store, wanted: Wanted) -> Chosen:
    """What to send: all that waits, or of what has ended what is still true and was not sent again yet."""
    asked = await ask_for(store, wanted)
    # What is sent again is a delivery of its own: the last number keeps us from doing it for ever.
    asked["last"] = (await store.query("last_delivery"))[0]["number"] or 0
    (found,) = await store.query("delivery_count", **asked)
    if wanted.state == DeliveryState.WAITING.word:
        return Chosen(found["count"], 0, "deliveries_from", asked)
    (resendable,) = await store.query("resendable_count", **asked)
    return Chosen(resendable["count"], found["count"] - resendable["count"], "resendable", asked)


async def resend(store: Store, chosen: Chosen, clock: Clock, watch: Watch) -> int:
    """Send what was chosen; returns how many went out."""
    sent = 0
    async for rows in _in_chunks(store, chosen, watch):
        now = clock()
        numbers = [row["number"] for row in rows if _can_be_sent(row, now)]
        sent += await store.resend(numbers, now)
    return sent


def _can_be_sent(row: Row, now: int) -> bool:
    """Whether to touch a delivery: not if it waits and goes out just now, for then it would go out twice."""
    if row.get("state") != DeliveryState.WAITING:
        return True
    return bool(row["holder"] is None and now < row["due_ms"] != BLOCKED)


async def _in_chunks(store: Store, chosen: Chosen, watch: Watch) -> AsyncIterator[Sequence[Row]]:
    """What was chosen."""
    after = -1
    while rows := await store.query(chosen.statement, **chosen.asked, after=after, limit=CHUNK):
        after = rows[-1]["number"]
        yield rows
        watch(len(rows))


async def choose_waiting(store: Store, wanted: Wanted) -> Chosen:
    """What waits."""
    asked = {**await ask_for(store, wanted), "state": DeliveryState.WAITING.value}
    (found,) = await store.query("delivery_count", **asked)
    return Chosen(found["count"], 0, "deliveries_from", asked)


async def cancel(store: Store, chosen: Chosen, reason: str, clock: Clock, watch: Watch) -> int:
    """Cancel what was chosen; returns how many nobody was sending."""
    cancelled = 0
    async for rows in _in_chunks(store, chosen, watch):
        cancelled += await store.cancel([row["number"] for row in rows], clock(), reason)
    return cancelled


# --- named ones -------------------------------------------------------------------------------------------------


async def send_these(store: Store, ids: Sequence[str], clock: Clock) -> list[dict[str, Any]]:
    """Send deliveries, whatever became of them; a document for each.  Raises ``NoEntry``."""
    rows = await find_all(store, ids)
    gone = {target.id for target in (await store.load_catalog(removed=True)).targets}
    gone -= {target.id for target in (await store.load_catalog()).targets}
    for row in rows:
        if row["target"] in gone:
            raise NotNow(
                f"target {row['target_name']!r} of delivery {_id_of(row)} was removed; nothing is sent to it now"
            )
    now = clock()
    numbers = [row["number"] for row in rows if _can_be_sent(row, now)]
    for start in range(0, len(numbers), CHUNK):
        await store.resend(numbers[start : start + CHUNK], now)
    copies = await _find_copies(store, rows, now)
    describer = await open_describer(store, now)
    touched = set(numbers)
    return [
        _describe_sent(describer.describe(row), copies.get(row["number"]), touched=row["number"] in touched)
        for row in rows
    ]


async def _find_copies(store: Store, rows: Sequence[Row], now: int) -> dict[int, str]:
    """Number of a delivery -> the id under which it was sent again at this time."""
    made: dict[tuple[int, ...], list[Row]] = {}
    for click_id in {row["click_id"] for row in rows}:
        for copy in await store.query("deliveries_of_click", click_id=click_id):
            if copy["created_ms"] == now:
                made.setdefault(_about(copy), []).append(copy)
    copies = {}
    for row in rows:
        same = made.get(_about(row))
        if row["state"] != DeliveryState.WAITING and same:  # the copies are made in the order of the numbers
            copies[row["number"]] = _id_of(same.pop(0))
    return copies


def _about(row: Row) -> tuple[int, ...]:
    """What a delivery and its copy have in common, as far as is needed to tell them from others."""
    return row["request_id"], row["conversion_id"], row["rule"], row["message"], row["value_micros"]


def _id_of(row: Row) -> str:
    return delivery_id(row["request_id"], row["number"])


def _describe_sent(document: dict[str, Any], copy: str | None, *, touched: bool) -> dict[str, Any]:
    """``sent_as`` is the id under which the delivery goes out, ``None`` when it was left as it is."""
    waits = document["state"] == DeliveryState.WAITING.word
    note = document["note"] if touched else document["note"] or "its time has come already"
    return {
        "delivery": document["delivery"],
        "state": document["state"],
        "sent_as": copy if not waits else document["delivery"] if touched else None,
        "note": note if waits else None,
    }


async def cancel_these(store: Store, ids: Sequence[str], reason: str, clock: Clock) -> list[dict[str, Any]]:
    """Cancel deliveries; a document for each that says whether it could be done.  Raises ``NoEntry``."""
    rows = await find_all(store, ids)
    done = []
    for row in rows:
        changed = await store.cancel([row["number"]], clock(), reason)
        (after,) = await store.query("delivery", number=row["number"])
        done.append({
            "delivery": _id_of(row),
            "cancelled": bool(changed),
            "state": DeliveryState(after["state"]).word,
        })  # fmt: skip
    return done
