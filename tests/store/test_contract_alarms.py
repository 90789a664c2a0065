"""What alarms keep in every store: leases, looks that are committed whole or not at all, notices, quiet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from postbackd.alarms.watch import LAG_MS, Watch
from postbackd.core.alarm_notices import SENT, Answer, Notice, settle
from postbackd.core.alarm_troubles import Backups, MachineFacts
from postbackd.core.alarm_words import Word
from postbackd.core.alarms import Alarm, Change, Key, Kind, Quiet, Said, Scope
from postbackd.core.rhythm import HourCount
from postbackd.reports.alarms import read_alarm, read_notice
from postbackd.store.base import Batch, FlowMinute
from postbackd.store.base_upkeep import AlarmStep
from postbackd.store.database import ConstraintViolated
from tests.store.contract import World

MINUTE_MS = 60_000
DAY_MS = 86_400_000
QUIET_MACHINE = MachineFacts()


def hold(world: World, holder: str = "a", for_ms: int = 180_000) -> bool:
    return world.run(world.store.hold_alarms(holder, world.now_ms, world.now_ms + for_ms))


def write(world: World, holder: str = "a", **more: Any) -> Sequence[int] | None:
    step = AlarmStep(holder=holder, now_ms=world.now_ms, counted_ms=world.now_ms, **more)
    return world.run(world.store.write_alarms(step))


def alarm(world: World, kind: Kind = Kind.SILENCE, subject: int = 7) -> Alarm:
    return Alarm(
        id=0, kind=kind, scope=Scope.NETWORK, subject=subject, urgent=True, seen="it's \"quiet\" ☂", normal="n",
        todo="t", raised_ms=world.now_ms, bad_ms=world.now_ms, told_ms=world.now_ms,
    )  # fmt: skip


def notice(world: World, place: str = "webhook") -> Notice:
    body = '{"type":"alarm.raised","data":{"id":0}}'
    return Notice(
        id=0, alarm=0, place=place, said=Said.RAISED, body=body, made_ms=world.now_ms, due_ms=world.now_ms
    )


def lasting(world: World) -> list[Alarm]:
    return [read_alarm(row) for row in world.query("alarms_lasting")]


# --- what the store promises -------------------------------------------------------------------------------------


def test_one_process_keeps_the_alarms_until_its_lease_ends_or_is_given_back(world: World) -> None:
    assert hold(world, "a")
    assert not hold(world, "b")
    assert hold(world, "a")
    assert write(world, "b") is None
    world.now_ms += 181_000
    assert hold(world, "b")
    assert write(world, "a") is None
    assert write(world, "b") == []
    assert world.run(world.store.hold_alarms("b", world.now_ms, 0))
    assert hold(world, "a")


def test_a_look_is_stored_whole_and_its_alarms_and_notices_get_ids_that_are_used_once(world: World) -> None:
    hold(world)
    hour = HourCount(scope="network", subject=7, hour=480_000, clicks=5, postbacks=3, last_ms=9)
    word = Word(kind=Kind.STATUS, network=7, word="paid'; --", first_ms=1, last_ms=2, count=3)
    changes = [Change(alarm(world), Said.RAISED), Change(alarm(world, Kind.MACRO))]
    notices = {0: [notice(world), notice(world, "email")]}
    ids = write(world, hours=[hour], words=[word], changes=changes, notices=notices)
    assert ids is not None
    assert write(world, hours=[replace(hour, clicks=9)], words=[replace(word, count=8)]) == []
    world.reopen()
    assert [HourCount(**row) for row in world.query("alarm_hours")] == [replace(hour, clicks=9)]
    assert [row["count"] for row in world.query("alarm_words")] == [8]
    assert world.query("alarms_counted") == [{"counted_ms": world.now_ms}]
    assert lasting(world) == [
        replace(alarm(world), id=ids[0]), replace(alarm(world, Kind.MACRO), id=ids[1])
    ]  # fmt: skip
    due = [read_notice(row) for row in world.query("alarm_notices_due")]
    assert [(one.alarm, one.place) for one in due] == [(ids[0], "webhook"), (ids[0], "email")]
    assert f'"id":{ids[0]}' in due[0].body
    assert len({*ids, *(one.id for one in due)}) == 4


def test_the_same_alarm_never_lasts_twice(world: World) -> None:
    hold(world)
    assert write(world, changes=[Change(alarm(world))])
    with pytest.raises(ConstraintViolated, match="alarm_lasts_once"):
        write(world, changes=[Change(alarm(world))])
    assert len(lasting(world)) == 1


def test_what_became_of_a_notice_is_kept(world: World) -> None:
    hold(world)
    write(world, changes=[Change(alarm(world))], notices={0: [notice(world)]})
    (waiting,) = [read_notice(row) for row in world.query("alarm_notices_due")]
    failed = settle(waiting, Answer(ok=False, detail="no route"), world.now_ms)
    world.run(world.store.settle_notices([failed]))
    assert [read_notice(row) for row in world.query("alarm_notices_due")] == [failed]
    assert failed.due_ms > world.now_ms
    world.run(world.store.settle_notices([settle(failed, Answer(ok=True, detail=""), world.now_ms)]))
    assert world.query("alarm_notices_due") == []
    (row,) = world.query("alarm_notices_of", number=waiting.alarm)
    assert (row["state"], row["attempts"], row["error"]) == (SENT, 2, "")


def test_quiet_is_for_a_time_or_until_the_alarm_is_over(world: World) -> None:
    hold(world)
    ids = write(world, changes=[Change(alarm(world)), Change(alarm(world, Kind.MACRO))])
    assert ids is not None
    timed = Quiet(Kind.SILENCE, Scope.NETWORK, 7, world.now_ms + 5, "ann", "holiday", world.now_ms)
    untimed = Quiet(Kind.MACRO, Scope.NETWORK, 7, 0, "bob", "known", world.now_ms)
    for quiet in (timed, untimed, replace(timed, why="a longer holiday")):
        world.run(world.store.quiet_alarm(quiet))
    assert {(row["kind"], row["why"]) for row in world.query("alarm_quiets")} == {
        ("silence", "a longer holiday"), ("literal_macro", "known")
    }  # fmt: skip
    ended = [replace(one, ended_ms=world.now_ms) for one in lasting(world)]
    write(world, changes=[Change(one) for one in ended])
    assert lasting(world) == []
    assert [row["kind"] for row in world.query("alarm_quiets")] == ["silence"]
    assert world.run(world.store.unquiet_alarm(Key(Kind.SILENCE, Scope.NETWORK, 7)))
    assert not world.run(world.store.unquiet_alarm(Key(Kind.SILENCE, Scope.NETWORK, 7)))


def test_what_is_old_is_forgotten_and_what_lasts_is_not(world: World) -> None:
    hold(world)
    hours = [
        HourCount(scope=scope, subject=1, hour=hour, postbacks=1)
        for scope in ("network", "campaign")
        for hour in (100, 200)
    ]
    words = [
        Word(kind=Kind.STATUS, network=1, word=w, first_ms=1, last_ms=at, count=1)
        for w, at in (("a", 5), ("b", 50))
    ]
    changes = [Change(replace(alarm(world), ended_ms=10)), Change(alarm(world))]
    write(world, hours=hours, words=words, changes=changes, notices={0: [notice(world)], 1: [notice(world)]})
    world.run(world.store.forget_alarms(100, 150, 20))
    assert {(row["scope"], row["hour"]) for row in world.query("alarm_hours")} == {
        ("network", 100), ("network", 200), ("campaign", 200)
    }  # fmt: skip
    assert [row["word"] for row in world.query("alarm_words")] == ["b"]
    assert [row["ended_ms"] for row in world.query("alarms")] == [None]
    assert len(world.query("alarm_notices_due")) == 1


# --- the watch over a real log -----------------------------------------------------------------------------------


class Keeping:
    """A watch over the world's store; its clock is the world's."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.watch = self.load()

    def load(self) -> Watch:
        hold(self.world, for_ms=1 << 40)
        return self.world.run(Watch.load(self.world.store, "a", ["webhook"], "here"))

    def look(self, after_ms: int = MINUTE_MS, machine: MachineFacts = QUIET_MACHINE) -> list[tuple[str, str]]:
        """(kind, what is told) of the alarms that changed and are told of."""
        self.world.now_ms += after_ms
        changes = self.world.run(self.watch.look(machine, self.world.now_ms))
        return [(str(change.alarm.kind), str(change.tell)) for change in changes if change.tell]


def test_a_first_word_or_macro_is_told_once_and_a_restart_forgets_nothing(world: World) -> None:
    click = world.click()
    world.send(click, "txid=1&status=blergh")
    world.send("{clickid}", "txid=2", network="hold")
    keeping = Keeping(world)
    assert sorted(keeping.look(2 * LAG_MS + MINUTE_MS)) == [
        ("literal_macro", "raised"),
        ("new_status", "raised"),
    ]
    assert keeping.look() == []
    world.reopen()
    keeping = Keeping(world)
    world.send(click, "txid=3&status=blergh")
    assert keeping.look() == []
    texts = {one.kind: one for one in lasting(world)}
    assert "blergh" in texts[Kind.STATUS].seen
    assert "{clickid}" in texts[Kind.MACRO].seen
    assert texts[Kind.MACRO].subject == world.networks["hold"].id
    # A day without any, and another to be sure: over.  The same word is no news after that.
    assert keeping.look(DAY_MS + MINUTE_MS) == []
    assert sorted(keeping.look(DAY_MS + MINUTE_MS)) == [
        ("literal_macro", "cleared"),
        ("new_status", "cleared"),
    ]
    world.send(click, "txid=4&status=blergh")
    assert keeping.look(2 * MINUTE_MS) == []
    world.send(click, "txid=5&status=another")
    assert keeping.look(2 * MINUTE_MS) == [("new_status", "raised")]


def test_a_new_parameter_is_named_once_it_is_known_what_came_before(world: World) -> None:
    def note(name: str) -> None:
        flow = FlowMinute(world.now_ms // MINUTE_MS, {}, {}, names=[(network, name)])
        world.run(world.store.write(Batch(flow=[flow]), world.rulebook))

    network = world.networks["ignore"].id
    begun = (
        "DELETE FROM settings WHERE name = 'unmapped_since_ms'; INSERT INTO settings (name, value) VALUES "
    )
    world.run(world.kind.execute(world.store, f"{begun} ('unmapped_since_ms', {world.now_ms})"))
    keeping = Keeping(world)
    click = world.click()
    for n in range(60):
        world.send(click, f"txid={n}")
    note("zone")
    assert keeping.look(2 * MINUTE_MS) == []
    world.now_ms += 6 * DAY_MS
    note("sub9")
    assert keeping.look(2 * MINUTE_MS) == []
    world.now_ms += 2 * DAY_MS
    note("zone")
    note("aff_sub5")
    assert keeping.look(2 * MINUTE_MS) == [("new_parameter", "raised")]
    (alarm,) = lasting(world)
    assert "aff_sub5 since 20" in alarm.seen
    assert not [name for name in ("zone", "sub9") if name in alarm.seen]


def test_a_match_rate_below_the_line_is_raised_once_for_the_network_and_not_for_its_campaigns(
    world: World,
) -> None:
    keeping = Keeping(world)
    for n in range(40):
        world.send("1" * 32, f"txid={n}")
    assert keeping.look(2 * MINUTE_MS) == []
    assert keeping.look(11 * MINUTE_MS) == [("match_rate", "raised")]
    (low,) = lasting(world)
    assert (low.scope, low.subject) == (Scope.NETWORK, world.networks["ignore"].id)
    assert "of 40 postbacks" in low.seen
    assert [row["said"] for row in world.query("alarm_notices_of", number=low.id)] == ["raised"]


def test_trouble_of_the_machine_persists_is_reminded_of_daily_and_clears(world: World) -> None:
    keeping = Keeping(world)
    none = MachineFacts(backups=Backups(24, None, "disk full"))
    assert keeping.look(machine=none) == []
    assert keeping.look(5 * MINUTE_MS, none) == [("backup", "raised")]
    assert [keeping.look(DAY_MS // 4, none) for _ in range(4)] == [[], [], [], [("backup", "reminder")]]
    good = MachineFacts(backups=Backups(24, world.now_ms))
    assert keeping.look(MINUTE_MS, good) == []
    assert keeping.look(MINUTE_MS, none) == []
    assert keeping.look(MINUTE_MS, good) == []
    assert keeping.look(11 * MINUTE_MS, good) == [("backup", "cleared")]


def test_an_old_log_is_counted_from_its_beginning(world: World) -> None:
    """A database that ran for weeks before anybody watched it has its rhythm at once."""
    began_ms = world.now_ms
    network = world.networks["ignore"].id
    for day in range(10):
        world.now_ms = began_ms + day * DAY_MS
        world.send(world.click(), f"txid={day}")
        world.send("nothing", "txid=x")
    world.now_ms += 2 * MINUTE_MS
    keeping = Keeping(world)
    keeping.look()
    rows = [row for row in world.query("alarm_hours") if row["scope"] == "network" and row["postbacks"]]
    assert len(rows) == 10
    assert sum(row["postbacks"] for row in rows) == 20
    assert sum(row["clicks"] for row in world.query("alarm_hours") if row["subject"] == network) == 10
    assert [row["gap_until_ms"] - row["gap_from_ms"] > DAY_MS - MINUTE_MS for row in rows] == [False] + [
        True
    ] * 9
    assert keeping.look() == []
    assert sum(row["postbacks"] for row in world.query("alarm_hours") if row["scope"] == "network") == 20
