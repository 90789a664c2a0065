"""What becomes of a job, decided without any queue; the shop's side; and what is said when something is missing."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from postbackd_client import Conversion, Outcome, PayloadError
from postbackd_client.commands.work import open_source
from postbackd_client.payload import encode
from postbackd_client.queues import HandOver, HandOverStatistics, QueueError, RabbitQueue, RedisStream
from postbackd_client.queues.settling import ASIDE, LADDER_S, LATER, SETTLED, decide, pause_s, read
from postbackd_client.queues.work import Pace

TEXT = encode(Conversion("c", transaction_id="A-1", value="12.50"))


class Spool:
    """Stands for the client of a shop: remembers what it is given."""

    def __init__(self) -> None:
        self.kept: list[Conversion] = []
        self.refused: list[tuple[str, dict[str, Any]]] = []

    def conversion(self, click_id: str, **fields: Any) -> None:
        self.refused.append((click_id, fields))

    def report(self, conversion: Conversion) -> bool:
        self.kept.append(conversion)
        return True


# --- what an outcome means --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["accepted", "duplicate", "updated", "held", "unmatched", "rejected", "delivered"]
)
def test_what_the_tracker_has_judged_is_settled(kind: str) -> None:
    assert decide(Outcome(kind, 200), 0, 0.0, 0.5).kind == SETTLED


def test_what_the_tracker_refuses_is_put_aside_because_it_has_no_record_of_it() -> None:
    step = decide(Outcome("refused", 404, reason="the tracker answered 404"), 0, 0.0, 0.5)
    assert (step.kind, "404" in step.reason, "URL" in step.reason) == (ASIDE, True, True)


def test_what_was_not_answered_comes_later_and_later_and_is_put_aside_after_a_week() -> None:
    silent = Outcome("retry", reason="no answer")
    steps = [decide(silent, tries, 0.0, 0.5) for tries in range(8)]
    assert {step.kind for step in steps} == {LATER}
    assert [step.wait_s for step in steps] == [*LADDER_S, LADDER_S[-1], LADDER_S[-1]]
    assert decide(silent, 99, 6.9 * 86_400, 0.5).kind == LATER
    assert decide(silent, 99, 7.1 * 86_400, 0.5).kind == ASIDE


def test_a_pause_is_spread_and_never_shorter_than_the_tracker_asks() -> None:
    assert (pause_s(0, 0.0), pause_s(0, 1.0)) == (LADDER_S[0] * 0.75, LADDER_S[0] * 1.25)
    assert pause_s(0, 0.5, 90.0) == 90.0
    assert pause_s(5, 0.5, 90.0) == LADDER_S[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "no JSON"),
        ('{"transaction_id":"A"}', "click_id"),
        ('{"click_id":"c"}', "another sale"),
        ('{"click_id":"c","transaction_id":""}', "another sale"),
        ('{"click_id":"c","transaction_id":"A","type":"\\ud800"}', "UTF-8"),
        ('{"click_id":"c","transaction_id":"A","\\ud800":"x"}', "UTF-8"),
        (f'{{"transaction_id":{"9" * 5000},"click_id":"c","transaction_id":""}}', "another sale"),
        (b'{"click_id":"\xff","transaction_id":"A"}'.decode("utf-8", "surrogateescape"), "UTF-8"),
    ],
)
def test_a_text_that_cannot_be_sent_twice_as_the_same_is_no_job(text: str, words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        read(text)


def test_a_text_with_its_transaction_is_a_job() -> None:
    assert read(TEXT).transaction_id == "A-1"


def test_workers_rest_while_the_tracker_is_away_and_go_on_when_it_answers() -> None:
    pace, silent = Pace(), Outcome("retry")
    rests, now = [], 0.0
    for _ in range(9):
        pace.note(silent, now, now)
        rests.append(pace.rest_s(now))
        now += rests[-1]
    assert rests == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    pace.note(Outcome("duplicate", 200), now, now)
    assert pace.rest_s(now) == 0.0
    pace.note(Outcome("retry", 429, retry_after_s=7.0), now, now)
    assert pace.rest_s(now + 1.0) == 6.0


def test_requests_that_were_under_way_together_make_one_rest_and_not_many() -> None:
    pace = Pace()
    for number in range(16):
        pace.note(Outcome("retry"), 0.0, 2.0 + number / 100)
    assert 0.0 < pace.rest_s(2.16) <= 1.0


# --- the shop's side --------------------------------------------------------------------------------------------


def test_a_callable_is_handed_the_text_of_a_conversion() -> None:
    taken: list[str] = []
    spool = Spool()
    orders = HandOver(taken.append, otherwise=spool)
    orders.conversion("c", value="12.50", transaction_id="A-1", time=1)
    assert taken == ['{"click_id":"c","type":"conversion","value":"12.50","transaction_id":"A-1","time":"1"}']
    assert (spool.kept, orders.statistics()) == ([], HandOverStatistics(1, 0))


def test_what_a_queue_does_not_take_is_kept_by_the_client_under_the_same_transaction(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: list[str] = []

    def publish(text: str) -> None:
        tried.append(text)
        raise OSError("the queue is away")

    spool = Spool()
    orders = HandOver(publish, otherwise=spool, rest_s=3600)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            orders.conversion("c", value="1", extra={"sub1": "x"})
    assert len(tried) == 1  # the others did not wait for its time-out
    assert "the queue is away" in caplog.text
    assert len({kept.transaction_id for kept in spool.kept}) == 3
    assert encode(spool.kept[0]) == tried[0]
    assert orders.statistics() == HandOverStatistics(0, 3)


def test_after_its_rest_a_queue_is_asked_again() -> None:
    taken: list[str] = []
    away = [True]

    def publish(text: str) -> None:
        if away[0]:
            raise OSError
        taken.append(text)

    spool = Spool()
    orders = HandOver(publish, otherwise=spool, rest_s=0.0)
    orders.conversion("c", transaction_id="A-1")
    away[0] = False
    orders.conversion("c", transaction_id="A-2")
    assert [kept.transaction_id for kept in spool.kept] == ["A-1"]
    assert [read(text).transaction_id for text in taken] == ["A-2"]


@pytest.mark.parametrize("fields", [{"value": 12.5}, {"valeu": "1"}])
def test_what_is_no_conversion_is_left_to_the_client_which_says_so(fields: dict[str, Any]) -> None:
    taken: list[str] = []
    spool = Spool()
    HandOver(taken.append, otherwise=spool).conversion("c", **fields)
    assert (taken, spool.kept, spool.refused) == ([], [], [("c", fields)])


# --- what is said -----------------------------------------------------------------------------------------------


def test_a_library_that_is_not_there_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "pika", None)
    with pytest.raises(QueueError, match="pip install redis"):
        RedisStream("redis://localhost/0")
    with pytest.raises(QueueError, match="pip install pika"):
        RabbitQueue("amqp://localhost/%2f")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("kafka://localhost/x", "kafka is no queue"),
        ("localhost", "--from redis://"),
        ("redis://localhost/0?stream=", "stream is empty"),
        ("redis://localhost/0?claim_after=soon", "claim_after=60"),
        ("redis://localhost:x/0", "no address of a Redis server"),
        ("amqp://localhost:x/y", "no address of RabbitMQ"),
    ],
)
def test_an_address_that_is_wrong_is_said_with_what_is_right(address: str, words: str) -> None:
    with pytest.raises(QueueError, match=words):
        open_source(address)()
