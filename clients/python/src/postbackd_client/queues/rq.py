"""RQ: what the function of a job calls, and the hand-over that enqueues it.

    # jobs.py, which the workers import
    client = Client("https://track.example.com/p/KEY", spool="/var/lib/shop/postbacks")
    def report(text): return work_off(client, text)

    orders = HandOver(RqQueue(Queue("postbacks", connection=redis), report), otherwise=client)

Run the workers with ``rq worker --with-scheduler postbacks``: without a scheduler no job is tried again.  What is not
counted is in RQ's registry of failed jobs.
"""

from __future__ import annotations

from typing import Any, Callable

from postbackd_client.client import Client
from postbackd_client.queues.loading import load
from postbackd_client.queues.settling import LADDER_S, NotCounted, deliver

_HOURS = 7 * 24
INTERVALS_S = [*LADDER_S, *([LADDER_S[-1]] * _HOURS)]
"""About a week."""

_TIMEOUT_S = 60


def work_off(client: Client, text: str) -> str:
    """Send the conversion of a job: the whole body of the function that the workers run."""
    try:
        return deliver(client, text).kind
    except NotCounted:
        job = load("rq").get_current_job()
        if job is not None:
            job.retries_left = 0  # RQ tries every failed job again; this one is past help
        raise


class RqQueue:
    """A hand-over: enqueues a function with the text."""

    def __init__(self, queue: Any, function: Callable[[str], Any]) -> None:
        """``queue``: a ``rq.Queue``, whose connection's time-outs are how long a caller waits at most."""
        self._queue = queue
        self._function = function
        self._retry = load("rq").Retry

    def __call__(self, text: str) -> None:
        retry = self._retry(max=len(INTERVALS_S), interval=INTERVALS_S)
        self._queue.enqueue_call(
            self._function,
            args=(text,),
            retry=retry,
            timeout=_TIMEOUT_S,
            result_ttl=0,
            description="a postback",
        )
