"""Dramatiq: an actor for a broker of yours, and the hand-over that sends to it.

    client = Client("https://track.example.com/p/KEY", spool="/var/lib/shop/postbacks")
    report = dramatiq_actor(broker, client)                # in a module that the workers import
    orders = HandOver(DramatiqQueue(report), otherwise=client)

Dramatiq acknowledges after the actor has returned and repeats by its ``Retries`` middleware, which the broker has
unless it was taken out.  What is not counted is in Dramatiq's dead-letter queue, which forgets after seven days.
"""

from __future__ import annotations

from typing import Any

from postbackd_client.client import Client
from postbackd_client.queues.loading import load
from postbackd_client.queues.settling import LADDER_S, NotCounted, NotYet, deliver

MAX_TRIES = 7 * 24 + len(LADDER_S)
"""About a week."""


def dramatiq_actor(
    broker: Any, client: Client, *, name: str = "postbackd_report", queue: str = "default", **options: Any
) -> Any:
    """Register the actor under ``name``; ``options`` are Dramatiq's."""
    dramatiq = load("dramatiq")
    message_now = load("dramatiq.middleware").CurrentMessage.get_current_message

    def report(text: str) -> None:
        message = message_now()
        tries = message.options.get("retries", 0) if message is not None else 0
        try:
            deliver(client, text, tries)
        except NotYet as error:
            raise dramatiq.errors.Retry(str(error), delay=int(error.wait_s * 1000)) from error

    settings = {"max_retries": MAX_TRIES, "throws": (NotCounted,), **options}
    return dramatiq.actor(report, actor_name=name, queue_name=queue, broker=broker, **settings)


class DramatiqQueue:
    """A hand-over: sends the text to the actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __call__(self, text: str) -> None:
        self._actor.send(text)
