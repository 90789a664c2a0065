"""Hands conversions over to a queue that is there already, and drains it again.

What goes through a queue is the text of ``payload.encode`` and nothing else, so any language can write one.  On the
side of the shop a *hand-over* is a callable that takes such a text and raises when the queue did not take it;
``HandOver`` puts one in front of a ``Client``, which keeps what the queue does not take.  On the other side a *source*
gives jobs to a ``Worker``, or the worker of a framework calls ``deliver``.

Here: ``handing`` (the shop's side), ``settling`` (what becomes of a job, decided once for all queues), ``sources``
(what a source promises), ``work`` (the worker; its command line is ``commands.work``), ``loading``, and a module for
each queue: ``redis_stream``, ``rabbit``, and for those with workers of their own ``celery``, ``rq``, ``dramatiq``.

No library of a queue is needed to import this package: each is loaded when it is used.
"""

from __future__ import annotations

from postbackd_client.queues.handing import HandOver, HandOverStatistics
from postbackd_client.queues.loading import QueueError
from postbackd_client.queues.rabbit import RabbitQueue
from postbackd_client.queues.redis_stream import RedisStream
from postbackd_client.queues.settling import NotCounted, NotYet, deliver

__all__ = [
    "HandOver",
    "HandOverStatistics",
    "NotCounted",
    "NotYet",
    "QueueError",
    "RabbitQueue",
    "RedisStream",
    "deliver",
]
