"""RabbitMQ through pika: a durable queue, acknowledged after the outcome is settled.

    QUEUE            the jobs; made durable when it is missing, else used as it is (a quorum queue, for example)
    QUEUE.later.N    those that are given again after N seconds; workers look at its first message and hand it on
    QUEUE.dead       what was put aside, with the reason in a header

A job is acknowledged after the broker has confirmed its copy in another queue; killed in between, it is there twice,
under one transaction id.  The time-to-live and dead-lettering of RabbitMQ are not used for waiting: those of classic
queues may lose a message when the broker is killed, and those of quorum queues were seen (3.10.8) to keep one back for
good after it was.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Dict, List, Mapping, Optional

from postbackd_client.queues.loading import QueueError, load
from postbackd_client.queues.settling import LADDER_S
from postbackd_client.queues.sources import Job, SourceAway, split_options

OPTIONS = {"queue": "postbacks"}

_PREFETCH = 10
_TRIES, _SINCE, _DUE, _REASON = "postback-tries", "postback-since", "postback-due", "postback-reason"
_LOOK_AGAIN_S = 2.0
"""Between two looks of a thread at what was put off."""
_HEARTBEAT_S = 60
"""A thread of the worker rests for half of it at most, and says nothing on its connection meanwhile."""
_PERSISTENT = 2
_FORBIDDEN, _NOT_FOUND = 403, 404


def _parameters(url: str, pika: Any) -> Any:
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError) as error:
        raise QueueError(
            f"this is no address of RabbitMQ, such as amqp://user@host/vhost: {error}"
        ) from error
    parameters.heartbeat = _HEARTBEAT_S
    parameters.socket_timeout = 2
    parameters.stack_timeout = 3
    parameters.blocked_connection_timeout = 5
    return parameters


def _declare(connection: Any, pika: Any, queue: str) -> None:
    """Make the queue durable when it is missing; one that exists keeps its arguments."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != _NOT_FOUND:
            raise
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
    channel.close()


def _number(header: Any) -> float:
    """Of a header; 0 for what is none: other programs publish too, and theirs must not end the worker."""
    return float(header) if isinstance(header, int) else 0.0


class RabbitQueue:
    """A hand-over: publishes each text and waits for the broker's confirmation, at most ``wait_s``.

    May be shared by all threads of a process: one thread of its own owns the connection, because pika's serves one
    thread only.  A forked process opens another.
    """

    def __init__(self, url: str, queue: str = OPTIONS["queue"], *, wait_s: float = 0.5) -> None:
        self._pika = load("pika")
        self._parameters = _parameters(url, self._pika)
        self._queue = queue
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._pid = 0
        self._thread: Optional[ThreadPoolExecutor] = None
        self._channel: Any = None

    def __call__(self, text: str) -> None:
        """Raises what pika raises, and ``TimeoutError`` (of ``concurrent.futures``) when it takes too long."""
        taken: Future[None] = self._owner().submit(self._publish, text)
        try:
            taken.result(self._wait_s)
        except BaseException:
            taken.cancel()
            raise

    def _owner(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._thread is None or self._pid != os.getpid():
                self._pid, self._channel = os.getpid(), None
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="postbackd-client-rabbit")
            return self._thread

    def _publish(self, text: str) -> None:
        kept = self._channel is not None
        try:
            self._publish_on(self._channel or self._open(), text)
        except self._pika.exceptions.AMQPError as error:
            self._close()
            # The broker closes connections that have not spoken for a while.
            if not kept or isinstance(error, self._pika.exceptions.UnroutableError):
                raise
            self._publish_on(self._open(), text)

    def _open(self) -> Any:
        connection = self._pika.BlockingConnection(self._parameters)
        _declare(connection, self._pika, self._queue)
        self._channel = connection.channel()
        self._channel.confirm_delivery()
        return self._channel

    def _publish_on(self, channel: Any, text: str) -> None:
        properties = self._pika.BasicProperties(
            content_type="application/json", delivery_mode=_PERSISTENT, timestamp=int(time.time())
        )
        channel.basic_publish("", self._queue, text.encode("utf-8"), properties, mandatory=True)

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            thread.submit(self._close)
            thread.shutdown(wait=True)

    def _close(self) -> None:
        channel, self._channel = self._channel, None
        # Where it is away, there is nothing to close.
        with contextlib.suppress(self._pika.exceptions.AMQPError, OSError):
            if channel is not None and channel.connection.is_open:
                channel.connection.close()


class RabbitSource:
    """A source of jobs: one connection with one consumer."""

    def __init__(self, url: str) -> None:
        """Connects, and makes the queue when it is missing.  Raises ``QueueError``, ``SourceAway``."""
        self._pika = load("pika")
        address, options = split_options(url, OPTIONS)
        self._queue = options["queue"]
        self._later = {seconds: f"{self._queue}.later.{seconds}" for seconds in LADDER_S}
        self._dead = f"{self._queue}.dead"
        self._look_at = time.monotonic() + random.uniform(0, _LOOK_AGAIN_S)  # noqa: S311 - threads take turns
        self._connection: Any = None
        parameters = _parameters(address, self._pika)
        self._ask(self._open, parameters)

    def _open(self, parameters: Any) -> None:
        self._connection = self._pika.BlockingConnection(parameters)
        _declare(self._connection, self._pika, self._queue)
        self._channel = self._connection.channel()
        self._channel.basic_qos(prefetch_count=_PREFETCH)
        self._channel.confirm_delivery()
        for beside in (*self._later.values(), self._dead):
            self._channel.queue_declare(beside, durable=True)

    def _ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """Call the library; its errors become ours."""
        errors = self._pika.exceptions
        try:
            return call(*arguments, **options)
        except (errors.ProbableAuthenticationError, errors.ProbableAccessDeniedError) as error:
            raise QueueError(f"RabbitMQ refuses user, password or virtual host: {error!r}") from error
        except errors.ChannelClosedByBroker as error:
            if error.reply_code == _FORBIDDEN or "inequivalent" in str(error.reply_text):
                raise QueueError(f"RabbitMQ refuses: {error}") from error
            # A queue that is gone, an acknowledgement that came too late: a new connection begins anew.
            raise SourceAway(f"RabbitMQ closed the channel: {error}") from error
        except (errors.AMQPError, OSError) as error:
            raise SourceAway(f"RabbitMQ cannot be reached: {error!r}") from error

    def take(self, wait_s: float) -> List[Job]:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_AGAIN_S
            for queue in self._later.values():
                self._ask(self._give_again, queue)
        method, properties, body = self._ask(self._next, wait_s)
        if method is None:
            return []
        headers: Mapping[str, Any] = properties.headers or {}
        now = time.time()
        since = _number(headers.get(_SINCE)) or properties.timestamp or now
        return [
            Job(
                text=body.decode("utf-8", "surrogateescape"),
                handle=method.delivery_tag,
                tries=int(_number(headers.get(_TRIES))),
                age_s=max(0.0, now - float(since)),
            )
        ]

    def _next(self, wait_s: float) -> Any:
        return next(self._channel.consume(self._queue, inactivity_timeout=wait_s), (None, None, None))

    def _give_again(self, queue: str) -> None:
        """Hand on what is due: all in a queue wait equally long, so that the first one is due first."""
        while True:
            method, properties, body = self._channel.basic_get(queue)
            if method is None:
                return
            if _number((properties.headers or {}).get(_DUE)) > time.time():
                self._channel.basic_nack(method.delivery_tag, requeue=True)  # back to its place
                return
            self._hand_on(body, properties, self._queue)
            self._channel.basic_ack(method.delivery_tag)

    def _hand_on(self, body: bytes, properties: Any, queue: str) -> None:
        """Returns when the broker has confirmed it."""
        self._channel.basic_publish("", queue, body, properties, mandatory=True)

    def settle(self, job: Job) -> None:
        self._ask(self._channel.basic_ack, job.handle)

    def put_off(self, job: Job, wait_s: float) -> None:
        self._ask(self._put_off, job, wait_s)

    def _put_off(self, job: Job, wait_s: float) -> None:
        seconds = next((step for step in LADDER_S if step >= wait_s), LADDER_S[-1])
        now = time.time()
        headers = {_TRIES: job.tries + 1, _SINCE: int(now - job.age_s), _DUE: int(now + seconds)}
        self._move(job, self._later[seconds], headers)

    def put_aside(self, job: Job, reason: str) -> None:
        self._ask(self._move, job, self._dead, {_TRIES: job.tries + 1, _REASON: reason})

    def _move(self, job: Job, queue: str, headers: Dict[str, Any]) -> None:
        self._hand_on(job.text.encode("utf-8", "surrogateescape"), self._properties(headers), queue)
        self._channel.basic_ack(job.handle)

    def _properties(self, headers: Dict[str, Any]) -> Any:
        return self._pika.BasicProperties(
            content_type="application/json", delivery_mode=_PERSISTENT, headers=headers
        )

    def take_back(self) -> int:
        return int(self._ask(self._take_back))

    def _take_back(self) -> int:
        """As many as there are now: what is put aside meanwhile is for the next time."""
        count = self._count(self._dead)
        for done in range(count):
            method, _, body = self._channel.basic_get(self._dead)
            if method is None:
                return done
            self._hand_on(body, self._properties({}), self._queue)
            self._channel.basic_ack(method.delivery_tag)
        return count

    def depth(self) -> Mapping[str, int]:
        return {
            "waiting": self._ask(self._count, self._queue),
            "later": sum(self._ask(self._count, queue) for queue in self._later.values()),
            "aside": self._ask(self._count, self._dead),
        }

    def _count(self, queue: str) -> int:
        return int(self._channel.queue_declare(queue, passive=True).method.message_count)

    def close(self) -> None:
        # Where it is away, what was not acknowledged is the broker's.
        with contextlib.suppress(self._pika.exceptions.AMQPError, OSError):
            if self._connection is not None and self._connection.is_open:
                self._connection.close()
