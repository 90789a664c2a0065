"""Celery: a task for an app of yours, and the hand-over that calls it.

    client = Client("https://track.example.com/p/KEY", spool="/var/lib/shop/postbacks")
    report = celery_task(app, client)                      # in a module that the workers import
    orders = HandOver(CeleryQueue(report), otherwise=client)

The task is acknowledged late, so a worker that is killed loses nothing, and repeats by Celery's own ``retry``.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from postbackd_client.client import Client
from postbackd_client.queues.loading import load
from postbackd_client.queues.settling import LADDER_S, NotYet, deliver

LONGEST_WAIT_S = 1_800.0
"""With Redis as broker a task that waits longer than the visibility time-out (an hour) is given out a second time."""

MAX_TRIES = 7 * 86_400 // int(LONGEST_WAIT_S) + len(LADDER_S)
"""About a week; then the task fails, and is where the failed ones of your app are."""

_CONNECTIONS = 10
"""More callers than that at the same time wait for each other."""


def celery_task(app: Any, client: Client, *, name: str = "postbackd.report", **options: Any) -> Any:
    """Register the task under ``name``; ``options`` are Celery's, such as ``queue``."""

    def report(task: Any, text: str) -> str:
        try:
            return deliver(client, text, task.request.retries).kind
        except NotYet as error:
            raise task.retry(exc=error, countdown=min(error.wait_s, LONGEST_WAIT_S)) from error

    settings = {
        "acks_late": True,
        "reject_on_worker_lost": True,
        "max_retries": MAX_TRIES,
        "ignore_result": True,
        "shared": False,  # another app of the same process, with a tracker of its own, gets a task of its own
        **options,
    }
    return app.task(bind=True, name=name, **settings)(report)


class CeleryQueue:
    """A hand-over: sends the task once, over connections of its own, which do not wait for a broker that is away.

    Celery's own would go on trying for some seconds, while a buyer waits.
    """

    def __init__(self, task: Any, *, wait_s: float = 0.5, **options: Any) -> None:
        """``task``: what ``celery_task`` returned; ``options``: of ``apply_async``, such as ``queue``."""
        self._task = task
        self._wait_s = wait_s
        self._options = options
        self._lock = threading.Lock()
        self._pid = 0
        self._producers: Any = None

    def __call__(self, text: str) -> None:
        with self._pool().acquire(block=True, timeout=self._wait_s) as producer:
            self._task.apply_async((text,), producer=producer, retry=False, **self._options)

    def _pool(self) -> Any:
        with self._lock:
            if self._pid != os.getpid():  # a forked process must not write into its parent's connections
                self._producers = self._make_pool()
                self._pid = os.getpid()
            return self._producers

    def _make_pool(self) -> Any:
        app = self._task.app
        connection = app.connection_for_write(
            connect_timeout=self._wait_s,
            transport_options={
                "max_retries": 0,
                "socket_timeout": self._wait_s,  # of Redis
                "socket_connect_timeout": self._wait_s,
                "read_timeout": self._wait_s,  # of RabbitMQ
                "write_timeout": self._wait_s,
                "confirm_publish": True,  # else "sent" would mean "written to a socket"
            },
        )
        pool = load("kombu.pools").ProducerPool
        return pool(connection.Pool(_CONNECTIONS), limit=_CONNECTIONS, Producer=app.amqp.Producer)
