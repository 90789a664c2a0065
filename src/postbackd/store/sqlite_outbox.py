"""Outbox and deliveries on SQLite.  Whoever calls these opens and closes the transaction."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence

import apsw

from postbackd.core.deliveries import Delivery, DeliveryState, Settled, TargetState
from postbackd.store.base import Look, Turn
from postbackd.store.outbox import (
    BLOCKED,
    CLICK_COLUMNS,
    CONVERSION_COLUMNS,
    EVENT_COLUMNS,
    OWED_COLUMNS,
    TOLD_COLUMNS,
    assemble,
    changed_conversions,
    choose_fresh,
    due_times,
    owed_row,
    read_claimed,
    read_told,
)
from postbackd.store.transaction import Row

# Every statement has a name and a sentence.

FIND_EVENTS = f"SELECT {EVENT_COLUMNS} FROM outbox ORDER BY event LIMIT ?"
# The oldest events.

FIND_CONVERSIONS = f"SELECT {CONVERSION_COLUMNS} FROM conversions WHERE click_id IN carray(?)"
# All conversions of clicks.

FIND_CLICKS = f"SELECT {CLICK_COLUMNS} FROM clicks WHERE click_id IN carray(?)"
# What deliveries may say of clicks.

_AS_IT_LIES = ("facts", "CAST(facts AS BLOB)")
# A text whose bytes are damaged could not even be fetched; whoever decodes it says what is wrong.

FIND_TOLD = f"""
SELECT {TOLD_COLUMNS.replace(*_AS_IT_LIES)} FROM deliveries WHERE conversion_id IN carray(?) ORDER BY number
"""  # What was ever owed about conversions.

FIND_DUE = """
SELECT t.value FROM carray(?) AS t
WHERE EXISTS (SELECT 1 FROM deliveries WHERE target = t.value AND state = 1 AND due_ms <= ?)
"""  # Which targets have something to be sent.

SETTLE = """
UPDATE deliveries SET state = ?, due_ms = ?, holder = NULL, attempts = attempts + ?, settled_ms = ?, reason = ?
WHERE number = ? AND holder = ? AND state = 1
"""  # What became of a delivery, unless somebody else has it by now.

ADD_ATTEMPT = """
INSERT INTO attempts (delivery, attempt, at_ms, took_ms, http_status, excerpt, error)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""  # An attempt.

UNBLOCK = f"""
UPDATE deliveries SET due_ms = ?1
WHERE due_ms = {BLOCKED} AND number = (
    SELECT min(number) FROM deliveries WHERE conversion_id = ?2 AND target = ?3 AND state = 1)
"""  # The next message about a conversion may go.

FINISH_EVENTS = "DELETE FROM outbox WHERE event IN carray(?) RETURNING event"
# The rules have been asked about these.

FIND_WAITING = "SELECT conversion_id, target FROM deliveries WHERE conversion_id IN carray(?) AND state = 1"
# For which targets something about these conversions waits.

ADD_DELIVERY = f"""
INSERT INTO deliveries ({OWED_COLUMNS}, state, settled_ms, attempts, reason, holder)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?) RETURNING number
"""  # Something that is owed from now on, and who has it, if somebody takes it at once.

FIND_CLAIMABLE = f"""
SELECT number, attempts,
       message <> 1 AND EXISTS (
           SELECT 1 FROM deliveries AS e WHERE e.conversion_id = d.conversion_id AND e.rule = d.rule
                                           AND e.number < d.number AND (e.state = 2 OR e.attempts > 0)),
       message = 1 AND EXISTS (
           SELECT 1 FROM deliveries AS e WHERE e.conversion_id = d.conversion_id AND e.rule = d.rule
                                           AND e.number > d.number AND e.state = 1 AND e.message = 3),
       unsure OR holder IS NOT NULL,
       {OWED_COLUMNS.replace(*_AS_IT_LIES)}
FROM deliveries AS d WHERE target = ? AND state = 1 AND due_ms <= ? ORDER BY due_ms, number LIMIT ?
"""  # What may be sent to a target now.

CLAIM = (
    "UPDATE deliveries SET unsure = unsure OR holder IS NOT NULL, holder = ?, due_ms = ? "
    "WHERE number = ? AND state = 1 AND due_ms <= ? RETURNING number"
)
# Nobody else gets it until then.

NOTE_STATE = """
INSERT INTO target_states (target, state, since_ms, until_ms, reason) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET state = excluded.state, since_ms = excluded.since_ms, until_ms = excluded.until_ms,
                          reason = excluded.reason
WHERE target_states.state <> 'paused' OR NOT ?
"""  # A target is not served as usual.

FORGET_STATE = "DELETE FROM target_states WHERE target = ? AND (state <> 'paused' OR NOT ?)"
# A target is served as usual again.

RELEASE = """
UPDATE deliveries SET holder = NULL, due_ms = 0, unsure = 1
WHERE state = 1 AND holder IS NOT NULL AND coalesce(holder = ?, 1)
"""  # Let anybody have what a holder has.

SEND_NOW = f"""
UPDATE deliveries SET due_ms = ? WHERE number = ? AND state = 1 AND holder IS NULL AND due_ms <> {BLOCKED}
"""  # One that waits need not wait longer.

SEND_AGAIN = f"""
INSERT INTO deliveries ({OWED_COLUMNS}, state, attempts, reason)
SELECT request_id, click_id, type, transaction_id, conversion_id, campaign, offer, rule, target, message, status,
       value_micros, currency, facts, ?1, ?1, 0, 1, 0, ''
FROM deliveries WHERE number = ?2 AND state <> 1 AND click_id NOT IN (SELECT click_id FROM erased_clicks)
"""  # The same again under an id of its own, however old it is: a person asked for it.  Not for an erased click.

CANCEL = """
UPDATE deliveries SET state = 4, settled_ms = ?1, reason = ?2, due_ms = ?1
WHERE number = ?3 AND state = 1 AND (holder IS NULL OR due_ms <= ?1) RETURNING conversion_id, target
"""  # Not to be sent.


def look(db: apsw.Connection, targets: Sequence[int], now_ms: int, limit: int) -> Look:
    """See ``store.base.Store.look``."""
    due = {target for (target,) in db.execute(FIND_DUE, (_array(targets), now_ms))} if targets else set()
    events: list[Row] = db.execute(FIND_EVENTS, (limit,)).fetchall() if limit else []
    if not events:
        return Look((), (), due)
    clicks = sorted({event[2] for event in events})
    happened = assemble(
        events, db.execute(FIND_CONVERSIONS, (_array(clicks),)), db.execute(FIND_CLICKS, (_array(clicks),))
    )
    changed = sorted({event[3] for event in events if event[4]})
    told = [read_told(row) for row in db.execute(FIND_TOLD, (_array(changed),))] if changed else []
    return Look(happened, told, due)


def choose(db: apsw.Connection, turn: Turn) -> list[Row]:
    """What is due and there is room for, before the transaction: looking need not keep others from writing.

    What will be claimed as soon as it is owed takes its room first.
    """
    _, rooms = choose_fresh(turn)
    chosen: list[Row] = []
    for target, room in rooms.items():
        chosen += db.execute(FIND_CLAIMABLE, (target, turn.now_ms, room))
    return chosen


def take_turn(db: apsw.Connection, turn: Turn, chosen: Sequence[Row]) -> list[Delivery]:
    """See ``store.base.Store.take_turn``; ``chosen``: what may be claimed, if it still can be."""
    if turn.settled:
        _settle(db, turn.settled, turn.holder, turn.now_ms)
    claimed: list[Delivery] = []
    if turn.planned:
        done = {
            event for (event,) in db.execute(FINISH_EVENTS, (_array([one.event for one in turn.planned]),))
        }
        claimed = _add(db, turn, done)
    for state in turn.states:
        note_state(db, state)
    end_ms = turn.now_ms + turn.lease_ms
    rows = [(turn.holder, end_ms, row[0], turn.now_ms) for row in chosen]
    ours = {number for (number,) in db.executemany(CLAIM, rows)}
    due, unreadable = read_claimed(row for row in chosen if row[0] in ours)
    if unreadable:
        _settle(db, unreadable, turn.holder, turn.now_ms)
    return [*due, *claimed]


def _settle(db: apsw.Connection, settled: Sequence[Settled], holder: str, now_ms: int) -> None:
    db.executemany(
        SETTLE,
        [
            (
                one.state, one.due_ms, one.attempt is not None,
                None if one.state is DeliveryState.WAITING else now_ms, one.reason, one.delivery.number, holder,
            )
            for one in settled
        ],
    )  # fmt: skip
    db.executemany(
        ADD_ATTEMPT,
        [
            (
                one.delivery.number, one.attempt.attempt, one.attempt.at_ms, one.attempt.took_ms,
                one.attempt.http_status, one.attempt.excerpt, one.attempt.error,
            )
            for one in settled
            if one.attempt is not None
        ],
    )  # fmt: skip
    ended = [one.delivery for one in settled if one.state is not DeliveryState.WAITING]
    unblock(db, [(delivery.owed.conversion_id, delivery.owed.target) for delivery in ended], now_ms)


def unblock(db: apsw.Connection, ended: Sequence[tuple[int, int]], now_ms: int) -> None:
    """Let the next message go for each (conversion, target) of which one has ended."""
    db.executemany(UNBLOCK, [(now_ms, *key) for key in ended])


def _add(db: apsw.Connection, turn: Turn, done: Collection[int]) -> list[Delivery]:
    """Keep what is owed for events that are done with; returns what of it was claimed at once."""
    fresh, _ = choose_fresh(turn)
    places = [place for place, one in enumerate(turn.owed) if one.event in done]
    owed = [turn.owed[place] for place in places]
    changed = changed_conversions(owed)
    waiting: list[Row] = db.execute(FIND_WAITING, (_array(changed),)).fetchall() if changed else []
    due = due_times(owed, [(row[0], row[1]) for row in waiting])
    rows = []
    for place, one, due_ms in zip(places, owed, due, strict=True):
        row = owed_row(one)
        row[15] = turn.now_ms + turn.lease_ms if place in fresh else due_ms
        state, settled_ms = (DeliveryState.DEAD, turn.now_ms) if one.dead else (DeliveryState.WAITING, None)
        rows.append((*row, state, settled_ms, one.dead, turn.holder if place in fresh else None))
    numbers = [number for (number,) in db.executemany(ADD_DELIVERY, rows)]
    return [
        Delivery(number, one, 0, told=False, outdated=False)
        for place, number, one in zip(places, numbers, owed, strict=True)
        if place in fresh
    ]


def note_state(db: apsw.Connection, state: TargetState) -> None:
    """Keep how a target is served."""
    if state.state:
        row = (state.target, state.state, state.since_ms, state.until_ms, state.reason, state.unless_paused)
        db.execute(NOTE_STATE, row)
    else:
        db.execute(FORGET_STATE, (state.target, state.unless_paused))


def release(db: apsw.Connection, holder: str | None) -> int:
    """See ``store.base.Store.release``."""
    before = db.total_changes()
    db.execute(RELEASE, (holder,))
    return db.total_changes() - before


def resend(db: apsw.Connection, numbers: Sequence[int], now_ms: int) -> int:
    """See ``store.base.Store.resend``."""
    before = db.total_changes()
    for number in numbers:
        db.execute(SEND_AGAIN, (now_ms, number))
        db.execute(SEND_NOW, (now_ms, number))
    return db.total_changes() - before


def cancel(db: apsw.Connection, numbers: Sequence[int], now_ms: int, reason: str) -> int:
    """See ``store.base.Store.cancel``."""
    ended = [key for number in numbers for key in db.execute(CANCEL, (now_ms, reason, number))]
    unblock(db, ended, now_ms)
    return len(ended)


def _array(numbers: Sequence[int]) -> object:
    return apsw.carray(array("q", numbers))
