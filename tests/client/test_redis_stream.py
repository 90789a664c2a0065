"""Conversions through a Redis stream: the real server, the real worker, and what both do when things go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from postbackd_client import Client, Conversion
from postbackd_client.payload import encode
from postbackd_client.queues import QueueError, RedisStream
from postbackd_client.queues.redis_stream import RedisSource
from postbackd_client.queues.sources import SourceAway
from postbackd_client.queues.work import Plan, Worker
from tests.client.answering import Answering, answering
from tests.client.brokers import RedisServer, need_redis, redis_server
from tests.client.recipes import ROOT
from tests.trust.server import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need_redis()
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def stream(server: RedisServer, request: pytest.FixtureRequest) -> str:
    """A stream of the test's own."""
    return f"postbacks-{request.node.name}"


@pytest.fixture
def tracker() -> Iterator[Answering]:
    with answering() as running:
        yield running


def source(server: RedisServer, stream: str, more: str = "") -> RedisSource:
    return RedisSource(f"{server.url}?stream={stream}{more}")


def hand_over(server: RedisServer, stream: str, *transaction_ids: str) -> None:
    publish = RedisStream(server.url, stream)
    for transaction_id in transaction_ids:
        publish(encode(Conversion("c", transaction_id=transaction_id, value="1")))


def work(server: RedisServer, stream: str, tracker: Answering, more: str = "") -> dict[str, int]:
    """Drain the stream until nothing is waiting; what became of the jobs."""
    plan = Plan(threads=2, until_empty=True)
    client = Client(tracker.url)
    worker = Worker(lambda: source(server, stream, more), client, plan, lambda line: None)
    worker.run(threading.Event())
    client.close()
    return worker.counts()


def start(server: RedisServer, stream: str, tracker: Answering, *options: str) -> subprocess.Popen[str]:
    """The worker as a process of its own."""
    command = [sys.executable, "-m", "postbackd_client.command_line", "work", *options]
    env = {"PYTHONPATH": str(ROOT / "clients" / "python" / "src"), "POSTBACKD_CLIENT_URL": tracker.url}
    env["POSTBACKD_CLIENT_QUEUE"] = f"{server.url}?stream={stream}"
    return subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True)


def depth(server: RedisServer, stream: str) -> tuple[int, int, int]:
    looking = source(server, stream)
    found = looking.depth()
    looking.close()
    return found["waiting"], found["later"], found["aside"]


def test_what_is_handed_over_is_sent_once_and_leaves_the_stream(
    server: RedisServer, stream: str, tracker: Answering
) -> None:
    hand_over(server, stream, *(f"A-{number}" for number in range(40)), "unmatched-1")
    assert work(server, stream, tracker) == {"accepted": 40, "unmatched": 1}
    assert set(tracker.asked.values()) == {1}
    assert depth(server, stream) == (0, 0, 0)


def test_a_job_written_by_another_program_may_be_fields_instead_of_a_text(
    server: RedisServer, stream: str, tracker: Answering
) -> None:
    with server.client() as client:
        client.xadd(stream, {"click_id": "c", "transaction_id": "native-1", "value": "2"})
    assert work(server, stream, tracker) == {"accepted": 1}
    assert tracker.asked == {"native-1": 1}


def test_a_busy_tracker_puts_a_job_off_and_others_are_not_held_up(
    server: RedisServer, stream: str, tracker: Answering
) -> None:
    hand_over(server, stream, "busy-1", "A-1", "A-2")
    assert work(server, stream, tracker) == {"later": 1, "accepted": 2}
    assert depth(server, stream) == (0, 1, 0)
    assert work(server, stream, tracker) == {}  # its time has not come
    tracker.busy = False
    with server.client() as client:
        (member,) = client.zrange(f"{{{stream}}}:later", 0, -1)
        client.zadd(f"{{{stream}}}:later", {member: 0})  # and now it has
    assert work(server, stream, tracker) == {"accepted": 1}
    assert tracker.asked["busy-1"] == 2
    assert depth(server, stream) == (0, 0, 0)


def test_a_job_knows_how_often_it_was_tried_and_since_when(server: RedisServer, stream: str) -> None:
    hand_over(server, stream, "A-1")
    mine = source(server, stream)
    (job,) = mine.take(1)
    mine.put_off(job, 0.0)
    (again,) = mine.take(1) or mine.take(1)
    assert (job.tries, again.tries, again.text) == (0, 1, job.text)
    assert again.age_s >= job.age_s
    mine.close()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"nonsense", "no JSON"),
        (b'{"click_id":"c"}', "transaction_id"),
        (b'{"click_id":"\xff","transaction_id":"A"}', "UTF-8"),
        (b'{"click_id":"c","transaction_id":"refused-1"}', "404"),
        (b'{"click_id":"c","transaction_id":"A","\\ud800":"x"}', "UTF-8"),
    ],
    ids=["no-json", "no-transaction", "no-utf-8", "refused", "no-utf-8-in-a-name"],
)
def test_what_can_never_be_counted_is_put_aside_whole_and_with_the_reason(
    server: RedisServer, stream: str, tracker: Answering, payload: bytes, reason: str
) -> None:
    with redis.Redis(port=server.port, protocol=2) as client:
        client.xadd(stream, {"payload": payload})
        assert work(server, stream, tracker) == {"aside": 1}
        ((_, fields),) = client.xrange(f"{{{stream}}}:dead")
    assert fields[b"payload"] == payload
    assert reason in fields[b"reason"].decode()


def test_bytes_that_are_no_text_are_given_back_whole_by_a_worker_that_stops(
    server: RedisServer, stream: str, tracker: Answering
) -> None:
    with redis.Redis(port=server.port, protocol=2) as client:
        client.xadd(stream, {"payload": b"\xff\xfe"})
        client.xadd(stream, {"payload": encode(Conversion("c", transaction_id="A-1")), "tries": "\u00b2"})
        stopped = source(server, stream)
        assert len(stopped.take(0.01)) == 2
        stopped.close()
        assert work(server, stream, tracker) == {"aside": 1, "accepted": 1}
        ((_, fields),) = client.xrange(f"{{{stream}}}:dead")
    assert fields[b"payload"] == b"\xff\xfe"


def test_what_was_put_aside_is_taken_back_when_its_cause_is_mended(
    server: RedisServer, stream: str, tracker: Answering
) -> None:
    hand_over(server, stream, *(f"refused-{number}" for number in range(120)))
    assert work(server, stream, tracker) == {"aside": 120}
    tracker.refusing = False
    again = start(server, stream, tracker, "--again", "--until-empty")
    _, said = again.communicate(timeout=20)
    assert (again.returncode, said.splitlines()[0]) == (0, "120 taken back")
    assert set(tracker.asked.values()) == {2}
    assert depth(server, stream) == (0, 0, 0)


def test_a_worker_that_is_killed_loses_nothing(server: RedisServer, stream: str, tracker: Answering) -> None:
    hand_over(server, stream, "slow-1")
    killed = start(server, stream, tracker)
    wait_until(lambda: tracker.asked["slow-1"] == 1, 20, "the first request")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=20)
    assert work(server, stream, tracker) == {}  # for claim_after seconds it is the dead worker's
    tracker.go_on.set()
    wait_until(lambda: work(server, stream, tracker, "&claim_after=0.1") == {"duplicate": 1}, 20, "the claim")
    assert depth(server, stream) == (0, 0, 0)


def test_a_worker_that_is_asked_to_stop_ends_its_request_and_gives_the_rest_back(
    server: RedisServer, stream: str, tracker: Answering
) -> None:
    hand_over(server, stream, "slow-1", "A-1", "A-2")
    asked = start(server, stream, tracker, "--threads", "1")
    wait_until(lambda: tracker.asked["slow-1"] == 1, 20, "the first request")
    asked.send_signal(signal.SIGTERM)
    assert asked.stderr is not None
    assert asked.stderr.readline().startswith("stopping")
    tracker.go_on.set()
    _, said = asked.communicate(timeout=20)
    assert asked.returncode == 0
    assert "1 accepted" in said
    assert work(server, stream, tracker) == {"accepted": 2}
    assert set(tracker.asked.values()) == {1}


def test_a_worker_waits_for_a_server_that_is_away_and_goes_on(tmp_path: Path, tracker: Answering) -> None:
    need_redis()
    own = RedisServer(tmp_path)
    worker = start(own, "postbacks", tracker)
    assert worker.stderr is not None
    assert "cannot be reached" in worker.stderr.readline()
    try:
        own.start()
        hand_over(own, "postbacks", "A-1")
        own.kill()
        own.start()
        hand_over(own, "postbacks", "A-2")
        wait_until(lambda: {"A-1", "A-2"} <= set(tracker.asked), 20, "both requests")
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
        assert worker.returncode == 0
    finally:
        worker.kill()
        own.kill()


def test_a_server_whose_memory_is_used_up_still_lets_jobs_be_settled(tmp_path: Path) -> None:
    need_redis()
    with redis_server(tmp_path) as own:
        hand_over(own, "postbacks", "A-1", "A-2", "A-3")
        mine = source(own, "postbacks")
        jobs = mine.take(1)
        with own.client() as client:
            client.config_set("maxmemory", "1000")
        with pytest.raises(redis.OutOfMemoryError):
            hand_over(own, "postbacks", "A-4")
        mine.settle(jobs[0])
        mine.put_off(jobs[1], 60.0)
        mine.put_aside(jobs[2], "a reason")
        mine.close()
        assert depth(own, "postbacks") == (0, 1, 1)


def test_a_stream_that_is_gone_is_waited_for_and_made_again(server: RedisServer, stream: str) -> None:
    mine = source(server, stream)
    with server.client() as client:
        client.delete(stream)
    with pytest.raises(SourceAway, match="NOGROUP"):
        mine.take(0.1)
    mine.close()
    assert depth(server, stream) == (0, 0, 0)


def test_a_key_that_is_no_stream_ends_the_worker_with_a_reason(
    server: RedisServer, stream: str, tracker: Answering
) -> None:
    with server.client() as client:
        client.set(stream, "something else")
    with pytest.raises(QueueError, match="WRONGTYPE"):
        work(server, stream, tracker)
    worker = start(server, stream, tracker)
    _, said = worker.communicate(timeout=20)
    assert (worker.returncode, said.count("\n")) == (1, 1)
    assert said.startswith("postbackd-client work: Redis refuses")
