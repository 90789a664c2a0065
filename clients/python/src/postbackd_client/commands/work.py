"""``postbackd-client work``: drains a queue into the tracker, until SIGTERM or SIGINT.

export POSTBACKD_CLIENT_URL=https://track.example.com/p/KEY
postbackd-client work --from 'redis://localhost/0?stream=postbacks'
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from typing import Any, Callable
from urllib.parse import urlsplit

from postbackd_client.commands.options import add_tracker, make_client
from postbackd_client.queues.loading import QueueError
from postbackd_client.queues.rabbit import RabbitSource
from postbackd_client.queues.redis_stream import RedisSource
from postbackd_client.queues.settling import GIVE_UP_S
from postbackd_client.queues.sources import Source, SourceAway
from postbackd_client.queues.work import Plan, Worker

QUEUE_VARIABLE = "POSTBACKD_CLIENT_QUEUE"

_SOURCES = {
    "redis": RedisSource,
    "rediss": RedisSource,
    "unix": RedisSource,
    "amqp": RabbitSource,
    "amqps": RabbitSource,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tracker(parser)
    parser.add_argument(
        "--from",
        dest="queue",
        metavar="QUEUE",
        help="redis://HOST/0?stream=NAME (also rediss:, unix:; group=NAME, claim_after=SECONDS) or "
        "amqp://USER:PASSWORD@HOST/VHOST?queue=NAME (also amqps:); "
        f"or set {QUEUE_VARIABLE}, which others do not see",
    )
    parser.add_argument("--threads", type=int, default=8, help="requests at the same time (default: 8)")
    parser.add_argument(
        "--give-up-after",
        type=float,
        default=GIVE_UP_S / 86_400,
        metavar="DAYS",
        help="of tries; then a conversion is put aside (default: 7)",
    )
    parser.add_argument(
        "--again", action="store_true", help="first take back what was put aside, when its cause is mended"
    )
    parser.add_argument("--until-empty", action="store_true", help="end when nothing is waiting; for cron")


def open_source(address: str) -> Callable[[], Source]:
    """What opens a source at an address.  Raises ``QueueError``."""
    scheme = urlsplit(address).scheme
    kind: Any = _SOURCES.get(scheme)
    if kind is None:
        raise QueueError(
            f"{scheme or 'this'} is no queue that is known: give --from redis://… or amqp://…; "
            "Celery, RQ and Dramatiq have workers of their own"
        )
    return lambda: kind(address)


def run(arguments: argparse.Namespace) -> int:
    """0 when it was asked to stop, or nothing is waiting; 1 when the queue cannot be used."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it meets is said here in one line
    client = make_client(arguments)
    stop = threading.Event()

    def end(*_: object) -> None:
        stop.set()
        os.write(
            2, b"stopping: what is being sent is brought to its end\n"
        )  # a print may be under way already

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        plan = _plan(arguments)
        source = open_source(arguments.queue or os.environ.get(QUEUE_VARIABLE, ""))
        if arguments.again:
            _say(f"{_take_back(source):,} taken back")
        Worker(source, client, plan, _say).run(stop)
    except (QueueError, SourceAway) as error:
        print(f"postbackd-client work: {error}", file=sys.stderr)
        return 1
    finally:
        client.close(0)
    return 0


def _take_back(open_one: Callable[[], Source]) -> int:
    source = open_one()
    try:
        return source.take_back()
    finally:
        source.close()


def _plan(arguments: argparse.Namespace) -> Plan:
    if not 1 <= arguments.threads <= 256:
        raise QueueError("--threads must be 1 to 256")
    if not arguments.give_up_after > 0:
        raise QueueError("--give-up-after must be more than 0 days")
    return Plan(arguments.threads, arguments.give_up_after * 86_400, arguments.until_empty)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
