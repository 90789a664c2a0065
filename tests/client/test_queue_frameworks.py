"""Celery, RQ and Dramatiq on a real Redis server, each with its own worker: what is sent, repeated, and given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
import rq
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from dramatiq.brokers.redis import RedisBroker
from rq.job import Job
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

from postbackd_client import Client, Conversion
from postbackd_client.queues import HandOver, HandOverStatistics, NotCounted
from postbackd_client.queues.celery import CeleryQueue, celery_task
from postbackd_client.queues.dramatiq import DramatiqQueue, dramatiq_actor
from postbackd_client.queues.rq import RqQueue, work_off
from tests.client.answering import Answering, answering
from tests.client.brokers import RedisServer, need_redis, redis_server
from tests.trust.server import free_port, wait_until


class Spool:
    """Stands for the client of a shop: remembers what it is given."""

    def __init__(self) -> None:
        self.kept: list[Conversion] = []

    def conversion(self, click_id: str, **fields: Any) -> None:
        raise AssertionError(f"{fields} is no conversion")

    def report(self, conversion: Conversion) -> bool:
        self.kept.append(conversion)
        return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need_redis()
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def tracker() -> Iterator[Answering]:
    with answering() as running:
        yield running


@pytest.fixture
def client(tracker: Answering) -> Iterator[Client]:
    made = Client(tracker.url)
    yield made
    made.close()


def hand_over(publish: Callable[[str], Any], *transaction_ids: str) -> None:
    spool = Spool()
    orders = HandOver(publish, otherwise=spool)
    for transaction_id in transaction_ids:
        orders.conversion("c", transaction_id=transaction_id, value="12.50")
    assert (spool.kept, orders.statistics()) == ([], HandOverStatistics(len(transaction_ids), 0))


# --- Celery -----------------------------------------------------------------------------------------------------


def leave_logging_alone(**_: Any) -> None:
    """With somebody who says that he sets up logging, Celery's worker does not: it would change it for all tests."""


@pytest.fixture
def app(server: RedisServer) -> Iterator[Celery]:
    setup_logging.connect(leave_logging_alone)
    app = Celery("shop", broker=server.url, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
    yield app
    app.close()
    setup_logging.disconnect(leave_logging_alone)


def test_celery_sends_a_conversion_and_repeats_what_was_not_taken(
    app: Celery, client: Client, tracker: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postbackd_client.queues.settling.LADDER_S", (0,))
    report = celery_task(app, client)
    assert (report.acks_late, report.reject_on_worker_lost) == (True, True)
    tracker.give_way_after = 2
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
        hand_over(CeleryQueue(report), "A-1", "busy-1")
        wait_until(lambda: tracker.asked["busy-1"] == 3, 20, "the third try")
    assert tracker.asked == {"A-1": 1, "busy-1": 3}


def test_celery_fails_a_task_whose_conversion_is_refused_and_does_not_repeat_it(
    app: Celery, client: Client, tracker: Answering
) -> None:
    report = celery_task(app, client)
    with pytest.raises(NotCounted, match="404"):
        report.apply(('{"click_id":"c","transaction_id":"refused-1"}',), throw=True)
    with pytest.raises(NotCounted, match="no conversion"):
        report.apply(("nonsense",), throw=True)
    assert tracker.asked == {"refused-1": 1}


# --- RQ ---------------------------------------------------------------------------------------------------------

CLIENTS: dict[str, Client] = {}
"""Of the job below, which RQ finds by its name, as a shop's workers do."""


def report_of_a_shop(text: str) -> str:
    return work_off(CLIENTS["shop"], text)


def job_of(queue: rq.Queue, job_id: str) -> Job:
    job = queue.fetch_job(job_id)
    assert job is not None
    return job


def test_rq_sends_a_conversion_schedules_what_was_not_taken_and_keeps_what_is_refused(
    server: RedisServer, client: Client, tracker: Answering
) -> None:
    CLIENTS["shop"] = client
    with redis.Redis.from_url(server.url) as connection:
        queue = rq.Queue("postbacks", connection=connection)
        hand_over(RqQueue(queue, report_of_a_shop), "A-1", "busy-1", "refused-1")
        rq.SimpleWorker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")
        assert tracker.asked == {"A-1": 1, "busy-1": 1, "refused-1": 1}
        scheduled: Any = ScheduledJobRegistry(queue=queue)  # type: ignore[no-untyped-call]
        (later,) = scheduled.get_job_ids()
        (failed,) = FailedJobRegistry(queue=queue).get_job_ids()
        assert "refused-1" in job_of(queue, failed).args[0]
        tracker.busy = False
        scheduled.remove(later)
        queue.enqueue_job(job_of(queue, later))  # its time has come
        rq.SimpleWorker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")
    assert tracker.asked["busy-1"] == 2


# --- Dramatiq ---------------------------------------------------------------------------------------------------


def test_dramatiq_sends_a_conversion_repeats_what_was_not_taken_and_keeps_what_is_refused(
    server: RedisServer, client: Client, tracker: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postbackd_client.queues.settling.LADDER_S", (0,))
    tracker.give_way_after = 2
    broker = RedisBroker(url=server.url)  # type: ignore[no-untyped-call]
    report = dramatiq_actor(broker, client, queue="shop")
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=2)
    worker.start()
    try:
        hand_over(DramatiqQueue(report), "A-1", "busy-1", "refused-1")
        wait_until(lambda: tracker.asked["busy-1"] == 3, 20, "the third try")
        broker.join("shop", timeout=20_000)
    finally:
        worker.stop()
        broker.close()
    assert tracker.asked == {"A-1": 1, "busy-1": 3, "refused-1": 1}
    with server.client() as asked:
        assert asked.hlen("dramatiq:shop.XQ.msgs") == 1  # the dead-letter queue


# --- the broker is away -----------------------------------------------------------------------------------------


def test_with_the_broker_away_each_hand_over_leaves_the_conversion_to_the_client(
    tmp_path: Path, client: Client
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    app = Celery("shop", broker=nowhere, set_as_current=False)
    broker = RedisBroker(url=nowhere)  # type: ignore[no-untyped-call]
    connection = redis.Redis.from_url(nowhere, socket_connect_timeout=0.5, retry=None)
    ways: list[Callable[[str], Any]] = [
        CeleryQueue(celery_task(app, client)),
        RqQueue(rq.Queue("postbacks", connection=connection), report_of_a_shop),
        DramatiqQueue(dramatiq_actor(broker, client)),
    ]
    began = time.monotonic()
    for publish in ways:
        spool = Spool()
        orders = HandOver(publish, otherwise=spool)
        orders.conversion("c", transaction_id="A-1", value="1")
        assert orders.statistics() == HandOverStatistics(0, 1), publish
        assert [kept.transaction_id for kept in spool.kept] == ["A-1"]
    assert time.monotonic() - began < 4  # Celery alone would have tried for six seconds
    app.close()
    broker.close()
    connection.close()
