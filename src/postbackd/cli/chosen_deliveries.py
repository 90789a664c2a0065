"""Which deliveries a command speaks of, and changing them: one, those that a filter finds, or all."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from msgspec import Struct

from postbackd.cli.options import now_ms
from postbackd.cli.session import Session
from postbackd.core.click_id import KeyRing
from postbackd.core.deliveries import DeliveryState, delivery_id
from postbackd.core.model import Rule, Target
from postbackd.reports.deliveries import DeliveryDescriber, NoDelivery, Row, find_delivery
from postbackd.reports.period import Period
from postbackd.store.outbox import BLOCKED

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", bound=Target | Rule)

CHUNK = 500
"""Deliveries that are changed in one transaction: short enough for a running server to get its turn."""

STATES = {state.word: state for state in DeliveryState}
"""What ``--state`` takes."""


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


def takes_filter(command: F) -> F:
    """``--state``, ``--target`` and ``--rule``; the arguments ``state``, ``target`` and ``rule``."""
    options = (
        click.option("--state", type=click.Choice(list(STATES)), help="Only what is in this state."),
        click.option("--target", metavar="T", help="Only to this target."),
        click.option("--rule", metavar="R", help="Only by this rule."),
    )
    for option in reversed(options):
        command = option(command)
    return command


async def ask_for(session: Session, wanted: Wanted) -> dict[str, Any]:
    """The parameters of the statements about deliveries.  Raises ``ClickException`` for a name that is not known."""
    asked: dict[str, Any] = wanted.period.stamps()
    if wanted.state is not None:
        asked["state"] = STATES[wanted.state].value
    if wanted.target is not None or wanted.rule is not None:
        live, ever = await session.load(), await session.load(removed=True)
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
    raise click.ClickException(
        f"there is no {kind} {name!r} (there are: {names}); see 'postbackd {kind} list'"
    )


async def open_describer(session: Session) -> DeliveryDescriber:
    """What makes documents of deliveries, as of now."""
    keys = KeyRing((await session.load()).signing_keys)
    return await DeliveryDescriber.load(session.store, keys, now_ms())


async def find_all(session: Session, ids: Iterable[str]) -> list[Row]:
    """The deliveries of these ids, each once, the oldest first.  Raises ``ClickException``."""
    try:
        rows = {row["number"]: row for row in [await find_delivery(session.store, id_) for id_ in ids]}
    except NoDelivery as error:
        raise click.ClickException(str(error)) from error
    return [rows[number] for number in sorted(rows)]


# --- a filter ---------------------------------------------------------------------------------------------------


class Chosen(Struct, frozen=True):
    """What a filter has found: so many, and the statement that names them page by page."""

    count: int
    left_out: int
    statement: str
    asked: dict[str, Any]


async def choose_resendable(session: Session, wanted: Wanted) -> Chosen:
    """What to send: all that waits, or of what has ended what is still true and was not sent again yet."""
    asked = await ask_for(session, wanted)
    # What is sent again is a delivery of its own: the last number keeps us from doing it for ever.
    asked["last"] = (await session.store.query("last_delivery"))[0]["number"] or 0
    (found,) = await session.store.query("delivery_count", **asked)
    if wanted.state == DeliveryState.WAITING.word:
        return Chosen(found["count"], 0, "deliveries_from", asked)
    (resendable,) = await session.store.query("resendable_count", **asked)
    return Chosen(resendable["count"], found["count"] - resendable["count"], "resendable", asked)


async def resend(session: Session, chosen: Chosen) -> int:
    """Send what was chosen; returns how many went out."""
    sent = 0
    async for rows in _in_chunks(session, chosen, "sending"):
        now = now_ms()
        numbers = [row["number"] for row in rows if _can_be_sent(row, now)]
        sent += await session.store.resend(numbers, now)
    return sent


def _can_be_sent(row: Row, now: int) -> bool:
    """Whether to touch a delivery: not if it waits and goes out just now, for then it would go out twice."""
    if row.get("state") != DeliveryState.WAITING:
        return True
    return bool(row["holder"] is None and now < row["due_ms"] != BLOCKED)


async def _in_chunks(session: Session, chosen: Chosen, label: str) -> AsyncIterator[list[Row]]:
    """What was chosen, with a bar on a terminal."""
    quiet = not sys.stderr.isatty()
    after = -1
    with click.progressbar(length=chosen.count, label=label, file=sys.stderr, hidden=quiet) as bar:
        while rows := await session.store.query(chosen.statement, **chosen.asked, after=after, limit=CHUNK):
            after = rows[-1]["number"]
            yield [*rows]
            bar.update(len(rows))


async def choose_waiting(session: Session, wanted: Wanted) -> Chosen:
    """What waits."""
    asked = {**await ask_for(session, wanted), "state": DeliveryState.WAITING.value}
    (found,) = await session.store.query("delivery_count", **asked)
    return Chosen(found["count"], 0, "deliveries_from", asked)


async def cancel(session: Session, chosen: Chosen, reason: str) -> int:
    """Cancel what was chosen; returns how many nobody was sending."""
    cancelled = 0
    async for rows in _in_chunks(session, chosen, "cancelling"):
        cancelled += await session.store.cancel([row["number"] for row in rows], now_ms(), reason)
    return cancelled


# --- named ones -------------------------------------------------------------------------------------------------


async def send_these(session: Session, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Send deliveries, whatever became of them; a document for each.  Raises ``ClickException``."""
    rows = await find_all(session, ids)
    gone = {target.id for target in (await session.load(removed=True)).targets}
    gone -= {target.id for target in (await session.load()).targets}
    for row in rows:
        if row["target"] in gone:
            raise click.ClickException(
                f"target {row['target_name']!r} of delivery {_id_of(row)} was removed; nothing is sent to it now"
            )
    now = now_ms()
    numbers = [row["number"] for row in rows if _can_be_sent(row, now)]
    for start in range(0, len(numbers), CHUNK):
        await session.store.resend(numbers[start : start + CHUNK], now)
    copies = await _find_copies(session, rows, now)
    describer = await open_describer(session)
    touched = set(numbers)
    return [
        _describe_sent(describer.describe(row), copies.get(row["number"]), touched=row["number"] in touched)
        for row in rows
    ]


async def _find_copies(session: Session, rows: Sequence[Row], now: int) -> dict[int, str]:
    """Number of a delivery -> the id under which it was sent again at this time."""
    made: dict[tuple[int, ...], list[Row]] = {}
    for click_id in {row["click_id"] for row in rows}:
        for copy in await session.store.query("deliveries_of_click", click_id=click_id):
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


async def cancel_these(session: Session, ids: Sequence[str], reason: str) -> list[dict[str, Any]]:
    """Cancel deliveries; a document for each that says whether it could be done.  Raises ``ClickException``."""
    rows = await find_all(session, ids)
    done = []
    for row in rows:
        changed = await session.store.cancel([row["number"]], now_ms(), reason)
        (after,) = await session.store.query("delivery", number=row["number"])
        done.append({
            "delivery": _id_of(row),
            "cancelled": bool(changed),
            "state": DeliveryState(after["state"]).word,
        })  # fmt: skip
    return done
