"""When an alarm is raised, told, reminded of and cleared.

A check (``core.alarm_checks``, ``core.alarm_troubles``) says of one subject at one moment that it is bad, good, or that
it cannot be told: a ``Sighting``.  The ``Board`` makes alarms of sightings, so that nothing flaps: bad has to persist
before an alarm is raised, good before it is cleared, and in between nothing changes.  One notice says that it was
raised, one that it is over, and at most one a day that it lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
DAY_MS = 24 * _HOUR_MS

REMIND_MS = DAY_MS
"""At most so often somebody is told of an alarm that lasts."""

UNCLEAR_MS = 3 * DAY_MS
"""An alarm of which nothing can be told for so long is over: nobody would ever clear it."""


class Kind(StrEnum):
    """What an alarm is about.  The word is stored and sent."""

    SILENCE = "silence"
    MATCH_RATE = "match_rate"
    DUPLICATES = "duplicates"
    PARAMETER = "new_parameter"
    STATUS = "new_status"
    MACRO = "literal_macro"
    SENDER = "new_sender"
    DELIVERY = "delivery"
    CERTIFICATE = "certificate"
    DISK = "disk"
    SPOOL = "spool"
    BACKUP = "backup"


class Scope(StrEnum):
    """What the number of a subject is of.  The word is stored and sent."""

    NETWORK = "network"
    CAMPAIGN = "campaign"
    TARGET = "target"
    SERVER = "server"


TITLES: Mapping[Kind, str] = {
    Kind.SILENCE: "no postbacks arrive",
    Kind.MATCH_RATE: "the match rate is below the line",
    Kind.DUPLICATES: "far more duplicates than usual",
    Kind.PARAMETER: "a new parameter arrives",
    Kind.STATUS: "an unknown status word arrives",
    Kind.MACRO: "a macro arrives unfilled",
    Kind.SENDER: "postbacks from an address that is not on the list",
    Kind.DELIVERY: "deliveries fail",
    Kind.CERTIFICATE: "the certificate runs out",
    Kind.DISK: "the disk runs full",
    Kind.SPOOL: "requests wait in the spool",
    Kind.BACKUP: "there is no good backup",
}
"""Each kind in a few words."""


class Patience(NamedTuple):
    """How long bad has to persist before an alarm, and good before its end."""

    raise_ms: int
    clear_ms: int


PATIENCE: Mapping[Kind, Patience] = {
    # The check itself has waited for long enough; two looks in a row, because counts may come late.
    Kind.SILENCE: Patience(2 * _MINUTE_MS, 30 * _MINUTE_MS),
    # A network that sends an hour's postbacks at once makes a window look bad while only half of them are counted.
    Kind.MATCH_RATE: Patience(10 * _MINUTE_MS, 2 * _HOUR_MS),
    Kind.DUPLICATES: Patience(10 * _MINUTE_MS, 6 * _HOUR_MS),
    # Once is enough for what must never arrive; over when none has come for a day.
    Kind.PARAMETER: Patience(0, DAY_MS),
    Kind.STATUS: Patience(0, DAY_MS),
    Kind.MACRO: Patience(0, DAY_MS),
    Kind.SENDER: Patience(0, DAY_MS),
    # A target that is restarted is back within minutes, and the first tries again are that soon.
    Kind.DELIVERY: Patience(5 * _MINUTE_MS, 30 * _MINUTE_MS),
    Kind.CERTIFICATE: Patience(0, 10 * _MINUTE_MS),
    Kind.DISK: Patience(5 * _MINUTE_MS, _HOUR_MS),
    Kind.SPOOL: Patience(5 * _MINUTE_MS, 15 * _MINUTE_MS),
    Kind.BACKUP: Patience(5 * _MINUTE_MS, 10 * _MINUTE_MS),
}


class Key(NamedTuple):
    """What an alarm is about, and of whom: at most one alarm of each lasts."""

    kind: Kind
    scope: Scope
    subject: int
    """Its id in the catalog; 0 of the server."""


class Judgement(StrEnum):
    """What a check says."""

    BAD = "bad"
    GOOD = "good"
    UNCLEAR = "unclear"


class Sighting(Struct, frozen=True):
    """What one check saw at one moment."""

    key: Key
    judgement: Judgement
    seen: str = ""
    """What was seen, in a sentence; of a bad one, as the next two."""
    normal: str = ""
    """What is normal."""
    todo: str = ""
    """What to do."""
    urgent: bool = False
    """Conversions are being lost or not told, at this moment."""


class Alarm(Struct, frozen=True, kw_only=True):
    """An alarm, as it is stored."""

    id: int
    """0: it has none yet."""
    kind: Kind
    scope: Scope
    subject: int
    urgent: bool
    seen: str
    normal: str
    todo: str
    raised_ms: int
    bad_ms: int
    """When it was seen last."""
    good_ms: int = 0
    """Since when all is well again; 0: it is not."""
    told_ms: int = 0
    """When a notice said so last; 0: none has, because it was quiet."""
    ended_ms: int | None = None

    @property
    def key(self) -> Key:
        return Key(self.kind, self.scope, self.subject)

    @property
    def state(self) -> str:
        """What people see."""
        return "raised" if self.ended_ms is None else "ended"


class Quiet(Struct, frozen=True):
    """Somebody does not want to hear of it."""

    kind: Kind
    scope: Scope
    subject: int
    until_ms: int
    """0: until the alarm that lasts is over."""
    who: str
    why: str
    at_ms: int

    @property
    def key(self) -> Key:
        return Key(self.kind, self.scope, self.subject)

    def holds(self, now_ms: int) -> bool:
        return not self.until_ms or now_ms < self.until_ms


class Said(StrEnum):
    """What a notice says of its alarm."""

    RAISED = "raised"
    REMINDER = "reminder"
    CLEARED = "cleared"
    TEST = "test"


class Change(Struct, frozen=True):
    """An alarm that is new or has changed, and what has to be told of it."""

    alarm: Alarm
    tell: Said | None = None


class Board:
    """Every alarm that lasts.  ``decide`` changes nothing: ``keep`` does, when its changes have been stored."""

    def __init__(self, lasting: Iterable[Alarm] = ()) -> None:
        self._lasting = {alarm.key: alarm for alarm in lasting}
        self._bad_since: dict[Key, int] = {}
        self._clear_since: dict[Key, int] = {}
        """Since when nothing can be told of an alarm that lasts."""

    @property
    def lasting(self) -> Mapping[Key, Alarm]:
        return self._lasting

    def decide(self, sightings: Iterable[Sighting], quiets: Iterable[Quiet], now_ms: int) -> Sequence[Change]:
        """The changes that follow.  What lasts and was not sighted at all is unclear."""
        quiet = {one.key for one in quiets if one.holds(now_ms)}
        seen = {sighting.key: sighting for sighting in sightings}
        for key in self._lasting.keys() - seen.keys():
            seen[key] = Sighting(key, Judgement.UNCLEAR)
        for key in self._bad_since.keys() - seen.keys():
            del self._bad_since[key]
        changes = (self._decide_one(sighting, sighting.key in quiet, now_ms) for sighting in seen.values())
        return [change for change in changes if change is not None]

    def keep(self, alarms: Iterable[Alarm]) -> None:
        """These have been stored."""
        for alarm in alarms:
            self._bad_since.pop(alarm.key, None)
            if alarm.ended_ms is None:
                self._lasting[alarm.key] = alarm
            else:
                self._lasting.pop(alarm.key, None)
                self._clear_since.pop(alarm.key, None)

    def _decide_one(self, sighting: Sighting, is_quiet: bool, now_ms: int) -> Change | None:
        alarm = self._lasting.get(sighting.key)
        if alarm is None:
            return self._consider(sighting, is_quiet, now_ms)
        if sighting.judgement is Judgement.BAD:
            self._clear_since.pop(sighting.key, None)
            return _go_on(alarm, sighting, is_quiet, now_ms)
        if sighting.judgement is Judgement.GOOD:
            self._clear_since.pop(sighting.key, None)
            return _recover(alarm, is_quiet, now_ms)
        since_ms = self._clear_since.setdefault(sighting.key, now_ms)
        return _end(alarm, is_quiet, now_ms) if now_ms - since_ms >= UNCLEAR_MS else None

    def _consider(self, sighting: Sighting, is_quiet: bool, now_ms: int) -> Change | None:
        """Nothing lasts: raise an alarm when it has been bad for long enough."""
        if sighting.judgement is Judgement.GOOD:
            self._bad_since.pop(sighting.key, None)
        if sighting.judgement is not Judgement.BAD:
            return None
        since_ms = self._bad_since.setdefault(sighting.key, now_ms)
        if now_ms - since_ms < PATIENCE[sighting.key.kind].raise_ms:
            return None
        alarm = Alarm(
            id=0,
            **sighting.key._asdict(),
            urgent=sighting.urgent,
            seen=sighting.seen,
            normal=sighting.normal,
            todo=sighting.todo,
            raised_ms=now_ms,
            bad_ms=now_ms,
            told_ms=0 if is_quiet else now_ms,
        )
        return Change(alarm, None if is_quiet else Said.RAISED)


def _go_on(alarm: Alarm, sighting: Sighting, is_quiet: bool, now_ms: int) -> Change:
    """It lasts: keep what is seen now, and remind when the last notice is old."""
    tell = None
    if not is_quiet and now_ms - alarm.told_ms >= REMIND_MS:
        tell = Said.REMINDER if alarm.told_ms else Said.RAISED
    kept = replace(
        alarm,
        urgent=sighting.urgent,
        seen=sighting.seen,
        normal=sighting.normal,
        todo=sighting.todo,
        bad_ms=now_ms,
        good_ms=0,
        told_ms=now_ms if tell else alarm.told_ms,
    )
    return Change(kept, tell)


def _recover(alarm: Alarm, is_quiet: bool, now_ms: int) -> Change | None:
    """All is well: the alarm is over when that has lasted."""
    since_ms = alarm.good_ms or now_ms
    if now_ms - since_ms >= PATIENCE[alarm.kind].clear_ms:
        return _end(alarm, is_quiet, now_ms)
    return None if alarm.good_ms else Change(replace(alarm, good_ms=now_ms))


def _end(alarm: Alarm, is_quiet: bool, now_ms: int) -> Change:
    """Whoever was not told that it was raised need not be told that it is over."""
    tell = None if is_quiet or not alarm.told_ms else Said.CLEARED
    return Change(replace(alarm, ended_ms=now_ms), tell)
