"""``postbackd-client work``: drains a queue.

    POSTBACK_URL=https://track.example.com/p/KEY postbackd-client work --from 'redis://localhost/0?stream=postbacks'

The tracker's URL and the queue's address may hold secrets, and others on the machine can read a command line: both can
be given in the environment instead.
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

from postbackd_client.client import Client
from postbackd_client.endpoint import EndpointError
from postbackd_client.queues.loading import QueueError
from postbackd_client.queues.rabbit import RabbitSource
from postbackd_client.queues.redis_stream import RedisSource
from postbackd_client.queues.settling import GIVE_UP_S
from postbackd_client.queues.sources import Source
from postbackd_client.queues.work import Plan, Worker

NAME = "work"
HELP = "drain a queue (a Redis stream, RabbitMQ) into the tracker"

_SOURCES = {
    "redis": RedisSource,
    "rediss": RedisSource,
    "unix": RedisSource,
    "amqp": RabbitSource,
    "amqps": RabbitSource,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    environment = os.environ
    parser.add_argument(
        "tracker",
        nargs="?",
        default=environment.get("POSTBACK_URL"),
        help="its URL or template [or POSTBACK_URL]; the secret that signs comes from POSTBACK_SECRET alone",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="QUEUE",
        default=environment.get("POSTBACK_QUEUE"),
        help="redis://HOST/0?stream=NAME (also rediss:, unix:; group=, claim_after=SECONDS), or "
        "amqp://USER:PASSWORD@HOST/VHOST?queue=NAME (also amqps:) [or POSTBACK_QUEUE]",
    )
    parser.add_argument("--threads", type=int, default=8, help="requests at the same time [8]")
    parser.add_argument(
        "--give-up-after",
        type=float,
        default=GIVE_UP_S / 86_400,
        metavar="DAYS",
        help="put a conversion aside after so many days of tries [7]",
    )
    parser.add_argument("--until-empty", action="store_true", help="end when nothing is waiting")
    parser.add_argument("--ca-file", help="certificates to trust instead of the system's")
    parser.add_argument("--allow-http", action="store_true", help="for a tracker on a network of your own")


def open_source(address: str) -> Callable[[], Source]:
    """What opens a source at an address.  Raises ``QueueError``."""
    scheme = urlsplit(address).scheme
    kind: Any = _SOURCES.get(scheme)
    if kind is None:
        raise QueueError(
            f"{scheme or 'this'} is no queue that is known: --from redis://… or amqp://…; "
            "Celery, RQ and Dramatiq have workers of their own"
        )
    return lambda: kind(address)


def run(arguments: argparse.Namespace) -> int:
    """Work until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it meets is said here in one line
    try:
        _check(arguments)
        client = Client(
            arguments.tracker,
            secret=os.environ.get("POSTBACK_SECRET", ""),
            ca_file=arguments.ca_file,
            allow_http=arguments.allow_http,
        )
        plan = Plan(arguments.threads, arguments.give_up_after * 86_400, arguments.until_empty)
        worker = Worker(open_source(arguments.source), client, plan, _say)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        worker.run(stop)
    except (QueueError, EndpointError) as error:
        print(f"postbackd-client work: {error}", file=sys.stderr)  # noqa: T201 - a command line prints
        return 1
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not arguments.tracker:
        raise QueueError("no tracker: give its URL, or set POSTBACK_URL")
    if not arguments.source:
        raise QueueError("no queue: give --from redis://… or amqp://…, or set POSTBACK_QUEUE")
    if not 1 <= arguments.threads <= 256:
        raise QueueError("--threads must be 1 to 256")
    if not arguments.give_up_after > 0:
        raise QueueError("--give-up-after must be more than 0 days")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command line prints


def main() -> int:
    """``python -m postbackd_client.queues.command``."""
    parser = argparse.ArgumentParser(prog="postbackd-client work", description=HELP)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
