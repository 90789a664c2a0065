"""Hysteresis, rhythms, rates and words, each with plain numbers."""

from __future__ import annotations

import re
from math import comb

import pytest

from postbackd.core.alarm_counts import Counts
from postbackd.core.alarm_networks import check_networks
from postbackd.core.alarm_notices import (
    GIVE_UP_MS,
    GIVEN_UP,
    SENT,
    WAITING,
    Answer,
    Notice,
    describe,
    settle,
    write_body,
    write_mail,
)  # fmt: skip
from postbackd.core.alarm_rates import MATCH_LINE, chance_below, check_match_rate
from postbackd.core.alarm_troubles import (
    Backups,
    Certificate,
    Disk,
    MachineFacts,
    TargetFacts,
    check_machine,
    check_target,
)  # fmt: skip
from postbackd.core.alarm_words import Memory
from postbackd.core.alarms import (
    DAY_MS,
    PATIENCE,
    TITLES,
    Alarm,
    Board,
    Judgement,
    Key,
    Kind,
    Quiet,
    Said,
    Scope,
    Sighting,
)  # fmt: skip
from postbackd.core.certificates import Term
from postbackd.core.moments import write_moment
from postbackd.core.rhythm import HOUR_MS, HourCount, learn, learn_with_gaps
from postbackd.core.rollups import HEALTHY_MATCH_RATE

KEY = Key(Kind.MATCH_RATE, Scope.NETWORK, 1)
NOW = 1_750_000_000_000
MINUTE = 60_000


def sight(judgement: Judgement, key: Key = KEY) -> Sighting:
    return Sighting(key, judgement, "seen", "normal", "todo", urgent=True)


BAD, GOOD, UNCLEAR = (sight(judgement) for judgement in (Judgement.BAD, Judgement.GOOD, Judgement.UNCLEAR))


class Played:
    """A board that is shown one sighting after the other."""

    def __init__(self) -> None:
        self.board = Board()
        self.now = NOW

    def see(self, sighting: Sighting, after_ms: int = MINUTE, *quiets: Quiet) -> str:
        """What is told, if anything is."""
        self.now += after_ms
        changes = self.board.decide([sighting], quiets, self.now)
        self.board.keep(change.alarm for change in changes)
        return "".join(str(change.tell) for change in changes if change.tell)


def quiet(until_ms: int = 0) -> Quiet:
    return Quiet(*KEY, until_ms, "ann", "known", NOW)


# --- hysteresis --------------------------------------------------------------------------------------------------


def test_bad_has_to_persist_and_good_has_to_last() -> None:
    played, patience = Played(), PATIENCE[KEY.kind]
    assert played.see(BAD) == ""
    assert played.see(GOOD) == ""
    assert played.see(BAD) == ""
    assert played.see(BAD, patience.raise_ms - 1) == ""
    assert played.see(UNCLEAR, 1) == ""
    assert played.see(BAD) == "raised"
    assert [played.see(one) for one in (BAD, GOOD, UNCLEAR, BAD, GOOD)] == [""] * 5
    assert played.see(GOOD, patience.clear_ms - 1) == ""
    assert played.see(GOOD, 1) == "cleared"
    assert played.board.lasting == {}


def test_what_changes_every_minute_is_told_once_and_then_once_a_day() -> None:
    played = Played()
    assert not any(played.see(BAD if minute % 3 else GOOD) for minute in range(600))
    told = [played.see(BAD) for _ in range(15)]
    told += [played.see(BAD if minute % 3 else GOOD) for minute in range(3 * 24 * 60)]
    assert [one for one in told if one] == ["raised", "reminder", "reminder", "reminder"]


def test_quiet_says_nothing_and_speaks_up_when_it_ends_before_the_alarm() -> None:
    played = Played()
    until = NOW + 3 * 3_600_000
    assert {played.see(BAD, MINUTE, quiet(until)) for _ in range(60)} == {""}
    assert played.see(BAD, 3 * 3_600_000, quiet(until)) == "raised"
    assert played.see(GOOD, MINUTE, quiet()) == ""
    assert played.see(GOOD, DAY_MS, quiet()) == ""
    assert played.board.lasting == {}


def test_an_alarm_that_nobody_was_told_of_ends_without_a_word() -> None:
    played = Played()
    for _ in range(20):
        played.see(BAD, MINUTE, quiet())
    assert played.see(GOOD) == ""
    assert played.see(GOOD, DAY_MS) == ""


def test_what_cannot_be_told_any_more_ends_after_some_days() -> None:
    played = Played()
    played.see(BAD)
    assert played.see(BAD, DAY_MS) == "raised"
    assert played.see(UNCLEAR) == ""
    assert played.see(UNCLEAR, 2 * DAY_MS) == ""
    assert played.see(UNCLEAR, DAY_MS) == "cleared"


def test_every_kind_has_its_words_and_its_patience() -> None:
    assert set(TITLES) == set(PATIENCE) == set(Kind)
    assert MATCH_LINE == HEALTHY_MATCH_RATE


# --- rhythm ------------------------------------------------------------------------------------------------------

MONDAY = 480_020 // 168 * 168 + 96
"""An hour: the beginning of a Monday, in hours since 1970 (which began on a Thursday)."""


def office_hours(per_hour: int, weeks: int = 8) -> dict[int, int]:
    """Nine to five, Monday to Friday."""
    return {
        MONDAY - 168 * weeks + hour: per_hour
        for hour in range(168 * weeks)
        if hour // 24 % 7 < 5 and 9 <= hour % 24 < 17
    }


def test_a_rhythm_knows_nights_and_weekends() -> None:
    rhythm = learn(office_hours(50), MONDAY - 168 * 8, MONDAY)
    at = MONDAY * HOUR_MS
    assert rhythm.expected(at + 10 * HOUR_MS, at + 11 * HOUR_MS) == pytest.approx(50, rel=0.1)
    assert rhythm.expected(at + 18 * HOUR_MS, at + 32 * HOUR_MS) < 3
    weekend = rhythm.expected(at - 48 * HOUR_MS, at)
    assert weekend < rhythm.line
    assert rhythm.expected(at, at + 168 * HOUR_MS) == pytest.approx(8 * 50 * 5, rel=0.1)
    assert rhythm.expected(at + 90_000, at + 90_000) == 0


def test_a_network_of_three_a_day_is_not_silent_after_a_day_and_is_after_a_week() -> None:
    counts = {MONDAY - hour: 1 for hour in range(1, 56 * 24, 8)}
    rhythm = learn(counts, MONDAY - 56 * 24, MONDAY)
    at = MONDAY * HOUR_MS
    assert rhythm.is_known
    assert rhythm.expected(at, at + 24 * HOUR_MS) < rhythm.line < rhythm.expected(at, at + 7 * 24 * HOUR_MS)


def test_batches_draw_their_own_line() -> None:
    """A network that sends a week's postbacks on one day is no fault on the others."""
    hours = [
        HourCount(
            scope="network", subject=1, hour=MONDAY - 168 * week, postbacks=400, first_ms=1,
            last_ms=(MONDAY - 168 * week) * HOUR_MS + 1, gap_from_ms=(MONDAY - 168 * (week + 1)) * HOUR_MS,
            gap_until_ms=(MONDAY - 168 * week) * HOUR_MS,
        )
        for week in range(1, 8)
    ]  # fmt: skip
    rhythm = learn_with_gaps(hours, MONDAY - 168 * 8, MONDAY)
    assert rhythm.line > 1.3 * 400
    assert rhythm.expected((MONDAY - 168) * HOUR_MS, MONDAY * HOUR_MS) < rhythm.line


def test_too_little_is_no_rhythm() -> None:
    assert not learn({MONDAY - 1: 500}, MONDAY - 24, MONDAY).is_known
    assert not learn({MONDAY - 1: 10}, MONDAY - 1000, MONDAY).is_known
    assert not learn({}, MONDAY - 1000, MONDAY).is_known


# --- silence, all together ---------------------------------------------------------------------------------------


def counts_of(*networks: int, clicks: int = 900, until: int = MONDAY + 14) -> Counts:
    """Networks that sent every hour up to an hour; visitors came up to ``MONDAY + 24``."""
    made = []
    for network in networks:
        for hour in range(MONDAY - 168 * 6, MONDAY + 24):
            sent = 30 if hour < until else 0
            made.append(
                HourCount(
                    scope="network", subject=network, hour=hour, clicks=clicks if hour <= MONDAY + 24 else 0,
                    postbacks=sent, carried=sent, matched=sent, first_ms=hour * HOUR_MS if sent else 0,
                    last_ms=(hour + 1) * HOUR_MS - 1 if sent else 0,
                )
            )  # fmt: skip
    return Counts(made)


def silent(counts: Counts, networks: int, now_ms: int) -> dict[tuple[Scope, int], Judgement]:
    found = check_networks(counts, Memory(), range(1, networks + 1), {}, {}, (), now_ms)
    return {(one.key.scope, one.key.subject): one.judgement for one in found if one.key.kind is Kind.SILENCE}


def test_one_network_that_stops_is_silent_and_all_at_once_are_one_alarm() -> None:
    now = (MONDAY + 16) * HOUR_MS
    one = silent(counts_of(1), 1, now)
    assert one == {(Scope.NETWORK, 1): Judgement.BAD, (Scope.SERVER, 0): Judgement.GOOD}
    three = silent(counts_of(1, 2, 3), 3, now)
    assert three.pop((Scope.SERVER, 0)) is Judgement.BAD
    assert set(three.values()) == {Judgement.UNCLEAR}


def test_a_network_whose_visitors_stay_away_is_not_silent() -> None:
    counts = counts_of(1)
    later = (MONDAY + 60) * HOUR_MS  # nobody was sent there for a day and a half
    assert silent(counts, 1, later)[Scope.NETWORK, 1] is Judgement.UNCLEAR


# --- rates -------------------------------------------------------------------------------------------------------


def test_the_chance_is_that_of_the_binomial_distribution() -> None:
    for successes, tries, rate in ((0, 5, 0.9), (3, 10, 0.9), (9, 10, 0.9), (170, 200, 0.9), (0, 3, 0.2)):
        exact = sum(comb(tries, k) * rate**k * (1 - rate) ** (tries - k) for k in range(successes + 1))
        assert chance_below(successes, tries, rate) == pytest.approx(exact, rel=1e-6)
    assert chance_below(5, 5, 0.9) == 1.0
    assert chance_below(850, 1000, 0.9) == pytest.approx(2.8e-7, rel=0.7)


def match(*by_hour: tuple[int, int, int]) -> Judgement:
    """``(hours ago, carried, matched)``."""
    hour = MONDAY
    counts = {
        hour - ago: HourCount(
            scope="network", subject=1, hour=hour - ago, postbacks=n, carried=n, matched=matched
        )
        for ago, n, matched in by_hour
    }
    return check_match_rate(Scope.NETWORK, 1, "n", counts, hour * HOUR_MS + 1).judgement


def test_a_match_rate_needs_enough_postbacks_to_mean_anything() -> None:
    assert match((0, 3, 0)) is Judgement.UNCLEAR
    assert match((0, 8, 0)) is Judgement.BAD
    assert match((0, 50, 42)) is Judgement.UNCLEAR
    assert match((0, 5000, 4200)) is Judgement.BAD
    assert match((0, 100, 95)) is Judgement.GOOD
    assert match((150, 20, 0)) is Judgement.BAD
    assert match() is Judgement.UNCLEAR


def test_a_match_rate_that_was_mended_is_not_bad_and_one_that_has_just_broken_is_not_good() -> None:
    assert match((0, 12, 12), (20, 100, 0)) is not Judgement.BAD
    assert match((0, 200, 198), (20, 1000, 0)) is Judgement.GOOD
    assert match((0, 4, 0), (20, 1000, 990)) is Judgement.UNCLEAR


# --- words -------------------------------------------------------------------------------------------------------


def new(memory: Memory, kind: Kind, now: int, *lasting: Key) -> str:
    """What is seen, when it is bad."""
    (found,) = [one for one in memory.check(1, "net", lasting, now) if one.key.kind is kind]
    return found.seen if found.judgement is Judgement.BAD else ""


def test_more_parameters_than_ever_are_a_new_one() -> None:
    memory = Memory()
    for number in (3, 5, 6):
        memory.meet(Kind.PARAMETER, 1, str(number), NOW, 100, is_usual=True)
    memory.meet(Kind.PARAMETER, 1, "4", NOW + DAY_MS, 1)
    assert new(memory, Kind.PARAMETER, NOW + DAY_MS) == ""
    memory.meet(Kind.PARAMETER, 1, "7", NOW + 2 * DAY_MS, 2)
    assert "with 7 parameters (2 times)" in new(memory, Kind.PARAMETER, NOW + 2 * DAY_MS)
    key = Key(Kind.PARAMETER, Scope.NETWORK, 1)
    memory.meet(Kind.PARAMETER, 1, "7", NOW + 4 * DAY_MS, 2)
    assert new(memory, Kind.PARAMETER, NOW + 4 * DAY_MS) == ""
    assert new(memory, Kind.PARAMETER, NOW + 4 * DAY_MS, key) != ""


def test_a_new_parameter_is_named_and_usual_after_a_week() -> None:
    memory, key = Memory(), Key(Kind.PARAMETER, Scope.NETWORK, 1)
    memory.meet(Kind.PARAMETER, 1, "zone", NOW, 1, is_usual=True)
    memory.meet(Kind.PARAMETER, 1, "6", NOW, 100, is_usual=True)
    assert new(memory, Kind.PARAMETER, NOW) == ""
    memory.meet(Kind.PARAMETER, 1, "aff_sub5", NOW + DAY_MS, 1)
    memory.meet(Kind.PARAMETER, 1, "7", NOW + DAY_MS, 40)
    seen = new(memory, Kind.PARAMETER, NOW + DAY_MS)
    assert (
        seen
        == f"net sends a new parameter: aff_sub5 since {write_moment(NOW + DAY_MS)[:16].replace('T', ' ')} UTC"
    )
    memory.meet(Kind.PARAMETER, 1, "adv2", NOW + 5 * DAY_MS, 1)
    memory.meet(Kind.PARAMETER, 1, "aff_sub5", NOW + 5 * DAY_MS, 1)
    assert "adv2 since" in new(memory, Kind.PARAMETER, NOW + 5 * DAY_MS, key)
    memory.meet(Kind.PARAMETER, 1, "aff_sub5", NOW + 13 * DAY_MS, 1)
    assert new(memory, Kind.PARAMETER, NOW + 13 * DAY_MS, key) == ""


def test_a_word_is_new_again_after_a_month() -> None:
    memory = Memory()
    memory.meet(Kind.STATUS, 1, "paid", NOW, 1)
    assert "paid (1 times)" in new(memory, Kind.STATUS, NOW)
    memory.meet(Kind.STATUS, 1, "paid", NOW + 20 * DAY_MS, 1)
    assert new(memory, Kind.STATUS, NOW + 20 * DAY_MS) == ""
    memory = Memory(memory.take_changed())
    memory.meet(Kind.STATUS, 1, "paid", NOW + 60 * DAY_MS, 1)
    assert new(memory, Kind.STATUS, NOW + 60 * DAY_MS) != ""


def test_a_sender_is_told_as_the_truncated_address_that_is_kept() -> None:
    memory = Memory()
    memory.meet(Kind.SENDER, 1, "203.0.113.0/24", NOW, 3)
    assert "203.0.113.0/24 (3 times)" in new(memory, Kind.SENDER, NOW)


# --- deliveries and the machine ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, ""),
        ({"state": "slowed", "since_ms": NOW - DAY_MS}, ""),
        ({"state": "broken", "since_ms": NOW - MINUTE}, ""),
        (
            {"state": "broken", "since_ms": NOW - 20 * MINUTE, "reason": "no route"},
            "broken for 20 minutes (no route)",
        ),
        ({"state": "paused", "since_ms": NOW - 2 * DAY_MS}, "paused for 48 hours"),
        (
            {"dead": 3, "dead_reason": "answered 400"},
            "3 deliveries were given up in the last day, answered 400",
        ),
        ({"overdue": 9, "overdue_ms": NOW - MINUTE}, ""),
        ({"overdue": 9, "overdue_ms": NOW - 30 * MINUTE}, "9 deliveries wait for 30 minutes"),
        ({"delivered": 900, "failed": 100}, "of the latest 1,000 deliveries 90% were taken"),
        ({"delivered": 9, "failed": 1}, ""),
    ],
)
def test_what_is_wrong_with_a_target_is_said(facts: dict[str, object], words: str) -> None:
    found = check_target(TargetFacts(id=1, name="t", **facts), NOW)  # type: ignore[arg-type]
    assert (found.judgement is Judgement.BAD) == bool(words)
    assert words in found.seen


GIB = 2**30
TERM = Term(("a.example",), NOW - 80 * DAY_MS, NOW + 10 * DAY_MS)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"disks": [Disk("the data", 50 * GIB, 100 * GIB)]}, ""),
        ({"disks": [Disk("the data", GIB // 4, 100 * GIB)]}, "0.2 of 100 GiB free"),
        ({"disks": [Disk("the data", 50 * GIB, 100 * GIB, 40 * GIB)]}, "fills up in 1.2 days"),
        ({"certificate": Certificate(TERM, ours=True, trouble="refused")}, "has 10 days left: refused"),
        ({"certificate": Certificate(Term(("a",), NOW, NOW + 90 * DAY_MS), ours=True)}, ""),
        ({"certificate": Certificate(Term(("a",), 0, NOW - 2 * DAY_MS), ours=False)}, "run out 48 hours ago"),
        ({"certificate": Certificate(None, ours=False, trouble="cannot read x")}, "there is no certificate"),
        ({"spool_bytes": 0}, ""),
        ({"spool_bytes": 5 * 2**20}, "5.0 MiB of requests"),
        ({"backups": Backups(24, NOW - 20 * HOUR_MS)}, ""),
        ({"backups": Backups(24, NOW - 40 * HOUR_MS)}, "40 hours old"),
        ({"backups": Backups(24, NOW - HOUR_MS, "disk full")}, "the last try failed: disk full"),
        ({"backups": Backups(24, None)}, "there is no backup"),
    ],
)
def test_what_is_wrong_with_the_machine_is_said(facts: dict[str, object], words: str) -> None:
    (found,) = check_machine(MachineFacts(**facts), NOW)  # type: ignore[arg-type]
    assert (found.judgement is Judgement.BAD) == bool(words)
    assert words in found.seen


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert list(check_machine(MachineFacts(), NOW)) == []


# --- notices -----------------------------------------------------------------------------------------------------


def an_alarm(seen: str = "x") -> Alarm:
    return Alarm(
        id=7, kind=Kind.SILENCE, scope=Scope.NETWORK, subject=3, urgent=True, seen=seen, normal="n", todo="t",
        raised_ms=NOW, bad_ms=NOW,
    )  # fmt: skip


def test_a_mail_has_one_line_of_subject_whatever_a_network_is_called() -> None:
    names = {("network", 3): "evil\r\nBcc: all@example.com\x00 \N{GREEK SMALL LETTER ALPHA}"}
    body = write_body(describe(an_alarm("one\r\ntwo"), names), Said.RAISED, NOW, "track.example")
    subject, text = write_mail(body)
    assert re.fullmatch(r"\[postbackd\] ALARM: evil Bcc: all@example.com α: no postbacks arrive", subject)
    assert "What was seen:  one  two\n" in text
    assert "postbackd alarm quiet 7" in text


def test_a_notice_is_tried_for_a_day_and_then_given_up() -> None:
    notice = Notice(id=1, alarm=7, place="email", said=Said.RAISED, body="{}", made_ms=NOW, due_ms=NOW)
    failed, now, tries = Answer(ok=False, detail="x" * 999), NOW, 0
    while notice.state == WAITING:
        notice, tries = settle(notice, failed, now), tries + 1
        now = notice.due_ms
    assert notice.state == GIVEN_UP
    assert now - NOW >= GIVE_UP_MS
    assert 10 < tries < 30
    assert len(notice.error) < 400
    assert settle(notice, Answer(ok=True, detail=""), now).state == SENT
    assert settle(notice, Answer(ok=False, detail="410", final=True), NOW).state == GIVEN_UP
