"""Celery: a task for an app of yours, and the hand-over that calls it.

    client = Client("https://track.example.com/p/KEY", spool="/var/lib/shop/postbacks")
    report = celery_task(app, client)                      # in a module that the workers import
    orders = HandOver(CeleryQueue(report), otherwise=client)

The task is acknowledged late, so a worker that is killed loses nothing, and repeats by Celery's own ``retry``.
"""

from __future__ import annotations

from typing import Any

from postbackd_client.client import Client
from postbackd_client.queues.settling import LADDER_S, NotYet, deliver

LONGEST_WAIT_S = 1_800.0
"""With Redis as broker a task that waits longer than the visibility time-out (an hour) is given out a second time."""

MAX_TRIES = 7 * 86_400 // int(LONGEST_WAIT_S) + len(LADDER_S)
"""About a week; then the task fails, and is where the failed ones of your app are."""


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
        **options,
    }
    return app.task(bind=True, name=name, **settings)(report)


class CeleryQueue:
    """A hand-over: sends the task once; a broker that is away is noticed by the caller, not waited for."""

    def __init__(self, task: Any, **options: Any) -> None:
        """``task``: what ``celery_task`` returned; ``options``: of ``apply_async``, such as ``queue``."""
        self._task = task
        self._options = options

    def __call__(self, text: str) -> None:
        self._task.apply_async((text,), retry=False, **self._options)
